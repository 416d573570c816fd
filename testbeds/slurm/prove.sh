#!/bin/bash
# End to end, as alice: submits a job that serves HTTP on a free port and writes its address to a
# file; finds it running, asks it, cancels it, sees it gone and in accounting.
TESTBED=slurm
# shellcheck source=testbeds/common.sh
. "$(dirname "$(readlink -f "$0")")/../common.sh"
machine_wide
# shellcheck source=testbeds/slurm/lib.sh
. "$BEDS/slurm/lib.sh"

person=${1:-alice}
home=$(getent passwd "$person" | cut -d: -f6)
job=$(as "$person" sbatch --parsable --export=NONE --job-name=web --time=10 --mem=200M --output=/dev/null \
    <"$BEDS/tools/serve-from-job")
say "submitted $job as $person"
in_state() { [ "$(squeue -h -t all -j "$job" -o %T 2>/dev/null)" = "$1" ]; }
wait_for 30 "job $job to run" in_state RUNNING
say "running on $(squeue -h -j "$job" -o '%N, %L left, submitted %V, started %S')"
wait_for 30 "its address" test -s "$home/web-$job.address"
url=http://$(cat "$home/web-$job.address")/
[ "$(ask "$url")" = "$person" ] || die "no answer from $person at $url"
say "it answers at $url and runs as $person"
as "$person" scancel "$job"
wait_for 30 "job $job to be cancelled" in_state CANCELLED
! ask "$url" 2>/dev/null || die "it still answers"
accounted() { sacct -n -X -P -j "$job" -o State | grep -q '^CANCELLED'; }
wait_for 30 "accounting" accounted
say "gone; accounting says $(sacct -n -X -P -j "$job" -o State,ExitCode,Elapsed)"
rm -f "$home/web-$job.address"
