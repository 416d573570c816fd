#!/bin/bash
# Stops the cluster that up.sh started and clears away what it held and leaves: containers, mounts,
# volumes, rules of iptables. The next is a new one. The engine goes on, and what was built stays.
#   --purge   also removes certificates and logs
TESTBED=kubernetes
# shellcheck source=testbeds/common.sh
. "$(dirname "$(readlink -f "$0")")/../common.sh"
is_root || exit 0
[ -d "/var/lib/perijove-testbeds/$TESTBED" ] || exit 0
machine_wide
# shellcheck source=testbeds/kubernetes/lib.sh
. "$BEDS/kubernetes/lib.sh"
only_one

retract
disclaim
[ -s "$KUBECONFIG_FILE" ] || exit 0

# The volumes are directories of this machine; the API knows which.
volumes=()
for name in "${DAEMONS[@]}"; do ! running "$name" || kill -s CONT "$PID"; done
if running kube-apiserver; then
    mapfile -t volumes < <(k get pv -o 'jsonpath={range .items[*]}{.spec.hostPath.path}{"\n"}{end}' |
        grep -E '^/tmp/hostpath_pv/[0-9a-f-]+$')
fi

# The last to start is the first to stop, so that nobody starts anything anew.
for ((i = ${#DAEMONS[@]} - 1; i >= 0; i--)); do stop_daemon "${DAEMONS[i]}" TERM 5; done

if docker version >/dev/null 2>&1; then
    # The kubelet's own label.
    mapfile -t left < <(docker ps -aq --filter label=io.kubernetes.pod.uid)
    [ ${#left[@]} = 0 ] || docker rm --force --volumes "${left[@]}" >/dev/null
fi
unmount_state
for group in /sys/fs/cgroup/*/kubepods /sys/fs/cgroup/kubepods; do
    [ ! -d "$group" ] || find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
done
rm -rf /var/log/pods/*_*_*
[ ! -d /var/log/containers ] || find /var/log/containers -xtype l -delete

# Chains of kube-proxy, then those of the kubelet: first the rules that lead to them.
[ ! -x "$BIN/kube-proxy" ] || "$BIN/kube-proxy" --cleanup >/dev/null 2>&1 || true
for table in filter nat mangle; do
    while read -r -a rule; do
        iptables -w -t "$table" -D "${rule[@]}" 2>/dev/null || true
    done < <(iptables -w -t "$table" -S 2>/dev/null | sed -n 's/^-A \([^ ]* .*-j KUBE-.*\)/\1/p' | tr -d '"')
    for act in -F -X; do
        while read -r chain; do
            iptables -w -t "$table" "$act" "$chain" 2>/dev/null || true
        done < <(iptables -w -t "$table" -S 2>/dev/null | sed -n 's/^-N \(KUBE-[^ ]*\).*/\1/p')
    done
done

for volume in "${volumes[@]}"; do rm -rf --one-file-system "$volume"; done
rm -rf --one-file-system "$PKI/etcd" "$STATE/kubelet" "$STATE/dockershim"
if [ "${1:-}" = --purge ]; then
    rm -rf --one-file-system "$STATE"
    say "purged"
fi
