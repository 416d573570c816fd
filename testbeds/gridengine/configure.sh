# shellcheck shell=bash disable=SC2154  # up.sh sets cgroup and spool
# Hosts, queues, consumables, the project and the quota. Sourced by up.sh whenever this file is
# another; each step may be repeated.

files=$STATE/private/configuration
rm -rf "$files" && mkdir -p "$files"
known() { qconf "$@" >/dev/null 2>&1; }
grid() {
    local said
    said=$(qconf "$@" 2>&1) || die "qconf $*: $said"
}
# put WHAT NAME: change it where it is known, else add it, as in the file of that name.
put() { if known "-s$1" "$2"; then grid "-M$1" "$files/$2"; else grid "-A$1" "$files/$2"; fi; }

known -am root || true
known -as "$HOST" || true
known -ah "$HOST" || true

prolog=none epilog=none
if [ "$cgroup" = 1 ]; then
    install -m 755 "$BEDS/gridengine/job-memory" "$STATE/job-memory"
    prolog="root@$STATE/job-memory start" epilog="root@$STATE/job-memory end"
fi

# Loads and accounting at once.
qconf -sconf global | grep -v '^#global' | sed -e "s|^execd_spool_dir .*|execd_spool_dir $spool/execd|" \
    -e 's|^load_report_time .*|load_report_time 00:00:05|' \
    -e 's|^max_unheard .*|max_unheard 00:00:20|' \
    -e 's|^mailer .*|mailer /bin/true|' \
    -e "s|^prolog .*|prolog $prolog|" -e "s|^epilog .*|epilog $epilog|" \
    -e 's|^loglevel .*|loglevel log_info|' \
    -e 's|^enforce_user .*|enforce_user auto|' \
    -e 's|^execd_params .*|execd_params ENABLE_ADDGRP_KILL=true,INHERIT_ENV=false,H_MEMORYLOCKED=infinity,PDC_INTERVAL=00:00:02|' \
    -e 's|^reporting_params .*|reporting_params accounting=true reporting=false flush_time=00:00:01 accounting_flush_time=00:00:00 joblog=false sharelog=00:00:00|' \
    -e 's|^gid_range .*|gid_range 65400-65500|' >"$files/global"
grid -Mconf "$files/global"

# Schedule every two seconds and after each submission and end, and say why a job waits.
qconf -ssconf | sed -e 's|^schedule_interval .*|schedule_interval 0:0:2|' \
    -e 's|^flush_submit_sec .*|flush_submit_sec 1|' \
    -e 's|^flush_finish_sec .*|flush_finish_sec 1|' \
    -e 's|^schedd_job_info .*|schedd_job_info true|' \
    -e 's|^job_load_adjustments .*|job_load_adjustments NONE|' \
    -e 's|^load_adjustment_decay_time .*|load_adjustment_decay_time 0:0:0|' >"$files/scheduler"
grid -Msconf "$files/scheduler"

# Memory, for each slot, and GPUs are counted. What wants many.q must say so.
qconf -sc | grep -vE '^(#|(rmem|gpu|many|h_vmem|s_vmem) )' >"$files/complexes"
cat >>"$files/complexes" <<'CONF'
rmem    rmem    MEMORY  <=      YES     YES     1G      0
gpu     gpu     INT     <=      YES     YES     0       0
many    many    BOOL    ==      FORCED  NO      FALSE   0
h_vmem  h_vmem  MEMORY  <=      YES     NO      0       0
s_vmem  s_vmem  MEMORY  <=      YES     NO      0       0
CONF
grid -Mc "$files/complexes"

# Slots for hundreds of idle servers in many.q; the other queues have few.
cat >"$files/$HOST" <<CONF
hostname              $HOST
load_scaling          NONE
complex_values        slots=318,rmem=16G,gpu=2
user_lists            NONE
xuser_lists           NONE
projects              NONE
xprojects             NONE
usage_scaling         NONE
report_variables      NONE
CONF
put e "$HOST"
printf 'group_name @allhosts\nhostlist %s\n' "$HOST" >"$files/@allhosts"
put hgrp @allhosts

for environment in smp make; do
    sed 's|^slots .*|slots 999|' "/usr/share/gridengine/util/resources/pe/$environment" |
        grep -v '^#' >"$files/$environment"
    put p "$environment"
done

# A project that only alice may use, with a queue of its own.
printf 'name allowed_rse\ntype ACL\nfshare 0\noticket 0\nentries alice\n' >"$files/allowed_rse"
put u allowed_rse
printf 'name rse\noticket 0\nfshare 0\nacl allowed_rse\nxacl NONE\n' >"$files/rse"
put prj rse

queue() { # NAME SLOTS LONGEST PROJECTS ORDER COMPLEX_VALUES
    qconf -sq | sed -e "s|^qname .*|qname $1|" -e 's|^hostlist .*|hostlist @allhosts|' \
        -e "s|^slots .*|slots $2|" -e "s|^h_rt .*|h_rt $3|" -e "s|^projects .*|projects $4|" \
        -e "s|^seq_no .*|seq_no $5|" -e 's|^load_thresholds .*|load_thresholds NONE|' \
        -e 's|^pe_list .*|pe_list make smp|' -e 's|^shell .*|shell /bin/bash|' \
        -e 's|^shell_start_mode .*|shell_start_mode unix_behavior|' -e 's|^notify .*|notify 00:00:05|' \
        -e "s|^complex_values .*|complex_values $6|" >"$files/$1"
    put q "$1"
}
queue all.q 12 96:00:00 NONE 0 NONE
queue short.q 2 0:30:0 NONE 1 NONE
queue rse.q 4 8:00:00 rse 2 NONE
queue many.q 300 24:00:00 NONE 3 many=TRUE

# Bob may use two slots in all.
cat >"$files/bob_two_slots" <<'CONF'
{
   name         bob_two_slots
   description  "bob may use two slots"
   enabled      TRUE
   limit        users bob to slots=2
}
CONF
if known -srqs bob_two_slots; then grid -Mrqs "$files/bob_two_slots" bob_two_slots; else grid -Arqs "$files/bob_two_slots"; fi
