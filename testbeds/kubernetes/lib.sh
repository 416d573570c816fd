# shellcheck shell=bash disable=SC2034,SC2153  # variables of common.sh, variables for those who source this
# What the scripts of the bed `kubernetes` share. Sourced after common.sh, never run.

VERSION=1.20.2 # of Debian 12's source package
# What took five minutes to build; --purge leaves it.
BIN=${PERIJOVE_TESTBED_CACHE:-/var/cache/perijove-testbeds}/kubernetes-$VERSION
PROGRAMS=(etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl pause)
# In the order in which they start.
DAEMONS=(etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy)
NODE=testbed
PORT=${PERIJOVE_TESTBED_KUBERNETES_PORT:-16443}
# etcd has this port and the next.
ETCD_PORT=${PERIJOVE_TESTBED_ETCD_PORT:-12379}
SERVICE_NET=10.96.0.0/16
API_SERVICE=10.96.0.1 # the first of these: the API itself
PAUSE_IMAGE=perijove-test/pause:1
PKI=$STATE/private
KUBECONFIG_FILE=$STATE/kubeconfig
# The kubelet uses the engine of the bed `docker`.
export DOCKER_HOST=unix://${PERIJOVE_TESTBED_DOCKER_SOCKET:-/var/run/docker.sock}

k() { timeout 120 "$BIN/kubectl" --kubeconfig "$KUBECONFIG_FILE" --request-timeout=10s "$@"; }
api_ready() { k get --raw /readyz; }
node_ready() { [ "$(k get node "$NODE" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')" = True ]; }

# start NAME: one of DAEMONS, unless it runs.
start() {
    ! running "$1" || return 0
    case $1 in
    etcd) start_etcd ;;
    kube-apiserver) start_apiserver ;;
    kube-controller-manager)
        start_manager "$1" --use-service-account-credentials \
            --service-account-private-key-file "$PKI/sa.key" --root-ca-file "$PKI/ca.crt" \
            --cluster-signing-cert-file "$PKI/ca.crt" --cluster-signing-key-file "$PKI/ca.key" \
            --enable-hostpath-provisioner --pvclaimbinder-sync-period 5s \
            --flex-volume-plugin-dir "$STATE/flexvolume" --node-monitor-grace-period 20s
        ;;
    kube-scheduler) start_manager "$1" ;;
    kubelet)
        start_daemon kubelet "$BIN/kubelet" --config "$STATE/kubelet.yaml" \
            --kubeconfig "$PKI/kubelet.kubeconfig" --hostname-override "$NODE" \
            --node-ip "$(host_ip)" --root-dir "$STATE/kubelet" --cert-dir "$PKI" \
            --container-runtime docker --docker-endpoint "$DOCKER_HOST" \
            --pod-infra-container-image "$PAUSE_IMAGE" \
            --container-runtime-endpoint "unix://$STATE/dockershim.sock" \
            --experimental-dockershim-root-directory "$STATE/dockershim"
        ;;
    kube-proxy)
        # The settings of the kernel stay as they are: zeros.
        start_daemon kube-proxy "$BIN/kube-proxy" --kubeconfig "$PKI/kube-proxy.kubeconfig" \
            --hostname-override "$NODE" --oom-score-adj 0 --proxy-mode iptables \
            --cluster-cidr "$(pod_net)" --bind-address "$(host_ip)" \
            --healthz-bind-address 127.0.0.1:10256 --metrics-bind-address 127.0.0.1:10249 \
            --conntrack-max-per-core 0 --conntrack-tcp-timeout-established 0 \
            --conntrack-tcp-timeout-close-wait 0
        ;;
    *) die "no such process: $1" ;;
    esac
}

start_etcd() {
    local own=http://127.0.0.1:$ETCD_PORT peers=http://127.0.0.1:$((ETCD_PORT + 1))
    # No fsync: a test bed may lose what it held when the machine itself ends.
    start_daemon etcd "$BIN/etcd" --name "$NODE" --data-dir "$PKI/etcd" --log-level warn --unsafe-no-fsync \
        --listen-client-urls "$own" --advertise-client-urls "$own" \
        --listen-peer-urls "$peers" --initial-advertise-peer-urls "$peers" --initial-cluster "$NODE=$peers"
}

start_apiserver() {
    local ip
    ip=$(host_ip)
    start_daemon kube-apiserver "$BIN/kube-apiserver" --etcd-servers "http://127.0.0.1:$ETCD_PORT" \
        --bind-address "$ip" --advertise-address "$ip" --secure-port "$PORT" \
        --tls-cert-file "$PKI/apiserver.crt" --tls-private-key-file "$PKI/apiserver.key" \
        --client-ca-file "$PKI/ca.crt" --authorization-mode Node,RBAC \
        --enable-admission-plugins NodeRestriction --allow-privileged \
        --service-cluster-ip-range "$SERVICE_NET" --service-account-issuer https://kubernetes.default.svc \
        --service-account-signing-key-file "$PKI/sa.key" --service-account-key-file "$PKI/sa.pub" \
        --kubelet-certificate-authority "$PKI/ca.crt" --kubelet-preferred-address-types InternalIP \
        --kubelet-client-certificate "$PKI/apiserver-kubelet-client.crt" \
        --kubelet-client-key "$PKI/apiserver-kubelet-client.key" \
        --requestheader-client-ca-file "$PKI/front-proxy-ca.crt" \
        --requestheader-allowed-names front-proxy-client --requestheader-username-headers X-Remote-User \
        --requestheader-group-headers X-Remote-Group --requestheader-extra-headers-prefix X-Remote-Extra- \
        --proxy-client-cert-file "$PKI/front-proxy-client.crt" --proxy-client-key-file "$PKI/front-proxy-client.key"
}

# start_manager NAME ARGUMENT...: one of the two that act through the API alone.
start_manager() {
    local name=$1 config=$PKI/$1.kubeconfig
    shift
    start_daemon "$name" "$BIN/$name" --kubeconfig "$config" --authentication-kubeconfig "$config" \
        --authorization-kubeconfig "$config" --bind-address 127.0.0.1 --port 0 --leader-elect=false "$@"
}

# advertise_gpus NUMBER: there is no device; the scheduler counts it and the pod runs.
advertise_gpus() {
    k get node "$NODE" -o json | "$("$ROOT/scripts/find-python")" -c '
import json, sys
node = json.load(sys.stdin)
del node["metadata"]["resourceVersion"]
for kind in "capacity", "allocatable":
    node["status"][kind]["nvidia.com/gpu"] = sys.argv[1]
json.dump(node, sys.stdout)' "$1" | k replace --raw "/api/v1/nodes/$NODE/status" -f - >/dev/null
}

# host_ip: this machine's address on the engine's bridge, the same as pods see. It is the node's too:
# whatever the real interfaces are, pods reach it.
host_ip() { ip -4 -o address show docker0 | awk '{ sub("/.*", "", $4); print $4; exit }'; }
pod_net() { docker network inspect bridge -f '{{range .IPAM.Config}}{{.Subnet}}{{end}}'; }
