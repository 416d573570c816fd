# shellcheck shell=bash disable=SC2153  # variables of common.sh and lib.sh
# Makes the disk out of Debian's packages, the first time in two minutes. Sourced by up.sh.

# What the machine is there for: systemd, its user managers, sudo and PAM.
packages=(linux-image-cloud-amd64 systemd-sysv dbus dbus-user-session libpam-systemd openssh-server sudo
    python3 python3-venv iproute2)

requirements() {
    "$("$ROOT/scripts/find-python")" - "$ROOT/pyproject.toml" <<'PY'
import sys, tomllib
with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)["project"]
print(*project["dependencies"], sep="\n")
PY
}

make_root() {
    debian_archives bookworm >/dev/null || apt_get update
    debian_archives bookworm bookworm-updates bookworm-security | sed 's/^/deb /' >"$work/sources.list"
    # Without an archive of this machine's own, mmdebstrap knows Debian's.
    local sources=("$work/sources.list")
    [ -s "$work/sources.list" ] || sources=()
    mmdebstrap --quiet --variant=minbase --include="$(IFS=, && echo "${packages[*]}")" \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' bookworm "$root" "${sources[@]}"
}

# The environment that docs/admin/install.md tells to make; the tests add Perijove itself.
make_environment() {
    local name settings=()
    for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
        [ -z "${!name:-}" ] || settings+=("$name=${!name}")
    done
    install -d "$root/make"
    pip_settings >"$root/make/pip.conf"
    cp /etc/ssl/certs/ca-certificates.crt "$ROOT/constraints.txt" "$root/make/"
    cp -L /etc/resolv.conf "$root/etc/resolv.conf"
    requirements >"$root/make/requirements.txt"
    chroot "$root" python3 -m venv /opt/perijove
    chroot "$root" env -i "${settings[@]}" PIP_CONFIG_FILE=/make/pip.conf PIP_CERT=/make/ca-certificates.crt \
        /opt/perijove/bin/pip install --quiet --no-input --no-cache-dir --disable-pip-version-check \
        --only-binary :all: --constraint /make/constraints.txt --requirement /make/requirements.txt
    rm -rf "$root/make" "$root/etc/resolv.conf"
}

configure() {
    local person
    echo machine >"$root/etc/hostname"
    echo "127.0.0.1 localhost machine" >"$root/etc/hosts"
    echo "/dev/vda / ext4 defaults 0 1" >"$root/etc/fstab"
    printf '[Match]\nName=eth0\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\n' >"$root/etc/systemd/network/eth0.network"
    ln -s /lib/systemd/system/systemd-networkd.service "$root/etc/systemd/system/multi-user.target.wants/"
    # Emulated, it has no time to lose.
    chroot "$root" systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
        e2scrub_all.timer e2scrub_reap.service fstrim.timer systemd-timesyncd.service
    for person in "${PEOPLE[@]}"; do chroot "$root" useradd --create-home --shell /bin/bash "$person"; done
    printf "%s:$(random_secret "$CACHE/password")\n" "${PEOPLE[@]}" | chroot "$root" chpasswd
    [ -e "$CACHE/key" ] || ssh-keygen -q -t ed25519 -N '' -f "$CACHE/key"
    install -D -m 600 "$CACHE/key.pub" "$root/root/.ssh/authorized_keys"
    sed 's/^/machine /' "$root/etc/ssh/ssh_host_ed25519_key.pub" >"$CACHE/known_hosts"
}

# An initial file system with what this machine needs and no more.
make_boot() {
    printf 'MODULES=list\n' >"$root/etc/initramfs-tools/conf.d/testbed"
    printf 'virtio_pci\nvirtio_blk\next4\n' >>"$root/etc/initramfs-tools/modules"
    chroot "$root" update-initramfs -u
    cp "$root"/boot/vmlinuz-* "$CACHE/vmlinuz"
    cp "$root"/boot/initrd.img-* "$CACHE/initrd"
}

make_disk() {
    say "making the disk of a Debian with systemd"
    rm -f "$CACHE/recipe"
    rm -rf --one-file-system "$work"
    install -d -m 700 "$CACHE"
    install -d -m 755 "$work"
    make_root
    make_environment
    configure
    make_boot
    rm -f "$CACHE/disk"
    truncate --size 4G "$CACHE/disk"
    mke2fs -q -t ext4 -O ^has_journal -d "$root" "$CACHE/disk"
    rm -rf --one-file-system "$work"
    echo "$recipe" >"$CACHE/recipe"
}

work=$STATE/work root=$STATE/work/root
recipe=$({
    cat "$BEDS/machine/image.sh" "$ROOT/constraints.txt"
    requirements
} | sha256sum | cut -c -16)
if [ "$(cat "$CACHE/recipe" 2>/dev/null)" != "$recipe" ]; then
    # In a shell of its own: within a condition, bash does not stop at what fails.
    status=0
    (make_disk) >"$STATE/image.log" 2>&1 9>&- &
    wait $! || status=$?
    [ $status = 0 ] || { tail -n 20 "$STATE/image.log" >&2 && die "the disk cannot be made, see $STATE/image.log"; }
fi
