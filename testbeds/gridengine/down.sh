#!/bin/bash
# Deletes the jobs and stops the scheduler that up.sh started.   --purge   also removes it.
TESTBED=gridengine
# shellcheck source=testbeds/common.sh
. "$(dirname "$(readlink -f "$0")")/../common.sh"
is_root || exit 0
machine_wide
# shellcheck source=testbeds/gridengine/lib.sh
. "$BEDS/gridengine/lib.sh"
only_one

retract
disclaim
# A shepherd and its job outlive execd: the jobs must end while someone can end them.
no_jobs() { [ -z "$(timeout 10 qstat -u '*')" ]; }
if running qmaster; then
    kill -s CONT "$PID"
    timeout 20 qdel -u '*' >/dev/null 2>&1 || true
    (wait_for 20 "the jobs to end" no_jobs) || timeout 20 qdel -f -u '*' >/dev/null 2>&1 || true
fi
stop_daemon execd TERM 15
stop_daemon qmaster TERM 30
if [ -e "$STATE/defaults" ] && grep -q 'written by a test bed' /etc/default/gridengine 2>/dev/null; then
    mv "$STATE/defaults" /etc/default/gridengine
fi
if [ "${1:-}" = --purge ]; then
    rm -rf "$STATE"
    say "purged"
fi
