#!/bin/bash
# A Docker engine and the images that the tests start. An engine that answers already is used as it
# is, and left alone at the end; else Debian's is started, in the foreground and without systemd.
# Publishes
#
#   PERIJOVE_TEST_DOCKER_HOST        unix://… of the engine
#   PERIJOVE_TEST_DOCKER_GATEWAY     the address at which containers reach this machine
#   PERIJOVE_TEST_IMAGE_NULL         the contract suite's server, /srv/program.py MODE
#   PERIJOVE_TEST_IMAGE_SINGLEUSER   the stock jupyterhub-singleuser 5
#   PERIJOVE_TEST_DOCKER_CTL         the command that disturbs the engine; not for one we did not start
#
# and of another engine, which has the contract suite's image only and whose containers reach nothing but
# this machine, PERIJOVE_TEST_DOCKER_SECOND_HOST and PERIJOVE_TEST_DOCKER_SECOND_GATEWAY.
#
#   PERIJOVE_TESTBED_DOCKER_SOCKET=/var/run/docker.sock
TESTBED=docker
# shellcheck source=testbeds/common.sh
. "$(dirname "$(readlink -f "$0")")/../common.sh"
machine_wide
# shellcheck source=testbeds/docker/lib.sh
. "$BEDS/docker/lib.sh"
only_one
cd "$ROOT"

if ! command -v docker || ! command -v dockerd; then apt_need docker.io; fi >/dev/null
# The tests of deploy/compose want docker-compose.
apt_need docker-compose iptables iproute2 debootstrap ca-certificates
claim

if running dockerd; then
    kill -s CONT "$PID"
    wait_for 60 "the engine" engine_answers
elif ! engine_answers >/dev/null 2>&1; then
    start_engine
fi
# shellcheck source=testbeds/docker/images.sh
. "$BEDS/docker/images.sh"

# What earlier runs left that were interrupted; networks are few.
docker network prune --force --filter label=perijove.org/installation --filter until=2h >/dev/null

start_second
wanted=$(docker image inspect -f '{{.Id}}' "$NULL_IMAGE")
[ "$(second image inspect -f '{{.Id}}' "$NULL_IMAGE" 2>/dev/null)" = "$wanted" ] ||
    docker save "$BASE_IMAGE" "$NULL_IMAGE" | second load --quiet >/dev/null

facts=("PERIJOVE_TEST_DOCKER_HOST=$DOCKER_HOST" "PERIJOVE_TEST_DOCKER_GATEWAY=$(gateway)"
    "PERIJOVE_TEST_DOCKER_SECOND_HOST=unix://$SECOND_SOCKET" "PERIJOVE_TEST_DOCKER_SECOND_GATEWAY=$SECOND_ADDRESS"
    "PERIJOVE_TEST_IMAGE_NULL=$NULL_IMAGE" "PERIJOVE_TEST_IMAGE_SINGLEUSER=$SINGLEUSER_IMAGE")
! running dockerd || facts+=("PERIJOVE_TEST_DOCKER_CTL=$BEDS/docker/ctl")
publish "${facts[@]}"
say "up: $(docker version -f '{{.Server.Version}}') on $DOCKER_HOST and unix://$SECOND_SOCKET"
