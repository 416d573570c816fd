#!/bin/bash
# A real Grid Engine (Son of Grid Engine 8.1.9) from Debian's packages: sge_qmaster and sge_execd
# with queues, a parallel environment, consumables, a project and a quota. Publishes
# PERIJOVE_TEST_SGE_ROOT, _CELL, _QMASTER_PORT and _EXECD_PORT (the settings that qsub and the like
# want under the same names without PERIJOVE_TEST_), PERIJOVE_TEST_SGE_HOST,
# PERIJOVE_TEST_SGE_CTL (the command that disturbs it) and PERIJOVE_TEST_SGE_CGROUP (1 where a
# prolog enforces memory by control group; Grid Engine itself only counts it).
#
# Grid Engine trusts hosts, listens on every interface, and lets root on a known host do anything:
# only for a machine that nobody else reaches.
#
#   PERIJOVE_TESTBED_GRIDENGINE_PORT=16844   of the qmaster; the next one is execd's
#   PERIJOVE_TESTBED_CGROUP=auto             1 or 0 instead of looking
TESTBED=gridengine
# shellcheck source=testbeds/common.sh
. "$(dirname "$(readlink -f "$0")")/../common.sh"
machine_wide
# shellcheck source=testbeds/gridengine/lib.sh
. "$BEDS/gridengine/lib.sh"
only_one

# The packages shall set up no cell of their own. A mail program is a hard dependency: this is the
# smallest, and it delivers nothing.
if ! installed gridengine-master; then
    apt_need debconf
    for package in common master exec client; do
        echo "gridengine-$package shared/gridengineconfig boolean false"
    done | debconf-set-selections
fi
apt_need msmtp-mta bsd-mailx gridengine-master gridengine-exec gridengine-client
getent passwd alice >/dev/null || "$BEDS/users/up.sh" 9>&-
claim

cgroup=${PERIJOVE_TESTBED_CGROUP:-auto}
if [ "$cgroup" = auto ]; then
    probe=/sys/fs/cgroup/memory/perijove_probe
    if mkdir "$probe" 2>/dev/null; then
        rmdir "$probe"
        cgroup=1
    else
        cgroup=0
    fi
fi

# --- the cell, where everyone can read it -------------------------------------------------------
spool=$STATE/spool
if [ ! -e "$spool/db/sge" ]; then
    mkdir -p "$COMMON" "$spool"/{qmaster/job_scripts,execd,db}
    ln -sfn /usr/share/gridengine/util "$SGE_ROOT/util"
    architecture=$("$SGE_ROOT/util/arch")
    for folder in bin lib utilbin; do
        mkdir -p "$SGE_ROOT/$folder"
        ln -sfn /usr/lib/gridengine "$SGE_ROOT/$folder/$architecture"
    done
    cat >"$COMMON/bootstrap" <<CONF
admin_user              sgeadmin
default_domain          none
ignore_fqdn             true
spooling_method         berkeleydb
spooling_lib            libspoolb
spooling_params         $spool/db
binary_path             /usr/sbin
qmaster_spool_dir       $spool/qmaster
security_mode           none
listener_threads        2
worker_threads          2
scheduler_threads       1
CONF
    echo "$HOST" >"$COMMON/act_qmaster"
    echo testbed >"$COMMON/cluster_name"
    # Where the host's name is 127.0.0.1, connections come from "localhost": both are one.
    echo "$HOST localhost" >"$COMMON/host_aliases"
    chown -R sgeadmin: "$SGE_ROOT/$SGE_CELL" "$spool"
    setpriv --reuid sgeadmin --regid sgeadmin --clear-groups \
        /usr/share/gridengine/scripts/init_cluster "$SGE_ROOT" "$SGE_CELL" "$spool/db" sgeadmin \
        >"$STATE/init.log" 2>&1 || { cat "$STATE/init.log" >&2 && die "init_cluster failed"; }
fi
printf 'export %s\n' "${SGE[@]}" >"$COMMON/settings.sh"

# Debian's wrappers read this file, so that qsub works without settings too, as on a real site.
defaults=/etc/default/gridengine
if ! grep -q 'written by a test bed' "$defaults" 2>/dev/null; then
    [ ! -e "$defaults" ] || cp -p "$defaults" "$STATE/defaults"
    cat >"$defaults" <<CONF
# written by a test bed, whose down.sh puts the original back
SGE_ROOT=$SGE_ROOT SGE_CELL=$SGE_CELL
: \${SGE_QMASTER_PORT:=$SGE_QMASTER_PORT} \${SGE_EXECD_PORT:=$SGE_EXECD_PORT}
export SGE_QMASTER_PORT SGE_EXECD_PORT
CONF
fi

# --- the daemons and what they serve ------------------------------------------------------------
! running qmaster || kill -s CONT "$PID"
start_qmaster
configuration=$(cat "$BEDS/gridengine/configure.sh" "$BEDS/gridengine/job-memory" - <<<"$cgroup" | cksum)
if [ "$(cat "$STATE/configuration" 2>/dev/null)" != "$configuration" ]; then
    # shellcheck source=testbeds/gridengine/configure.sh
    . "$BEDS/gridengine/configure.sh"
    echo "$configuration" >"$STATE/configuration"
fi
start_sge execd /usr/lib/gridengine/sge_execd
wait_for 60 "sge_execd" host_ready

publish "${SGE[@]/#/PERIJOVE_TEST_}" "PERIJOVE_TEST_SGE_HOST=$HOST" \
    "PERIJOVE_TEST_SGE_CGROUP=$cgroup" "PERIJOVE_TEST_SGE_CTL=$BEDS/gridengine/ctl"
say "up: Grid Engine 8.1.9, queues $(qconf -sql | paste -sd' '), memory limits $([ "$cgroup" = 1 ] && echo by cgroup || echo none)"
