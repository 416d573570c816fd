#!/bin/bash
# One environment for each release of the stock single-user server that Perijove serves:
# .venvs/singleuser-4.1, -5 and -6, each with its own pins. Name some to make only those.
TESTBED=singleuser
# shellcheck source=testbeds/common.sh
. "$(dirname "$(readlink -f "$0")")/../common.sh"
only_one
cd "$ROOT"

[ $# -gt 0 ] || set -- 4.1 5 6
for version in "$@"; do
    environment=.venvs/singleuser-$version
    requirements=testbeds/singleuser/requirements-$version.in
    constraints=testbeds/singleuser/constraints-$version.txt
    [ -e "$requirements" ] || die "no such release here: $version"
    if [ ! "$environment/.made" -nt "$constraints" ] || [ ! "$environment/.made" -nt "$requirements" ]; then
        scripts/venv "$environment" "$constraints" --requirement "$requirements" 9>&-
        touch "$environment/.made"
    fi
    "$environment/bin/python" -c 'import sys' 2>/dev/null || die "$environment is broken, remove it"
    say "$environment: jupyterhub $("$environment/bin/jupyterhub-singleuser" --version)"
done
