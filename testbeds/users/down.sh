#!/bin/bash
# Nothing runs here.   --purge   removes the accounts that up.sh made, with their homes.
TESTBED=users
# shellcheck source=testbeds/common.sh
. "$(dirname "$(readlink -f "$0")")/../common.sh"
# shellcheck source=testbeds/users/names.sh
. "$BEDS/users/names.sh"
is_root || exit 0
machine_wide
only_one

retract
[ "${1:-}" = --purge ] || exit 0
disclaim
while read -r account; do
    ! getent passwd "$account" >/dev/null || userdel --remove "$account" 2>/dev/null ||
        die "cannot remove $account, something of theirs runs"
done < <(cat "$STATE/made" 2>/dev/null)
! getent group "$GROUP" >/dev/null || groupdel "$GROUP"
rm -rf "$SINGLEUSER" "$HUB_PREFIX" "$STATE" "/etc/pam.d/$PAM_SERVICE"
say "purged"
