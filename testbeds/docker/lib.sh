# shellcheck shell=bash disable=SC2034,SC2153  # variables of common.sh, variables for those who source this
# What the scripts of the bed `docker` share. Sourced after common.sh, never run.

DATA=$STATE/data
SOCKET=${PERIJOVE_TESTBED_DOCKER_SOCKET:-/var/run/docker.sock}
SECOND_SOCKET=$STATE/second.socket
SECOND_BRIDGE=perijove-second
SECOND_ADDRESS=172.31.254.1
export DOCKER_HOST=unix://$SOCKET
# The client refuses BuildKit where the plug-in for it is missing, and Debian 12 has none.
export DOCKER_BUILDKIT=0
ROOT_IMAGE=perijove-test/root:12
BASE_IMAGE=perijove-test/python:3.11
NULL_IMAGE=perijove-test/null:1
SINGLEUSER_IMAGE=perijove-test/singleuser:5

engine_answers() { timeout 5 docker version; }
second() { docker --host "unix://$SECOND_SOCKET" "$@"; }

# start_engine: what runs in containers goes on while it is away, as on sites that update the engine
# under their people ("live-restore").
start_engine() {
    ! running dockerd || return 0
    live_restore true
    clear_away dockerd run
    # There may be no systemd to ask for control groups.
    start_daemon dockerd dockerd --config-file "$STATE/daemon.json" --host "$DOCKER_HOST" \
        --data-root "$DATA" --exec-root "$STATE/run" --pidfile "$STATE/dockerd.own.pid" \
        --exec-opt native.cgroupdriver=cgroupfs --mtu "$(link_mtu)"
    wait_for 60 "the engine" engine_answers
}

# start_second: another engine with containers of its own, which reach this machine and nothing else.
start_second() {
    ! running second || return 0
    if ! ip link show "$SECOND_BRIDGE" >/dev/null 2>&1; then
        ip link add "$SECOND_BRIDGE" type bridge
        ip address add "$SECOND_ADDRESS/24" dev "$SECOND_BRIDGE"
        ip link set "$SECOND_BRIDGE" up
    fi
    printf '{}\n' >"$STATE/second.json"
    clear_away second second-run
    # Not iptables: they belong to the first engine, the rules of one would undo the other's.
    start_daemon second dockerd --config-file "$STATE/second.json" --host "unix://$SECOND_SOCKET" \
        --data-root "$STATE/second-data" --exec-root "$STATE/second-run" \
        --pidfile "$STATE/second.own.pid" --exec-opt native.cgroupdriver=cgroupfs \
        --bridge "$SECOND_BRIDGE" --iptables=false --mtu "$(link_mtu)"
    wait_for 60 "the second engine" second version
}

# clear_away NAME DIRECTORY: what an engine that was killed left. Its containerd ends with it; but while
# the system has not cleared these processes away, a new engine takes them for living ones.
clear_away() {
    local helper=$STATE/$2/containerd/containerd.pid
    over() { [ ! -s "$helper" ] || ! start_time "$(cat "$helper")"; }
    wait_for 20 "containerd to end" over
    rm -f "$STATE/$1.own.pid" "$helper"
}

# stop_engine [ending]: with `ending`, what runs in containers ends as well.
stop_engine() {
    running dockerd || return 0
    kill -s CONT "$PID"
    if [ "${1:-}" = ending ]; then
        live_restore false
        kill -s HUP "$PID"
        wait_for 20 "the engine to read its settings" live_restore_is false
    fi
    stop_daemon dockerd TERM 60
}

live_restore() { printf '{"live-restore": %s}\n' "$1" >"$STATE/daemon.json"; }
live_restore_is() { [ "$(timeout 5 docker info -f '{{.LiveRestoreEnabled}}')" = "$1" ]; }

# link_mtu: a bridge must not promise larger packets than the way out takes.
link_mtu() {
    local device mtu=1500
    device=$(awk '$2 == "00000000" { print $1; exit }' /proc/net/route)
    [ -z "$device" ] || mtu=$(cat "/sys/class/net/$device/mtu")
    echo "$((mtu < 1500 ? mtu : 1500))"
}

# gateway: the address at which containers reach this machine.
gateway() { ip -4 -o address show docker0 | awk '{ sub("/.*", "", $4); print $4; exit }'; }

# remove_containers DOCKER: those of our images, and the volumes without a name that they had.
remove_containers() {
    local left=()
    mapfile -t left < <("$1" ps -aq --filter "ancestor=$BASE_IMAGE")
    [ ${#left[@]} = 0 ] || "$1" rm --force --volumes "${left[@]}" >/dev/null
    [ ${#left[@]} = 0 ] || say "removed ${#left[@]} containers"
}

# has_recipe IMAGE RECIPE
has_recipe() { [ "$(docker image inspect -f '{{index .Config.Labels "perijove.test.recipe"}}' "$1" 2>/dev/null)" = "$2" ]; }
