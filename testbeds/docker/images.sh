# shellcheck shell=bash disable=SC2153  # variables of common.sh and lib.sh
# Makes the images of Dockerfile out of Debian's packages, the first time in two minutes. Sourced by up.sh.

# make_root FILE: a minimal Debian as a tar archive.
make_root() {
    local suite=bookworm work=$STATE/root.new mirror
    rm -rf --one-file-system "$work"
    mkdir -p "$work"
    debian_archives "$suite" >/dev/null || apt_get update >"$STATE/apt.log" 2>&1
    mirror=$(debian_archives "$suite" | awk '$3 == "main" { print $1; exit }') || mirror=
    say "making a root file system"
    nice debootstrap --variant=minbase --include=ca-certificates "$suite" "$work" ${mirror:+"$mirror"} \
        >"$STATE/debootstrap.log" 2>&1 9>&- || { tail -n 20 "$STATE/debootstrap.log" >&2 && die "debootstrap failed"; }
    debian_archives "$suite" "$suite-updates" "$suite-security" | sed 's/^/deb /' >"$STATE/sources.list" || true
    [ ! -s "$STATE/sources.list" ] || cp "$STATE/sources.list" "$work/etc/apt/sources.list"
    rm -rf "$work"/var/cache/apt/* "$work"/var/lib/apt/lists/* "$work"/etc/{resolv.conf,hostname}
    tar -C "$work" --numeric-owner --exclude='./dev/*' --exclude='./proc/*' --exclude='./sys/*' -cf "$1.new" .
    mv "$1.new" "$1"
    rm -rf --one-file-system "$work"
}

# fill_context DIRECTORY: all that the Dockerfile copies.
fill_context() {
    rm -rf "$1"
    mkdir -p "$1/ca"
    cp "$BEDS/docker/Dockerfile" "$ROOT/tests/contract/spawners/program.py" "$1/"
    cp "$BEDS/singleuser/constraints-5.txt" "$1/constraints.txt"
    cp "$BEDS/singleuser/requirements-5.in" "$1/requirements.txt"
    find /usr/local/share/ca-certificates -name '*.crt' -exec cp -t "$1/ca" {} +
    pip_settings >"$1/pip.conf"
}

# build TARGET IMAGE
build() {
    local name proxies=()
    ! has_recipe "$2" "$recipe" || return 0
    say "building $2"
    for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
        [ -z "${!name:-}" ] || proxies+=(--build-arg "$name")
    done
    nice docker build "${proxies[@]}" --build-arg "ROOT_IMAGE=$ROOT_IMAGE" --label "perijove.test.recipe=$recipe" \
        --target "$1" --tag "$2" "$context" >"$STATE/build.log" 2>&1 9>&- ||
        { tail -n 20 "$STATE/build.log" >&2 && die "docker build failed, see $STATE/build.log"; }
}

root_archive=$STATE/root-12.tar
context=$STATE/context
[ -s "$root_archive" ] || make_root "$root_archive"
fill_context "$context"
recipe=$({
    stat -c '%s %Y' "$root_archive"
    cd "$context" && find . -type f | sort | xargs cat
} | sha256sum | cut -c -16)
docker image inspect "$ROOT_IMAGE" >/dev/null 2>&1 || docker import "$root_archive" "$ROOT_IMAGE" >/dev/null
build python "$BASE_IMAGE"
build null "$NULL_IMAGE"
build singleuser "$SINGLEUSER_IMAGE"
