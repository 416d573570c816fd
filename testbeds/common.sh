# shellcheck shell=bash
# What the test bed scripts share. Sourced, never run:
#
#   TESTBED=postgresql
#   . "$(dirname "$(readlink -f "$0")")/../common.sh"
#
# Everything a bed leaves behind is below testbeds/.state/BED, but for files another account must
# reach: those are in a directory of their own below /var/tmp, because a clone may stand where no
# other account can go. What the tests must know is in testbeds/.state/env/BED, one NAME=value a
# line; tests/conftest.py reads it.

set -euo pipefail
umask 022

BEDS=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
ROOT=$(dirname "$BEDS")
STATE=$BEDS/.state/$TESTBED

say() { printf '[%s] %s\n' "$TESTBED" "$*" >&2; }
die() {
    say "error: $*"
    exit 1
}

is_root() { [ "$(id -u)" = 0 ]; }

# machine_wide: for a bed of which a machine can hold one only (accounts, a scheduler). Its state
# is kept by the machine and every clone finds it; the clone that brought it up stops it.
machine_wide() {
    is_root || die "needs root"
    STATE=/var/lib/perijove-testbeds/$TESTBED
    install -d -m 755 /var/lib/perijove-testbeds "$STATE"
    # What only root may read: keys, passwords, a database.
    install -d -m 700 "$STATE/private"
}

# claim: this clone brings the bed up, unless the one that did so still exists.
claim() { [ -d "$(cat "$STATE/clone" 2>/dev/null)" ] || printf '%s\n' "$ROOT" >"$STATE/clone"; }

# disclaim: forget who brought it up; ends the script where that was another clone.
disclaim() {
    local clone
    clone=$(cat "$STATE/clone" 2>/dev/null) || clone=$ROOT
    if [ "$clone" != "$ROOT" ] && [ -d "$clone" ]; then
        say "left alone, it belongs to $clone"
        exit 0
    fi
    rm -f "$STATE/clone"
}

# unmount_state: what is mounted below $STATE still, when nobody uses it any more.
unmount_state() {
    awk -v below="$STATE/" 'index($2, below) == 1 { print $2 }' /proc/mounts | sort -r | while read -r mount; do
        umount "$mount" || umount --lazy "$mount"
    done
}

# random_secret FILE: a secret for root's eyes, made once.
random_secret() {
    [ -s "$1" ] || (umask 077 && od -An -N 24 -t x1 /dev/urandom | tr -d ' \n' >"$1")
    cat "$1"
}

# as USER COMMAND...: in a clean environment, such as a login gives.
as() {
    local user=$1 home
    shift
    home=$(getent passwd "$user" | cut -d: -f6)
    (
        cd "$home"
        exec setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups env -i HOME="$home" \
            USER="$user" LOGNAME="$user" SHELL=/bin/bash PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 "$@"
    )
}

# ask URL: what is there.
ask() { "$("$ROOT/scripts/find-python")" -c 'import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=5).read().decode())' "$1"; }

# only_one: two runs for the same bed wait for each other.
only_one() {
    mkdir -p "$STATE"
    exec 9>"$STATE/lock"
    flock -w 600 9 || die "another run is at work since ten minutes"
}

# publish NAME=VALUE...: what the tests shall know of this bed. Only the owner may read it, it can
# hold a password.
publish() {
    mkdir -p "$BEDS/.state/env"
    (
        umask 077
        printf '%s\n' "$@" >"$BEDS/.state/env/$TESTBED.new"
    )
    mv "$BEDS/.state/env/$TESTBED.new" "$BEDS/.state/env/$TESTBED"
}

# retract: the tests shall not look for this bed any more.
retract() { rm -f "$BEDS/.state/env/$TESTBED"; }

