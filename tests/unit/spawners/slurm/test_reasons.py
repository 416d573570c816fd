"""Why Slurm makes a job wait, in the words of the catalogue."""

import pytest

from perijove.domain.reasons import WAITING
from perijove.spawners.slurm.reasons import HELD, code_of, read_reason
from tests.unit.spawners.slurm.corpus import of_every_state, said

_KINDS = ("BB", "Billing", "Cpu", "Energy", "GRES", "License", "Mem", "Node", "Unknown")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("Priority", "priority"),
        ("Resources", "resources"),
        ("None", "just-submitted"),
        ("(null)", "just-submitted"),
        ("", "just-submitted"),
        ("BeginTime", "begin-time"),
        ("QOSMaxJobsPerUserLimit", "max-jobs-user"),
        ("AssocMaxJobsLimit", "max-jobs-user"),
        ("AssocGrpJobsLimit", "max-jobs-account"),
        ("MaxJobsPerAccount", "max-jobs-account"),
        ("QOSMaxSubmitJobPerUserLimit", "max-submit"),
        ("AssocMaxSubmitJobLimit", "max-submit"),
        ("QOSGrpSubmitJobsLimit", "max-submit"),
        ("MaxSubmitJobsPerAccount", "max-submit"),
        ("QOSMaxCpuPerUserLimit", "max-cpus"),
        ("AssocGrpCpuLimit", "max-cpus"),
        ("AssocGrpCPURunMinutesLimit", "max-cpus"),
        ("QOSMaxNodePerUserLimit", "max-cpus"),
        ("AssocGrpBilling", "max-cpus"),
        ("QOSMaxGRESPerUser", "max-gpus"),
        ("AssocGrpGRES", "max-gpus"),
        ("AssocGrpGRESRunMinutes", "max-gpus"),
        ("MaxGRESPerAccount", "max-gpus"),
        ("QOSMaxMemoryPerUser", "max-memory"),
        ("AssocGrpMemLimit", "max-memory"),
        ("AssocGrpCPUMinutesLimit", "no-budget"),
        ("AssocGrpBillingMinutes", "no-budget"),
        ("QOSGrpGRESMinutes", "no-budget"),
        ("QOSGrpWallLimit", "no-budget"),
        ("PartitionTimeLimit", "over-time-limit"),
        ("QOSMaxWallDurationPerJobLimit", "over-time-limit"),
        ("AssocMaxCpuMinutesPerJobLimit", "over-time-limit"),
        ("PartitionNodeLimit", "over-size-limit"),
        ("QOSMaxCpuPerJobLimit", "over-size-limit"),
        ("QOSMaxGRESPerNode", "over-size-limit"),
        ("MaxMemPerLimit", "over-size-limit"),
        ("QOSMinCpuNotSatisfied", "bad-constraints"),
        ("BadConstraints", "bad-constraints"),
        ("ReqNodeNotAvail, May be reserved for other job", "maintenance"),
        ("ReqNodeNotAvail, Reserved for maintenance", "maintenance"),
        ("ReqNodeNotAvail(Unavailable:c1)", "node-unavailable"),
        ("Reservation", "reservation"),
        ("ReservationDeleted", "reservation-gone"),
        ("Dependency", "dependency"),
        ("DependencyNeverSatisfied", "dependency"),
        ("JobHeldUser", "held-by-user"),
        ("JobHeldAdmin", "held-by-admin"),
        ("JobHoldMaxRequeue", "held-by-system"),
        ("job requeued in held state", "held-by-system"),
        ("launch failed requeued held", "launch-failed-held"),
        ("launch_failed_requeued_held", "launch-failed-held"),
        ("Licenses", "licenses"),
        ("AccountNotAllowed", "account-not-allowed"),
        ("Job's account not permitted to use this partition (a allows b not c)",
         "account-not-allowed"),
        ("Job's QOS not permitted to use this partition (a allows b not c)", "invalid-qos"),
        ("InvalidAccount", "invalid-account"),
        ("InvalidQOS", "invalid-qos"),
        ("QOSNotAllowed", "invalid-qos"),
        ("PartitionDown", "partition-down"),
        ("PartitionInactive", "partition-down"),
        ("NodeDown", "node-down"),
        ("Prolog", "other"),
        ("SomethingOfTheYear2030", "other"),
    ],
)  # fmt: skip
def test_reason_has_its_code(words: str, code: str) -> None:
    """Each of Slurm's words comes to the code whose sentence and advice fit."""
    assert code_of(words) == code


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("whose", ["QOS", "Assoc"])
def test_no_limit_is_unknown(whose: str, kind: str) -> None:
    """Whatever a limit counts and whomever it is for, something is said about it."""
    limits = [f"{whose}Grp{kind}", f"{whose}Grp{kind}Minutes", f"{whose}Grp{kind}RunMinutes",
              f"{whose}Max{kind}PerJob", f"{whose}Max{kind}PerNode", f"{whose}Max{kind}PerUser",
              f"{whose}Max{kind}MinutesPerJob", f"Max{kind}PerAccount"]  # fmt: skip
    assert "other" not in {code_of(limit) for limit in limits}


def test_reasons_of_a_real_queue_are_known() -> None:
    """No reason that the test bed's queue ever showed is without a code of the catalogue."""
    rows = [row for row in of_every_state() if row[2] == "PENDING"]
    codes = {row[4]: code_of(row[4]) for row in rows}
    assert codes["QOSGrpGRES"] == "max-gpus"
    assert codes["ReqNodeNotAvail, UnavailableNodes:off1"] == "node-unavailable"
    assert codes["JobArrayTaskLimit"] == "dependency"
    assert set(codes.values()) <= WAITING.keys() - {"other"}
    assert WAITING.keys() >= HELD


def test_limits_that_are_not_enforced_at_submission_are_known() -> None:
    """With ``EnforcePartLimits=NO`` a job that can never start waits, and says so."""
    lines = said("squeue-partlimits-no.txt").stdout.splitlines()[1:]
    codes = [code_of(line.split("|")[2]) for line in lines]
    assert codes == ["over-time-limit", "account-not-allowed", "over-time-limit"]
    assert all(WAITING[code].can_never_start for code in codes)


def test_reason_keeps_words_and_names_nodes() -> None:
    """People see what Slurm itself says, and which nodes are meant."""
    reason = read_reason("ReqNodeNotAvail, UnavailableNodes:off1")
    assert reason.words == "ReqNodeNotAvail, UnavailableNodes:off1"
    assert reason.params == {"nodes": "off1"}
    assert read_reason("None").words == ""
