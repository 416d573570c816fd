# shellcheck shell=bash disable=SC2034,SC2153  # variables of common.sh, variables for those who source this
# What the scripts of the bed `slurm` share. Sourced after common.sh, never run.

ETC=$STATE/etc
PRIVATE=$STATE/private
MUNGE_SOCKET=$STATE/run/munge.socket
DATABASE_SOCKET=$PRIVATE/mariadb.socket
HOST=$(hostname -s)
# A run of ports: +0 slurmctld, +2 slurmdbd, +3 MariaDB, +10 and on the nodes. Below the range from
# which the system gives ports to others.
PORT=${PERIJOVE_TESTBED_SLURM_PORT:-16817}
NODES=(cpu1 cpu2 gpu1 many1)
DEAD_NODE=off1
export SLURM_CONF=$ETC/slurm.conf

# A foreground daemon that knows our configuration.
start_slurm() {
    local name=$1
    shift
    running "$name" || start_daemon "$name" env SLURM_CONF="$SLURM_CONF" "$@"
}
start_slurmctld() {
    start_slurm slurmctld slurmctld -D
    wait_for 60 "slurmctld" controller_answers
}
controller_answers() { timeout 5 scontrol ping | grep -q 'is UP'; }

# A controller that started has yet to ask each node.
nodes_known() { ! sinfo -h -N -o %t | grep -q unk; }

# Ready: each node registered, and none left drained by an earlier run.
nodes_ready() {
    local states node state
    states=$(sinfo -h -N -n "$(IFS=, && echo "${NODES[*]}")" -o '%N %t' | sort -u)
    [ "$(grep -cE ' (idle|mix|alloc|comp)$' <<<"$states")" != ${#NODES[@]} ] || return 0
    while read -r node state; do
        case $state in
        drain | drng | down* | inval) scontrol update nodename="$node" state=resume || true ;;
        esac
    done <<<"$states"
    echo "$states"
    return 1
}
