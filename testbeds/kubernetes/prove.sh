#!/bin/bash
# End to end: a pod with a volume becomes ready, is asked and asks this machine; roles and limits hold; the
# pod goes, and its volume with the claim.
TESTBED=kubernetes
# shellcheck source=testbeds/common.sh
. "$(dirname "$(readlink -f "$0")")/../common.sh"
machine_wide
# shellcheck source=testbeds/kubernetes/lib.sh
. "$BEDS/kubernetes/lib.sh"

space=prove-$$
folder=$(mktemp -d)
server=
clean_up() {
    [ -z "$server" ] || kill "$server"
    k delete namespace "$space" --wait=false >/dev/null 2>&1 || true
    rm -rf "$folder"
}
trap clean_up EXIT
kn() { k --namespace "$space" "$@"; }
inside() { kn exec server -- python3 -c "$1"; }

k create namespace "$space" >/dev/null
account_ready() { [ -n "$(kn get serviceaccount default -o 'jsonpath={.secrets[0].name}')" ]; }
wait_for 30 "the service account" account_ready
kn apply -f - >/dev/null <<'YAML'
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: claim}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec:
  securityContext: {runAsUser: 1000, runAsGroup: 1000}
  terminationGracePeriodSeconds: 1
  containers:
  - name: server
    image: perijove-test/null:1
    workingDir: /data
    command: [sh, -c, "echo kept >note && exec python3 -m http.server 8888"]
    resources: {requests: {cpu: 50m, memory: 32Mi, nvidia.com/gpu: 1}, limits: {cpu: 1, memory: 64Mi, nvidia.com/gpu: 1}}
    readinessProbe: {httpGet: {path: /note, port: 8888}, periodSeconds: 1}
    volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: claim}}]
---
apiVersion: v1
kind: Service
metadata: {name: server}
spec: {selector: {app: server}, ports: [{port: 80, targetPort: 8888}]}
YAML
ready() { [ "$(kn get pod server -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')" = True ]; }
wait_for 60 "the pod" ready
pod=$(kn get pod server -o 'jsonpath={.status.podIP}')
service=$(kn get service server -o 'jsonpath={.spec.clusterIP}')
[ "$(ask "http://$pod:8888/note")" = kept ] || die "the pod does not answer"
wait_for 10 "the service" ask "http://$service/note"
say "this machine reaches the pod at $pod and the service at $service"

echo hub >"$folder/answer"
"$("$ROOT/scripts/find-python")" -u -m http.server 0 --bind "$(host_ip)" -d "$folder" >"$folder/log" 2>&1 &
server=$!
port_known() { grep -q ' port ' "$folder/log"; }
wait_for 10 "a port" port_known
port=$(sed -n 's/.* port \([0-9]*\) .*/\1/p' "$folder/log")
[ "$(inside "import urllib.request as u; print(u.urlopen('http://$(host_ip):$port/answer', timeout=5).read().decode())")" = hub ] ||
    die "the pod cannot reach this machine"
say "the pod reaches this machine at $(host_ip)"

[ "$(kn auth can-i list pods --as "system:serviceaccount:$space:default")" = no ] || die "any account may list pods"
kn create role reader --verb=list --resource=pods >/dev/null
kn create rolebinding reader --role=reader --serviceaccount="$space:default" >/dev/null
may_list() { [ "$(kn auth can-i list pods --as "system:serviceaccount:$space:default")" = yes ]; }
wait_for 10 "the role" may_list
say "roles hold"
! inside "b = bytearray(200 << 20)" >/dev/null 2>&1 || die "a memory limit is not enforced"
say "the memory limit holds"

directory=$(k get pv -o "jsonpath={.items[?(@.spec.claimRef.namespace==\"$space\")].spec.hostPath.path}")
kn delete pod server >/dev/null
kn delete pvc claim >/dev/null
removed() { [ ! -e "$directory" ]; }
wait_for 20 "the volume to go" removed
say "gone, and the volume with the claim"
