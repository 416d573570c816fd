#!/bin/bash
# System accounts for the tests, all with one password:
#
#   alice, bob, carol, dave   in the group perijove-users, homes of mode 0700
#   pj-expired                the account is past its last day
#   pj-locked                 the password is locked
#   perijove-hub              what a hub without root runs as
#
# and two environments outside of this clone, where those accounts and batch jobs can read them: the
# stock single-user server, and what Perijove itself needs. Publishes PERIJOVE_TEST_PASSWORD,
# PERIJOVE_TEST_JOB_SINGLEUSER and PERIJOVE_TEST_HUB_PREFIX (the directories of those environments)
# and PERIJOVE_TEST_PAM_SERVICE. Debian's own stack answers "not authenticated" for an expired
# account; that service lets its reason through, and does not wait two seconds after a wrong password.
TESTBED=users
# shellcheck source=testbeds/common.sh
. "$(dirname "$(readlink -f "$0")")/../common.sh"
# shellcheck source=testbeds/users/names.sh
. "$BEDS/users/names.sh"
machine_wide
only_one
cd "$ROOT"

apt_need passwd login sudo python3 python3-venv libpam-modules
password=$(random_secret "$STATE/private/password")

# made ACCOUNT USERADD-ARGUMENT...: succeeds if this run made it. An account that was there before
# may be somebody's: nothing is done to it.
made() {
    local account=$1
    shift
    ! grep -qx "$account" "$STATE/made" 2>/dev/null || ! getent passwd "$account" >/dev/null || return 1
    ! getent passwd "$account" >/dev/null ||
        die "an account $account exists already; this bed needs a machine where it may make its own"
    # Said in full: within a condition, bash does not stop at what fails.
    useradd --create-home -K HOME_MODE=0700 "$@" "$account" || die "cannot make $account"
    echo "$account" >>"$STATE/made"
    printf '%s:%s\n' "$account" "$password" | chpasswd || die "cannot give $account a password"
}

claim
getent group "$GROUP" >/dev/null || groupadd --system "$GROUP"
for person in "${PEOPLE[@]}"; do made "$person" --shell /bin/bash --groups "$GROUP" || true; done
made "$EXPIRED" --shell /bin/bash --expiredate 2001-01-01 || true
! made "$LOCKED" --shell /bin/bash || usermod --lock "$LOCKED"
made "$HUB" --system --user-group --shell /usr/sbin/nologin --home-dir "/var/lib/$HUB" || true

cat >"/etc/pam.d/$PAM_SERVICE" <<'CONF'
# made by a test bed
auth     required pam_unix.so nodelay
account  required pam_unix.so
session  required pam_unix.so
password required pam_deny.so
CONF

# environment DIRECTORY PINS FILE PIP-ARGUMENT...: made anew when the pins or the file change.
environment() {
    local directory=$1 pins=$2 stamp
    stamp=$(cat "$pins" "$3" | cksum)
    [ "$(cat "$directory/.made" 2>/dev/null)" != "$stamp" ] || return 0
    install -d -m 755 "$(dirname "$directory")"
    # Debian's Python: root's may lie where nobody else can go.
    [ -x "$directory/bin/python" ] || /usr/bin/python3 -m venv --clear "$directory"
    scripts/venv "$directory" "$pins" "${@:4}" 9>&-
    echo "$stamp" >"$directory/.made"
}
stock=testbeds/singleuser/requirements-5.in
environment "$SINGLEUSER" testbeds/singleuser/constraints-5.txt $stock --requirement $stock
environment "$HUB_PREFIX" constraints.txt pyproject.toml "$ROOT"

publish "PERIJOVE_TEST_PASSWORD=$password" "PERIJOVE_TEST_PAM_SERVICE=$PAM_SERVICE" \
    "PERIJOVE_TEST_JOB_SINGLEUSER=$SINGLEUSER" "PERIJOVE_TEST_HUB_PREFIX=$HUB_PREFIX"
say "up: ${PEOPLE[*]} $EXPIRED $LOCKED $HUB; $SINGLEUSER $HUB_PREFIX"
