# shellcheck shell=bash
# Accounts, users, QOS and their limits. Sourced by up.sh whenever this file is another: it adds what
# is missing and sets the limits again, and takes nothing away.

# sacctmgr ends with 1 where there is nothing to do.
account() {
    local said
    said=$(sacctmgr -i "$@" 2>&1) && return 0
    case $said in
    *"xist"* | *"othing new added"* | *"othing modified"*) ;;
    *) die "sacctmgr $*: $said" ;;
    esac
}

account add qos interactive,onejob,tiny,strict,gpuone
account modify qos interactive set MaxSubmitJobsPerUser=3 MaxWall=08:00:00 Priority=100
account modify qos onejob set MaxJobsPerUser=1
account modify qos tiny set MaxTRESPerUser=cpu=2
account modify qos strict set MaxTRESPerJob=cpu=2 MaxWall=00:10:00 Flags=DenyOnLimit
account modify qos gpuone set GrpTRES=gres/gpu=1

for person in alice bob carol; do
    account add account "def-$person" Description="default of $person" Organization=test Fairshare=10
    account add user "$person" Account="def-$person" DefaultAccount="def-$person"
done
account add account rrg-bob Description="allocation of bob" Organization=test Fairshare=1000
account add account rrg-spent Description="a used-up allocation" Organization=test
account add user alice,bob Account=rrg-bob
account add user alice Account=rrg-spent
account modify user alice,bob set QOS=normal,interactive,onejob,tiny,strict,gpuone DefaultQOS=normal
account modify user carol set QOS=normal DefaultQOS=normal
# Carol's group may use two cores at once; she may have five jobs, three of them running.
account modify account def-carol set GrpTRES=cpu=2
account modify user carol where account=def-carol set MaxJobs=3 MaxSubmitJobs=5
# Bob may run one job at a time in his allocation.
account modify user bob where account=rrg-bob set MaxJobs=1
# One core minute is left.
account modify account rrg-spent set GrpTRESMins=cpu=1
