# shellcheck shell=bash disable=SC2034  # for those who source this
# What the scripts of the bed `gridengine` share. Sourced after common.sh, never run.

HOST=$(hostname -s)
export SGE_ROOT=$STATE/root SGE_CELL=default
export SGE_QMASTER_PORT=${PERIJOVE_TESTBED_GRIDENGINE_PORT:-16844}
export SGE_EXECD_PORT=$((SGE_QMASTER_PORT + 1))
# Else qconf breaks long lines with a backslash.
export SGE_SINGLE_LINE=1
COMMON=$SGE_ROOT/$SGE_CELL/common
SGE=(SGE_ROOT="$SGE_ROOT" SGE_CELL="$SGE_CELL" SGE_QMASTER_PORT="$SGE_QMASTER_PORT" SGE_EXECD_PORT="$SGE_EXECD_PORT")

# Foreground daemons (SGE_ND) with nothing in their environment that jobs would inherit.
start_sge() {
    local name=$1
    shift
    running "$name" || start_daemon "$name" env "${SGE[@]}" SGE_ND=1 "$@"
}
start_qmaster() {
    # On standard output it counts its scheduling runs, for ever; its log is in its spool.
    start_sge qmaster sh -c 'exec /usr/lib/gridengine/sge_qmaster >/dev/null'
    wait_for 60 "sge_qmaster" timeout 5 qconf -sconf
}
# No instance of a queue is in the state u: the node was heard of lately.
host_ready() { ! qstat -f -u nobody | awk '$6 ~ /u/ { lost = 1 } END { exit !lost }'; }
