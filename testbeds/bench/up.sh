#!/bin/bash
# What the benchmarks compare with, from the registries and in environments of their own:
# .venvs/bench (JupyterHub) and .venvs/chp (configurable-http-proxy). Publishes
# PERIJOVE_TEST_CHP, the program of that proxy. The load comes from Debian's wrk, nginx and curl.
TESTBED=bench
# shellcheck source=testbeds/common.sh
. "$(dirname "$(readlink -f "$0")")/../common.sh"
only_one
cd "$ROOT"

if ! command -v wrk || ! command -v curl || ! PATH=$PATH:/usr/sbin command -v nginx; then
    apt_need wrk curl nginx-light
fi >/dev/null

if [ ! .venvs/bench/.made -nt testbeds/bench/constraints.txt ]; then
    scripts/venv .venvs/bench testbeds/bench/constraints.txt --requirement testbeds/bench/requirements.in 9>&-
    touch .venvs/bench/.made
fi
npm_need "$ROOT/.venvs/chp" configurable-http-proxy@5.3.0
chp=$ROOT/.venvs/chp/node_modules/.bin/configurable-http-proxy
publish "PERIJOVE_TEST_CHP=$chp"
say "up: jupyterhub $(.venvs/bench/bin/jupyterhub --version), configurable-http-proxy $("$chp" --version)"
