#!/bin/bash
# The programs that the set-up and the checks call, where one of them is missing.
TESTBED=tools
# shellcheck source=testbeds/common.sh
. "$(dirname "$(readlink -f "$0")")/../common.sh"
only_one

missing=()
want() { command -v "$1" >/dev/null || missing+=("${@:2}"); }
want make make
want gcc gcc libc6-dev
want git git
want npm npm
want shellcheck shellcheck
want systemd-analyze systemd
"$ROOT/scripts/find-python" >/dev/null 2>&1 || missing+=(python3 python3-dev python3-venv)
[ ${#missing[@]} = 0 ] || apt_need "${missing[@]}"
say "up"
