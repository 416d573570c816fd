"""Associations and QOS as ``sacctmgr`` shows them."""

import pytest

from perijove.domain.errors import SpawnerRejected, SpawnerTransient
from perijove.domain.offer import Ceiling
from perijove.spawners.batch.scheduler import Result
from perijove.spawners.slurm.people import (
    ask_for_person,
    read_accounts,
    read_qos,
    with_shared_limits,
)
from tests.unit.spawners.slurm.corpus import failed, said

GIB = 2**30


def _rows(*rows: str) -> Result:
    return Result(status=0, stdout="".join(f"{row}\n" for row in rows), stderr="")


def _qos_of_the_corpus() -> Result:
    """Return the corpus's QOS in the columns that are asked for."""
    header, *lines = (line.split("|") for line in said("sacctmgr-show-qos.txt").stdout.splitlines())
    wanted = ("Name", "MaxWall", "MaxTRES", "MaxTRESPerNode", "MaxTRESPU", "MaxJobsPU",
              "MaxSubmitPU", "GrpTRES", "GrpJobs", "GrpSubmit")  # fmt: skip
    return _rows(*("|".join(line[header.index(each)] for each in wanted) for line in lines))


def test_real_qos_are_read() -> None:
    """Limits of a job, of a person and of all together are told apart."""
    qos = read_qos(_qos_of_the_corpus())
    assert list(qos) == ["normal", "interactive", "onejob", "tiny", "strict", "gpuone"]
    assert (qos["interactive"].max_seconds, qos["interactive"].per_person.submitted) == (28_800, 3)
    assert qos["onejob"].per_person.jobs == 1
    assert (qos["tiny"].per_person.cpus, qos["tiny"].per_job.cpus) == (2, None)
    assert (qos["strict"].per_job.cpus, qos["strict"].max_seconds) == (2, 600)
    assert qos["gpuone"].group == Ceiling(gpus=1)


def test_accounts_of_a_person_are_read() -> None:
    """Default account, QOS and limits come with the account."""
    accounts = read_accounts(
        _rows(
            "def-a|rrg-a||normal,high|normal|3|5|cpu=8,mem=16G|gres/gpu=2|1-00:00:00|cpu=32",
            "def-a|def-a||normal|||||||",
        )
    )
    rrg = accounts["rrg-a"]
    assert (rrg.qos, rrg.default_qos, rrg.max_seconds) == (("normal", "high"), "normal", 86_400)
    assert rrg.per_job == Ceiling(cpus=8, memory_bytes=16 * GIB, gpus=2)
    assert rrg.per_person == Ceiling(cpus=32, jobs=3, submitted=5)
    assert [each.name for each in accounts.values() if each.is_default] == ["def-a"]


def test_associations_for_partitions_come_together() -> None:
    """Somebody associated for two partitions has the one account, good for both."""
    both = ("x|x|cpu|a|a|1||cpu=2||60|", "x|x|gpu|b|b|||cpu=8||120|")
    (account,) = read_accounts(_rows(*both)).values()
    assert account.partitions == ("cpu", "gpu")
    assert account.qos == ("a", "b")
    assert (account.per_job.cpus, account.max_seconds) == (8, 7200)
    assert account.per_person.jobs is None
    (everywhere,) = read_accounts(_rows(*both, "x|x||a|a||||||")).values()
    assert everywhere.partitions == ()
    assert everywhere.max_seconds is None


def test_what_all_members_share_limits_each_job() -> None:
    """A job larger than the whole account may be can never start."""
    accounts = read_accounts(_rows("x|x||a|a|||cpu=8|||", "x|y||a|a||||||"))
    limited = with_shared_limits(accounts, _rows("x|600|cpu=2,gres/gpu:a100=1", "other||cpu=1"))
    found = {each.name: each for each in limited}
    assert found["x"].per_job == Ceiling(cpus=2, gpus_by_type={"a100": 1})
    assert found["x"].max_seconds == 36_000
    assert found["y"] == accounts["y"]


def test_somebody_without_associations_has_no_account() -> None:
    """``sacctmgr`` then says nothing."""
    assert read_accounts(said("sacctmgr-show-assoc-no-user.txt")) == {}


@pytest.mark.parametrize(
    "result",
    [
        failed("sacctmgr: error: slurm_persist_conn_open: No response to persist_init"),
        failed("You are not running a supported accounting_storage plugin"),
        _rows("x|y"),
    ],
)
def test_failed_question_is_nobody_without_an_account(result: Result) -> None:
    """No answer, or one of other columns, takes no account away."""
    with pytest.raises(SpawnerTransient):
        read_accounts(result)


@pytest.mark.parametrize("name", ["a,b", "-i", "a b", "", "a\nb", "a=b", "é"])
def test_only_one_name_is_asked_for(name: str) -> None:
    """A name that would be read as several people's, or as an option, is refused."""
    with pytest.raises(SpawnerRejected):
        ask_for_person(name, "testbed")
