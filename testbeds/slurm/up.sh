#!/bin/bash
# A small but real Slurm cluster on one machine, from Debian's packages: munged, MariaDB, slurmdbd,
# slurmctld, and a slurmd for each of several nodes, all in the foreground and bound to the address of
# the machine's name. Publishes PERIJOVE_TEST_SLURM_CONF (the configuration, for the variable
# SLURM_CONF), PERIJOVE_TEST_SLURM_NODES, PERIJOVE_TEST_SLURM_DEAD_NODE, PERIJOVE_TEST_SLURM_CTL (the
# command that disturbs the cluster) and PERIJOVE_TEST_SLURM_CGROUP (1 where the kernel enforces
# memory, 0 where Slurm looks every two seconds).
#
#   PERIJOVE_TESTBED_SLURM_PORT=16817   the first of its ports
#   PERIJOVE_TESTBED_CGROUP=auto        1 or 0 instead of looking
TESTBED=slurm
# shellcheck source=testbeds/common.sh
. "$(dirname "$(readlink -f "$0")")/../common.sh"
machine_wide
# shellcheck source=testbeds/slurm/lib.sh
. "$BEDS/slurm/lib.sh"
only_one

# Not mariadb-server: its programs alone are enough, without a database of the whole system.
apt_need munge slurmctld slurmd slurmdbd slurm-client mariadb-server-core mariadb-client-core
getent passwd alice >/dev/null || "$BEDS/users/up.sh" 9>&-
claim

cgroup=${PERIJOVE_TESTBED_CGROUP:-auto}
if [ "$cgroup" = auto ]; then
    cgroup=0
    # Slurm 22.05 needs systemd for cgroup v2.
    probe=/sys/fs/cgroup/memory/perijove_probe
    if [ -d /sys/fs/cgroup/freezer ] && mkdir "$probe" 2>/dev/null; then
        rmdir "$probe"
        cgroup=1
    fi
fi

mkdir -p "$STATE"/{etc,run,spool,dev} "$PRIVATE"/{database,save}
for number in 0 1 2; do
    [ -c "$STATE/dev/gpu$number" ] || mknod -m 666 "$STATE/dev/gpu$number" c 1 3
done

# --- munge, with its own key and socket ---------------------------------------------------------
[ -s "$PRIVATE/munge.key" ] || (umask 077 && head -c 1024 /dev/urandom >"$PRIVATE/munge.key")
if ! running munged; then
    rm -f "$MUNGE_SOCKET" "$MUNGE_SOCKET.lock"
    # --force: it objects to root, and root runs everything here.
    start_daemon munged munged --foreground --force --key-file="$PRIVATE/munge.key" \
        --socket="$MUNGE_SOCKET" --pid-file="$PRIVATE/munged.pid" \
        --seed-file="$PRIVATE/munge.seed" --log-file="$STATE/munged.log"
fi
wait_for 20 "munge" munge --socket="$MUNGE_SOCKET" -n

# --- MariaDB, for accounting --------------------------------------------------------------------
password=$(random_secret "$PRIVATE/password")
if [ ! -d "$PRIVATE/database/mysql" ]; then
    mariadb-install-db --no-defaults --user=root --datadir="$PRIVATE/database" \
        --auth-root-authentication-method=socket --skip-test-db >"$STATE/mariadb-install.log" 2>&1 ||
        { tail -n 20 "$STATE/mariadb-install.log" >&2 && die "mariadb-install-db failed"; }
fi
client=(mariadb --no-defaults --socket="$DATABASE_SOCKET")
if ! running mariadb; then
    start_daemon mariadb mariadbd --no-defaults --user=root --datadir="$PRIVATE/database" \
        --socket="$DATABASE_SOCKET" --pid-file="$PRIVATE/mariadb.pid" \
        --bind-address=127.0.0.1 --port=$((PORT + 3)) --skip-name-resolve \
        --innodb-buffer-pool-size=64M --innodb-lock-wait-timeout=900 --innodb-log-file-size=16M \
        --innodb-flush-log-at-trx-commit=0
    wait_for 60 "MariaDB" "${client[@]}" -e 'select 1'
    "${client[@]}" <<SQL
create database if not exists slurm_acct;
create user if not exists 'slurm'@'127.0.0.1' identified by '$password';
grant all on slurm_acct.* to 'slurm'@'127.0.0.1';
SQL
fi

# --- configuration ------------------------------------------------------------------------------
if [ "$cgroup" = 1 ]; then
    tracking="ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup
JobAcctGatherFrequency=task=5"
else
    tracking="ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill"
fi

