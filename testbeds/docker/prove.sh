#!/bin/bash
# End to end: a container serves HTTP and is asked; it asks this machine; the engine is killed and comes
# back while the container goes on; it is removed.
TESTBED=docker
# shellcheck source=testbeds/common.sh
. "$(dirname "$(readlink -f "$0")")/../common.sh"
machine_wide
# shellcheck source=testbeds/docker/lib.sh
. "$BEDS/docker/lib.sh"

container=$(docker run --detach --memory 128m "$NULL_IMAGE")
trap 'docker rm --force "$container" >/dev/null 2>&1' EXIT
address=$(docker inspect -f '{{.NetworkSettings.IPAddress}}' "$container")
wait_for 20 "the server in the container" ask "http://$address:8888/"
say "it answers at $address, as $(docker exec "$container" id)"

folder=$(mktemp -d)
echo hub >"$folder/answer"
"$("$ROOT/scripts/find-python")" -u -m http.server 0 --bind "$(gateway)" -d "$folder" >"$folder/log" 2>&1 &
server=$!
trap 'docker rm --force "$container" >/dev/null 2>&1; kill "$server"; rm -rf "$folder"' EXIT
port_known() { port=$(sed -n 's/.* port \([0-9]*\) .*/\1/p' "$folder/log") && [ -n "$port" ]; }
wait_for 10 "a port" port_known
port_known
inside=$(docker exec "$container" python3 -c \
    "import urllib.request as u; print(u.urlopen('http://$(gateway):$port/answer', timeout=5).read().decode())")
[ "$inside" = hub ] || die "the container cannot reach this machine"
say "it reaches this machine at $(gateway)"

if running dockerd; then
    "$BEDS/docker/ctl" kill
    ask "http://$address:8888/" >/dev/null || die "the container ended with the engine"
    "$BEDS/docker/ctl" start
    [ "$(docker inspect -f '{{.State.Status}}' "$container")" = running ] || die "the engine lost the container"
    ask "http://$address:8888/" >/dev/null || die "the container is not reached any more"
    say "it outlives the engine"
fi
docker rm --force "$container" >/dev/null
say "gone"
