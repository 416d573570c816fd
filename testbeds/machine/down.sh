#!/bin/bash
# Stops the machine; its disk forgets what happened.   --purge   also removes what it keeps; the disk as it
# was made stays in /var/cache/perijove-testbeds.
TESTBED=machine
# shellcheck source=testbeds/common.sh
. "$(dirname "$(readlink -f "$0")")/../common.sh"
is_root || exit 0
[ -d "/var/lib/perijove-testbeds/$TESTBED" ] || exit 0
machine_wide
only_one

retract
disclaim
stop_daemon connection TERM 5
stop_daemon qemu TERM 10
if [ "${1:-}" = --purge ]; then
    rm -rf --one-file-system "$STATE"
    say "purged"
fi