# The daemons bind to what the machine's name resolves to: 127.0.1.1 on many a Debian, an address of
# its own in a container.
address=$(getent ahostsv4 "$HOST" | awk '{ print $1; exit }')
bind=NoInAddrAny,NoCtldInAddrAny
case $address in
127.0.0.1) ;;
# slurmdbd answers slurmctld where it was called from, and that is 127.0.0.1.
127.*) bind=NoInAddrAny ;;
esac
[ -n "$address" ] || die "$HOST, the name of this machine, has no address: add it to /etc/hosts"

cat >"$ETC/slurm.conf.new" <<CONF
# Written by testbeds/slurm/up.sh; changes are lost at its next run.
ClusterName=testbed
SlurmctldHost=$HOST($address)
SlurmctldPort=$PORT
# Sites use an account of its own for the controller; a client sees no difference.
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$MUNGE_SOCKET
CryptoType=crypto/munge
# Bind to that address, not to every interface.
CommunicationParameters=$bind

StateSaveLocation=$PRIVATE/save
SlurmdSpoolDir=$STATE/spool/%n
SlurmctldPidFile=$PRIVATE/slurmctld.pid
SlurmdPidFile=$PRIVATE/slurmd.%n.pid
SlurmctldDebug=info
SlurmdDebug=info

$tracking
JobAcctGatherType=jobacct_gather/linux
# As sites do: a step "extern" for each job, which accounting shows.
PrologFlags=Contain
MpiDefault=none
SwitchType=switch/none
MailProg=/bin/true
ReturnToService=2
KillWait=5
MinJobAge=60
InactiveLimit=0
Waittime=0
SlurmctldTimeout=60
SlurmdTimeout=60
MaxArraySize=1001
MaxJobCount=10000
JobRequeue=0
JobSubmitPlugins=lua

# The machine has fewer cores and less memory than the nodes claim.
SlurmdParameters=config_overrides

# --- scheduling: quick to react ---
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=3,batch_sched_delay=1,bf_interval=3,bf_continue,bf_window=4320
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
PriorityType=priority/multifactor
PriorityDecayHalfLife=7-0
PriorityCalcPeriod=1
PriorityWeightAge=100
PriorityWeightFairshare=1000
PriorityWeightQOS=10000
PriorityWeightJobSize=10
DefMemPerCPU=256
EnforcePartLimits=ALL

# --- accounting ---
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=$address
AccountingStoragePort=$((PORT + 2))
# The socket of munge for slurmdbd, which AuthInfo does not name.
AccountingStoragePass=$MUNGE_SOCKET
AccountingStorageEnforce=associations,limits,qos,safe
AccountingStorageTRES=gres/gpu,gres/gpu:test,gres/gpu:mini
AccountingStoreFlags=job_comment
JobCompType=jobcomp/none

# --- nodes: a slurmd for each, told apart by port ---
GresTypes=gpu
NodeName=cpu1 NodeHostname=$HOST NodeAddr=$address Port=$((PORT + 10)) CPUs=8 RealMemory=8000 Feature=cascade,avx2 State=UNKNOWN
NodeName=cpu2 NodeHostname=$HOST NodeAddr=$address Port=$((PORT + 11)) CPUs=8 RealMemory=8000 Feature=milan,avx2 State=UNKNOWN
NodeName=gpu1 NodeHostname=$HOST NodeAddr=$address Port=$((PORT + 12)) CPUs=8 RealMemory=8000 Gres=gpu:test:2,gpu:mini:1 Feature=gpu State=UNKNOWN
NodeName=many1 NodeHostname=$HOST NodeAddr=$address Port=$((PORT + 14)) CPUs=256 RealMemory=64000 State=UNKNOWN
# A node that no slurmd serves: what wants it waits.
NodeName=$DEAD_NODE NodeHostname=$HOST NodeAddr=$address Port=$((PORT + 13)) CPUs=8 RealMemory=8000 State=DOWN Reason="broken fan"

PartitionName=compute Nodes=cpu[1-2],$DEAD_NODE Default=YES DefaultTime=01:00:00 MaxTime=1-00:00:00 State=UP
PartitionName=short   Nodes=cpu[1-2]      DefaultTime=00:10:00 MaxTime=00:30:00 PriorityTier=10 State=UP
PartitionName=gpu     Nodes=gpu1          DefaultTime=00:30:00 MaxTime=12:00:00 State=UP
PartitionName=closed  Nodes=cpu[1-2]      MaxTime=1-00:00:00 State=DOWN
PartitionName=rrgonly Nodes=cpu[1-2]      MaxTime=7-00:00:00 AllowAccounts=rrg-bob State=UP
# Room for hundreds of idle servers at once.
PartitionName=many    Nodes=many1         DefaultTime=01:00:00 MaxTime=1-00:00:00 State=UP
CONF

