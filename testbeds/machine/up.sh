#!/bin/bash
# A machine of its own, emulated: Debian 12 with systemd in charge and control groups version 2, which the
# machine of the tests may not have. In it are the accounts alice and bob, and /opt/perijove with all that
# Perijove needs but Perijove. Its disk forgets everything when it is stopped. Publishes
#
#   PERIJOVE_TEST_MACHINE            the command that runs another one in it as root
#   PERIJOVE_TEST_MACHINE_URL        where its port 8000 is
#   PERIJOVE_TEST_MACHINE_PASSWORD   alice's and bob's
#
# It needs no /dev/kvm, and does not use it: where that is there it may not work, and the tests would be
# others with it than without.
TESTBED=machine
# shellcheck source=testbeds/common.sh
. "$(dirname "$(readlink -f "$0")")/../common.sh"
machine_wide
# shellcheck source=testbeds/machine/lib.sh
. "$BEDS/machine/lib.sh"
only_one
cd "$ROOT"

[ "$(uname -m)" = x86_64 ] || die "only x86_64 is known here"
apt_need qemu-system-x86 mmdebstrap e2fsprogs openssh-client
claim
# shellcheck source=testbeds/machine/image.sh
. "$BEDS/machine/image.sh"

free_port() { "$(scripts/find-python)" -c 'import socket as s; a = s.socket(); a.bind(("127.0.0.1", 0)); print(a.getsockname()[1])'; }

boot() {
    local ssh_port=$1 port=$2 kernel
    # An emulated timer that is late must not end the boot, and a kernel that panics ends the emulator.
    kernel="root=/dev/vda rw console=ttyS0 net.ifnames=0 no_timer_check panic=-1"
    rm -f "$STATE/console"
    start_daemon qemu qemu-system-x86_64 -machine q35,accel=tcg -cpu max -smp 1 -m 1536 -nodefaults -display none \
        -no-reboot -serial "file:$STATE/console" -device virtio-rng-pci \
        -kernel "$CACHE/vmlinuz" -initrd "$CACHE/initrd" -append "$kernel" \
        -drive "file=$CACHE/disk,format=raw,if=virtio,snapshot=on" -device virtio-net-pci,netdev=net \
        -netdev "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:$ssh_port-:22,hostfwd=tcp:127.0.0.1:$port-:8000"
    printf '%s %s\n' "$ssh_port" "$port" >"$STATE/ports"
}

# One connection for all commands: each of its own would cost the machine seconds.
connect() {
    is_reached && return
    running qemu || die "the machine went down, see $STATE/console and $STATE/qemu.log"
    if ! running connection; then
        # What a killed connection leaves there would keep the new one from being shared.
        rm -f "$CONNECTION"
        start_daemon connection ssh -F none -i "$CACHE/key" -p "$ssh_port" -M -S "$CONNECTION" -N \
            -o BatchMode=yes -o ConnectTimeout=60 -o HostKeyAlias=machine \
            -o UserKnownHostsFile="$CACHE/known_hosts" root@127.0.0.1
    fi
    tail -n 5 "$STATE/console" "$STATE/connection.log"
    false
}

running qemu || boot "$(free_port)" "$(free_port)"
read -r ssh_port port <"$STATE/ports"
is_reached || stop_daemon connection TERM 5
wait_for 600 "the machine" connect
# "degraded" is what a test leaves behind whose unit failed.
is_up() { [[ $(inside systemctl is-system-running --wait) =~ ^(running|degraded)$ ]]; }
wait_for 300 "all units" is_up
publish "PERIJOVE_TEST_MACHINE=$BEDS/machine/run" "PERIJOVE_TEST_MACHINE_URL=http://127.0.0.1:$port" \
    "PERIJOVE_TEST_MACHINE_PASSWORD=$(cat "$CACHE/password")"
say "up: $(inside systemctl --version | head -n 1), port $port"
