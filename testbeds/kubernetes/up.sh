#!/bin/bash
# A real Kubernetes with one node on this machine: etcd, kube-apiserver with TLS and RBAC,
# kube-controller-manager, kube-scheduler, kubelet on the engine of the bed `docker`, and kube-proxy, each
# in the foreground. The first time it is built, which takes five minutes or more. Publishes
#
#   PERIJOVE_TEST_KUBECONFIG          of an administrator
#   PERIJOVE_TEST_KUBERNETES_HOST_IP  the address at which pods reach this machine
#   PERIJOVE_TEST_KUBERNETES_NODE     the node's name
#   PERIJOVE_TEST_KUBECTL             the program
#   PERIJOVE_TEST_KUBERNETES_CTL      the command that disturbs the cluster
#
# The default storage class "standard" makes directories of this machine that any account may write to.
# The node says that it has one nvidia.com/gpu. Images are those of the engine; those of the bed `docker`
# have tags, so that nobody tries to pull them. There is no DNS for services, and nothing enforces network policies.
#
#   PERIJOVE_TESTBED_KUBERNETES_PORT=16443   PERIJOVE_TESTBED_ETCD_PORT=12379   and the next one
#   PERIJOVE_TESTBED_CACHE=/var/cache/perijove-testbeds   where the programs are kept
TESTBED=kubernetes
# shellcheck source=testbeds/common.sh
. "$(dirname "$(readlink -f "$0")")/../common.sh"
machine_wide
# shellcheck source=testbeds/kubernetes/lib.sh
. "$BEDS/kubernetes/lib.sh"
only_one

[ -e /dev/kmsg ] || die "the kubelet needs /dev/kmsg"
for program in "${PROGRAMS[@]}"; do
    [ -x "$BIN/$program" ] || { "$BEDS/kubernetes/build.sh" 9>&- && break; }
done
# conntrack is for kube-proxy, socat for `kubectl port-forward`.
apt_need conntrack socat iptables iproute2 openssl
"$BEDS/docker/up.sh" 9>&-
claim

docker image inspect "$PAUSE_IMAGE" >/dev/null 2>&1 ||
    tar -C "$BIN" -c pause | docker import -c 'ENTRYPOINT ["/pause"]' -c 'USER 65535:65535' - "$PAUSE_IMAGE" >/dev/null
for setting in net/ipv4/ip_forward net/bridge/bridge-nf-call-iptables; do
    [ ! -e "/proc/sys/$setting" ] || [ "$(cat "/proc/sys/$setting")" = 1 ] || echo 1 >"/proc/sys/$setting"
done
# shellcheck source=testbeds/kubernetes/pki.sh
. "$BEDS/kubernetes/pki.sh"

# No network plug-in: pods are ordinary containers on the engine's bridge. The disk may be nearly full, and
# images are never cleared away, for they could not be had again. The node is missed after 20 s, not 40.
cat >"$STATE/kubelet.yaml" <<CONF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $address
readOnlyPort: 0
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $PKI/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $PKI/kubelet-server.crt
tlsPrivateKeyFile: $PKI/kubelet-server.key
cgroupDriver: $(docker info -f '{{.CgroupDriver}}')
failSwapOn: false
oomScoreAdj: 0
nodeStatusUpdateFrequency: 1s
nodeStatusReportFrequency: 1m
nodeLeaseDurationSeconds: 20
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1%}
volumePluginDir: $STATE/flexvolume
CONF

# What a test has paused goes on.
for name in "${DAEMONS[@]}"; do ! running "$name" || kill -s CONT "$PID"; done
start etcd
start kube-apiserver
wait_for 90 "the API" api_ready
for name in "${DAEMONS[@]}"; do start "$name"; done

k apply -f - >/dev/null <<'YAML'
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: standard
  annotations: {storageclass.kubernetes.io/is-default-class: "true"}
provisioner: kubernetes.io/host-path
reclaimPolicy: Delete
volumeBindingMode: Immediate
YAML
wait_for 90 "the node" node_ready
k uncordon "$NODE" >/dev/null
advertise_gpus 1
account_ready() { [ -n "$(k -n default get serviceaccount default -o 'jsonpath={.secrets[0].name}')" ]; }
wait_for 60 "service accounts" account_ready
for name in "${DAEMONS[@]}"; do running "$name" || die "$name ended, see $STATE/$name.log"; done

publish "PERIJOVE_TEST_KUBECONFIG=$KUBECONFIG_FILE" "PERIJOVE_TEST_KUBERNETES_HOST_IP=$address" \
    "PERIJOVE_TEST_KUBERNETES_NODE=$NODE" "PERIJOVE_TEST_KUBECTL=$BIN/kubectl" \
    "PERIJOVE_TEST_KUBERNETES_CTL=$BEDS/kubernetes/ctl"
say "up: Kubernetes $VERSION at https://$address:$PORT, node $NODE"