cat >"$ETC/gres.conf.new" <<CONF
# The devices are copies of the null device: without a File the node reports none, and a File that
# is no device is refused. With one, Slurm sets CUDA_VISIBLE_DEVICES as well.
NodeName=gpu1 Name=gpu Type=test File=$STATE/dev/gpu[0-1]
NodeName=gpu1 Name=gpu Type=mini File=$STATE/dev/gpu2
CONF

cat >"$ETC/cgroup.conf.new" <<'CONF'
CgroupPlugin=cgroup/v1
CgroupAutomount=no
CgroupMountpoint=/sys/fs/cgroup
ConstrainRAMSpace=yes
ConstrainSwapSpace=yes
AllowedSwapSpace=0
# Neither cores nor devices: the nodes claim more than there is.
ConstrainCores=no
ConstrainDevices=no
CONF

cat >"$ETC/job_submit.lua.new" <<'CONF'
-- What a site adds: a rule of its own, told in its own words.
function slurm_job_submit(job_desc, part_list, submit_uid)
    if job_desc.partition == "gpu" and
       (job_desc.tres_per_node == nil and job_desc.tres_per_job == nil and job_desc.gres == nil) then
        slurm.log_user("Partition gpu is for GPU jobs: ask for one with --gres=gpu:1")
        return slurm.ERROR
    end
    return slurm.SUCCESS
end
function slurm_job_modify(job_desc, job_rec, part_list, modify_uid)
    return slurm.SUCCESS
end
return slurm.SUCCESS
CONF

(
    umask 077
    cat >"$ETC/slurmdbd.conf.new" <<CONF
DbdHost=$HOST
DbdAddr=$address
DbdPort=$((PORT + 2))
CommunicationParameters=NoInAddrAny
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$MUNGE_SOCKET
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$((PORT + 3))
StorageUser=slurm
StoragePass=$password
StorageLoc=slurm_acct
PidFile=$PRIVATE/slurmdbd.pid
DebugLevel=info
CommitDelay=1
CONF
)

changed=
for file in slurm.conf gres.conf cgroup.conf job_submit.lua slurmdbd.conf; do
    if cmp -s "$ETC/$file.new" "$ETC/$file"; then
        rm "$ETC/$file.new"
    else
        mv "$ETC/$file.new" "$ETC/$file"
        changed=1
    fi
done
# Commands work without SLURM_CONF too, as on a real site; nothing that was there is replaced.
mkdir -p /etc/slurm
for file in slurm.conf gres.conf cgroup.conf job_submit.lua; do
    [ -e "/etc/slurm/$file" ] || ln -sfn "$ETC/$file" "/etc/slurm/$file"
done

# --- the daemons --------------------------------------------------------------------------------
if [ -n "$changed" ]; then
    for node in "${NODES[@]}"; do stop_daemon "slurmd.$node" TERM 15; done
    stop_daemon slurmctld TERM 30
    stop_daemon slurmdbd TERM 30
fi
accounts=$(cksum <"$BEDS/slurm/accounts.sh")
known_accounts=$(cat "$STATE/accounts" 2>/dev/null) || known_accounts=none
if ! running slurmdbd || [ "$known_accounts" = none ]; then
    start_slurm slurmdbd slurmdbd -D
    wait_for 60 "slurmdbd" sacctmgr -n show cluster
fi
# Ends with 1 where it is there.
[ "$known_accounts" != none ] || sacctmgr -i add cluster testbed >/dev/null 2>&1 || true
! running slurmctld || kill -s CONT "$PID"
start_slurmctld
for node in "${NODES[@]}"; do
    mkdir -p "$STATE/spool/$node"
    start_slurm "slurmd.$node" slurmd -D -N "$node"
done
wait_for 60 "the nodes" nodes_ready

# After slurmctld, which makes gres/gpu known. Each command takes a third of a second.
if [ "$known_accounts" != "$accounts" ]; then
    # shellcheck source=testbeds/slurm/accounts.sh
    . "$BEDS/slurm/accounts.sh"
    # slurmctld hears of them a little later.
    wait_for 60 "the accounts" as alice SLURM_CONF="$SLURM_CONF" sbatch --test-only --wrap=true
    echo "$accounts" >"$STATE/accounts"
fi

publish "PERIJOVE_TEST_SLURM_CONF=$SLURM_CONF" "PERIJOVE_TEST_SLURM_NODES=${NODES[*]}" \
    "PERIJOVE_TEST_SLURM_DEAD_NODE=$DEAD_NODE" "PERIJOVE_TEST_SLURM_CGROUP=$cgroup" \
    "PERIJOVE_TEST_SLURM_CTL=$BEDS/slurm/ctl"
say "up: $(sbatch --version), nodes ${NODES[*]}, memory limits by $([ "$cgroup" = 1 ] && echo cgroup || echo looking)"
