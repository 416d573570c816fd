#!/bin/bash
# End to end, as alice: submits a job that serves HTTP on a free port and writes its address to a
# file; finds it running, asks it, deletes it, sees it gone and in accounting.
TESTBED=gridengine
# shellcheck source=testbeds/common.sh
. "$(dirname "$(readlink -f "$0")")/../common.sh"
machine_wide
# shellcheck source=testbeds/gridengine/lib.sh
. "$BEDS/gridengine/lib.sh"

person=${1:-alice}
home=$(getent passwd "$person" | cut -d: -f6)
# Warnings may come before the number.
job=$(as "$person" "${SGE[@]}" qsub -terse -N web -l rmem=200M,h_rt=0:10:0 -pe smp 2 -j y -o /dev/null \
    <"$BEDS/tools/serve-from-job" | tail -n 1)
say "submitted $job as $person"
# The fifth column, behind number, priority, name and owner.
state() { qstat -u '*' | awk -v job="$job" '$1 == job { print $5 }'; }
in_state() { [ "$(state)" = "$1" ]; }
wait_for 30 "job $job to run" in_state r
wait_for 30 "its address" test -s "$home/web-$job.address"
url=http://$(cat "$home/web-$job.address")/
[ "$(ask "$url")" = "$person" ] || die "no answer from $person at $url"
say "it answers at $url and runs as $person"
as "$person" "${SGE[@]}" qdel "$job" >&2
wait_for 30 "job $job to end" in_state ""
! ask "$url" 2>/dev/null || die "it still answers"
wait_for 20 "accounting" qacct -j "$job"
say "gone; accounting says $(qacct -j "$job" | grep -E '^(failed|exit_status|ru_wallclock)' | tr -s ' ' | paste -sd';')"
rm -f "$home/web-$job.address"
