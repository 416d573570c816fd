#!/bin/bash
# End to end: systemd is in charge, control groups are those of version 2 and hold a program to its memory,
# a user manager can be reached, and a server inside is reached from here.
TESTBED=machine
# shellcheck source=testbeds/common.sh
. "$(dirname "$(readlink -f "$0")")/../common.sh"
machine_wide
# shellcheck source=testbeds/machine/lib.sh
. "$BEDS/machine/lib.sh"

[ "$(inside stat -f -c %T /sys/fs/cgroup)" = cgroup2fs ] || die "no control groups of version 2"
hungry="python3 -c 'print(len(bytearray(200 << 20)))'"
[ "$(inside "$hungry")" = 209715200 ] || die "no memory at all"
! inside "systemd-run --quiet --collect --scope -p MemoryMax=50M -p MemorySwapMax=0 $hungry" >/dev/null 2>&1 ||
    die "a limit of memory has no effect"
say "it limits memory"

inside "systemd-run --quiet --machine=alice@.host --user --wait true" || die "no user manager"
say "alice has a user manager"

port=$(cut -d ' ' -f 2 "$STATE/ports")
inside "systemd-run --quiet --unit=proof python3 -m http.server 8000"
trap 'inside systemctl stop proof' EXIT
wait_for 30 "a server inside" ask "http://127.0.0.1:$port/"
say "a server inside is reached"
