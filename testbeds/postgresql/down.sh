#!/bin/bash
# Stops the cluster that up.sh started.   --purge   also removes it.
TESTBED=postgresql
# shellcheck source=testbeds/common.sh
. "$(dirname "$(readlink -f "$0")")/../common.sh"
only_one

stop_daemon postgres INT 30
retract
if [ "${1:-}" = --purge ] && [ -e "$STATE/place" ]; then
    rm -rf "$(cat "$STATE/place")"
    rm -f "$STATE/place" "$STATE/password"
    say "purged"
fi