# --- packages -------------------------------------------------------------------------------

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# apt_need PACKAGE...: install what is missing, and let no package start its own service.
apt_need() {
    local package missing=() log=$STATE/apt.log policy=
    command -v dpkg-query >/dev/null || die "only Debian and its children are known here; install by hand: $*"
    for package in "$@"; do installed "$package" || missing+=("$package"); done
    [ ${#missing[@]} -gt 0 ] || return 0
    is_root || die "needs root to install ${missing[*]} (or: apt install ${missing[*]})"
    say "installing ${missing[*]}"
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod 755 /usr/sbin/policy-rc.d
        policy=made
    fi
    local status=0
    apt_install "${missing[@]}" >"$log" 2>&1 ||
        { apt_get update && apt_install "${missing[@]}"; } >>"$log" 2>&1 || status=$?
    [ -z "$policy" ] || rm -f /usr/sbin/policy-rc.d
    [ $status = 0 ] || { tail -n 20 "$log" >&2 && die "apt-get failed, see $log"; }
}

# 9>&-: a child must not inherit the lock.
apt_get() { DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get -q -y -o DPkg::Lock::Timeout=900 "$@" </dev/null 9>&-; }
apt_install() { apt_get -o APT::Install-Recommends=false install "$@"; }

# debian_archives SUITE...: "URI SUITE COMPONENT" of the archives that this machine's own apt reads.
debian_archives() {
    # shellcheck disable=SC2016  # apt fills these in
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' |
        sort -u | grep -E " ($(IFS='|' && echo "$*")) "
}

# pip_settings: pip's index where this machine has one of its own.
pip_settings() {
    local python name value
    python=$("$ROOT/scripts/find-python")
    echo "[global]"
    for name in index-url trusted-host; do
        value=$("$python" -m pip config get "global.$name" 2>/dev/null) || continue
        [[ $value == file:* ]] || echo "$name = $value"
    done
}

# npm_need DIRECTORY PACKAGE@VERSION...: install exactly these below DIRECTORY.
npm_need() {
    local directory=$1 wanted
    shift
    wanted="$*"
    [ "$(cat "$directory/.installed" 2>/dev/null)" != "$wanted" ] || return 0
    command -v npm >/dev/null || apt_need npm
    say "installing $wanted"
    mkdir -p "$directory"
    npm install --prefix "$directory" --no-save --no-package-lock --no-fund --no-audit --loglevel=error \
        "$@" >"$STATE/npm.log" 2>&1 </dev/null 9>&- || { tail -n 20 "$STATE/npm.log" >&2 && die "npm failed"; }
    printf '%s\n' "$wanted" >"$directory/.installed"
}

# --- daemons, known by process id and start time, so that a reused id is never hit --------------

# start_time PID: field 22 of /proc/PID/stat, counted from behind the command's name, which may
# hold spaces and parentheses. Fails for what is gone or a zombie.
start_time() {
    local stat fields
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    read -r -a fields <<<"${stat##*) }"
    [ "${fields[0]}" != Z ] || return 1
    echo "${fields[19]}"
}

# running NAME: the process we started under that name is alive; its id is left in PID.
running() {
    local started
    PID=
    [ -r "$STATE/$1.pid" ] || return 1
    read -r PID started <"$STATE/$1.pid" || return 1
    [ "$(start_time "$PID")" = "$started" ]
}

# start_daemon NAME COMMAND...: a foreground daemon in a session and an environment of its own.
start_daemon() {
    local name=$1 pid
    shift
    setsid env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/nonexistent \
        LANG=C.UTF-8 "$@" >>"$STATE/$name.log" 2>&1 </dev/null 9>&- &
    pid=$!
    disown "$pid"
    printf '%s %s\n' "$pid" "$(start_time "$pid")" >"$STATE/$name.pid"
}

# stop_daemon NAME SIGNAL SECONDS: ask, wait, and at last insist; only what we started.
stop_daemon() {
    local name=$1 signal=$2 end=$((SECONDS + $3))
    if running "$name"; then
        kill -s "$signal" "$PID"
        while running "$name" && ((SECONDS < end)); do sleep 0.1; done
        ! running "$name" || kill -s KILL "$PID"
        say "stopped $name"
    fi
    rm -f "$STATE/$name.pid"
}

# wait_for SECONDS WHAT COMMAND...: ask until it succeeds.
wait_for() {
    local limit=$1 what=$2 said='' end
    shift 2
    end=$((SECONDS + limit))
    while ((SECONDS < end)); do
        said=$("$@" 2>&1) && return 0
        sleep 0.1
    done
    die "waited ${limit} s for $what: $said"
}
