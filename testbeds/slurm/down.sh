#!/bin/bash
# Cancels the jobs and stops the cluster that up.sh started.   --purge   also removes it.
TESTBED=slurm
# shellcheck source=testbeds/common.sh
. "$(dirname "$(readlink -f "$0")")/../common.sh"
is_root || exit 0
machine_wide
# shellcheck source=testbeds/slurm/lib.sh
. "$BEDS/slurm/lib.sh"
only_one

retract
disclaim
# A step outlives its slurmd: the jobs must end while someone can end them.
no_jobs() { [ -z "$(timeout 10 squeue -h -t running,completing,suspended -o %i)" ]; }
if running slurmctld; then
    kill -s CONT "$PID"
    while read -r person; do
        timeout 20 scancel --user="$person" || true
    done < <(timeout 20 squeue -h -o %u | sort -u)
    (wait_for 20 "the jobs to end" no_jobs) || true
fi
for node in "${NODES[@]}"; do stop_daemon "slurmd.$node" TERM 15; done
stop_daemon slurmctld TERM 30
stop_daemon slurmdbd TERM 30
stop_daemon mariadb TERM 60
stop_daemon munged TERM 10

for file in slurm.conf gres.conf cgroup.conf job_submit.lua; do
    [ "$(readlink "/etc/slurm/$file")" != "$ETC/$file" ] || rm -f "/etc/slurm/$file"
done
# Slurm leaves empty control groups behind that are named after our nodes.
for node in "${NODES[@]}"; do
    for group in /sys/fs/cgroup/*/slurm_"$node"; do
        [ ! -d "$group" ] || find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
done

if [ "${1:-}" = --purge ]; then
    rm -rf "$STATE"
    say "purged"
fi
