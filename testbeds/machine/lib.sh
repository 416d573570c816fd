# shellcheck shell=bash disable=SC2034,SC2153  # variables of common.sh, variables for those who source this
# What the scripts of the bed `machine` share. Sourced after common.sh, never run.

CACHE=/var/cache/perijove-testbeds/machine
PEOPLE=(alice bob)
CONNECTION=$STATE/private/connection

# inside COMMAND...: as root in the machine.
inside() { ssh -F none -S "$CONNECTION" -o BatchMode=yes machine -- "$@"; }

is_reached() { inside true 2>/dev/null; }
