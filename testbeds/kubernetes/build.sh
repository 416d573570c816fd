#!/bin/bash
# Builds Kubernetes, once, from Debian's source package: Debian itself builds only the client from it,
# but it holds everything, libraries too. Five minutes on two cores and 4 GB on the disk, which are
# given back; what is built stays in /var/cache/perijove-testbeds (PERIJOVE_TESTBED_CACHE).
TESTBED=kubernetes
# shellcheck source=testbeds/common.sh
. "$(dirname "$(readlink -f "$0")")/../common.sh"
machine_wide
# shellcheck source=testbeds/kubernetes/lib.sh
. "$BEDS/kubernetes/lib.sh"

work=$BIN.build
source=$work/go/src/k8s.io/kubernetes
log=$STATE/build.log
go=/usr/lib/go-1.19/bin/go

# fetch: into $work, with an apt state of its own, so that nothing is changed below /etc/apt.
fetch() {
    local mirror own
    debian_archives bookworm >/dev/null || apt_get update
    mirror=$(debian_archives bookworm | awk '$3 == "main" { print $1; exit }')
    mkdir -p apt/lists/partial apt/cache/archives/partial
    echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:?} bookworm main" >apt/sources.list
    own=(-o "Dir::Etc::SourceList=$work/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$work/apt/lists" -o "Dir::Cache=$work/apt/cache" -o APT::Sandbox::User=root)
    apt_get "${own[@]}" update
    apt_get "${own[@]}" source --download-only kubernetes
    # Unpacked, not installed: the package brings a service.
    apt_get download etcd-server
    dpkg-deb -x etcd-server_*.deb etcd
    install -D etcd/usr/bin/etcd bin/etcd
}

# generate: the API's definitions, the one generated file that the source lacks; as upstream does it.
generate() {
    local packages
    "$go" build -o "$work/" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
    packages=$(find cmd pkg plugin test vendor/k8s.io/ -follow -type f -name '*.go' ! -name '*_test.go' -print0 |
        xargs -0 grep -l '^// *+k8s:openapi-gen=' | xargs -n 1 dirname | LC_ALL=C sort -u |
        grep -vE '^vendor/k8s.io/(code-generator|sample-apiserver)/' | sed 's,^,k8s.io/kubernetes/,' | paste -sd,)
    "$work/openapi-gen" --logtostderr -i "$packages" -p k8s.io/kubernetes/pkg/generated/openapi \
        -O zz_generated.openapi -h vendor/k8s.io/code-generator/hack/boilerplate.go.txt -r "$work/violations"
    cmp "$work/violations" api/api-rules/violation_exceptions.list
}

compile() {
    local flags="-s -w" package fact
    for package in component-base/version client-go/pkg/version; do
        for fact in "gitVersion=v$VERSION" gitMajor=1 gitMinor=20 gitTreeState=archive; do
            flags+=" -X k8s.io/kubernetes/vendor/k8s.io/$package.$fact"
        done
    done
    "$go" build -ldflags "$flags" -o "$work/bin/" ./cmd/kube-apiserver ./cmd/kube-controller-manager \
        ./cmd/kube-scheduler ./cmd/kubelet ./cmd/kube-proxy ./cmd/kubectl
    # It holds a pod's namespaces.
    gcc -static -Os -o "$work/bin/pause" build/pause/linux/pause.c
}

apt_need golang-1.19-go gcc libc6-dev patch
say "building Kubernetes $VERSION, the first time only; five minutes or more (log: $log)"
[ ! -d "$work" ] || { chmod -R u+w "$work" && rm -rf "$work"; }
mkdir -p "$source" "$work/bin"
export GO111MODULE=off CGO_ENABLED=0 GOFLAGS='' GOPATH=$work/go GOCACHE=$work/cache
everything() {
    cd "$work"
    fetch
    tar -C "$source" --strip-components=1 -xf kubernetes_*.orig.tar.gz
    cd "$source"
    patch -p1 <"$BEDS/kubernetes/changes.patch"
    generate
    compile
}
renice -n 10 $$ >/dev/null
# In a shell of its own: within a condition, bash would not stop at what fails.
set +e
(
    set -e
    everything
) >"$log" 2>&1
status=$?
set -e
[ $status = 0 ] || { tail -n 20 "$log" >&2 && die "the build failed, see $log"; }
rm -rf "$BIN"
mv "$work/bin" "$BIN"
# Go's cache is read-only.
chmod -R u+w "$work"
rm -rf "$work"
say "built: $BIN"
