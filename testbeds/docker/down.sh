#!/bin/bash
# Removes the containers of the tests and stops the engines that up.sh started, with all that runs in
# them.   --purge   also removes their images and volumes.
TESTBED=docker
# shellcheck source=testbeds/common.sh
. "$(dirname "$(readlink -f "$0")")/../common.sh"
is_root || exit 0
[ -d "/var/lib/perijove-testbeds/$TESTBED" ] || exit 0
machine_wide
# shellcheck source=testbeds/docker/lib.sh
. "$BEDS/docker/lib.sh"
only_one

retract
disclaim
! running dockerd || kill -s CONT "$PID"
! engine_answers >/dev/null 2>&1 || remove_containers docker
stop_engine ending
! running second || remove_containers second
stop_daemon second TERM 60
ip link delete "$SECOND_BRIDGE" 2>/dev/null || true
unmount_state

if [ "${1:-}" = --purge ]; then
    rm -rf --one-file-system "$STATE"
    say "purged"
fi
