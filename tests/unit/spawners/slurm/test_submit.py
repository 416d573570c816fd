"""What is asked of ``sbatch``, and what its answers come to."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.domain.errors import SpawnerRejected, SpawnerTransient
from perijove.domain.launch import Resources
from perijove.domain.reasons import CANNOT, WAITING
from perijove.spawners.batch.scheduler import JobRequest, Result
from perijove.spawners.slurm.scheduler import SlurmScheduler
from perijove.spawners.slurm.submit import dry_run, read_dry_run
from tests.unit.spawners.slurm.corpus import attempts, failed, said

GIB = 2**30
PLAIN = JobRequest(name="pj-abc-123", comment="perijove alice", resources=Resources())
SLURM = SlurmScheduler()


def _asked(resources: Resources, **options: object) -> set[str]:
    plain = set(SLURM.submission(PLAIN))
    return set(SLURM.submission(replace(PLAIN, resources=resources, options=options))) - plain


def test_submission_exports_nothing_and_names_itself() -> None:
    """The caller's environment stays behind, and the job carries our name and comment."""
    assert SLURM.submission(PLAIN) == [
        "sbatch", "--parsable", "--output=job.log", "--open-mode=append", "--job-name=pj-abc-123",
        "--comment=perijove alice", "--export-file=/dev/null", "--nodes=1", "--ntasks=1", "job.sh",
    ]  # fmt: skip


def test_amounts_are_never_less_than_asked() -> None:
    """Part of a core, a MiB or a minute is a whole one."""
    resources = Resources(cpu=1.2, memory_bytes=GIB + 1, gpu=2, time_seconds=3601)
    assert _asked(resources, gpu_type="a100_3g.20gb") == {
        "--cpus-per-task=2",
        "--mem=1025M",
        "--gres=gpu:a100_3g.20gb:2",
        "--time=61",
        "--signal=B:USR1@300",
    }


def test_short_job_is_not_warned_at_its_start() -> None:
    """A job of a few minutes would get its warning before it can take one."""
    assert _asked(Resources(time_seconds=300)) == {"--time=5"}


def test_choices_are_arguments_of_their_own() -> None:
    """Every choice is one argument; features must all be there."""
    chosen = {"account": "def-x", "partition": "gpu", "qos": "normal", "reservation": "course_1"}
    assert _asked(Resources(), **chosen, features=["avx2", "milan"]) == {
        "--account=def-x",
        "--partition=gpu",
        "--qos=normal",
        "--reservation=course_1",
        "--constraint=avx2&milan",
    }


@pytest.mark.parametrize("empty", [None, ""])
def test_what_is_not_chosen_is_not_asked(empty: object) -> None:
    """Nothing chosen leaves it to Slurm, and a type without a number is no GPU."""
    assert _asked(Resources(gpu=0), account=empty, qos=empty, gpu_type="a100") == set()
    assert _asked(Resources(), features=empty) == _asked(Resources(), features=[]) == set()


def test_shards_are_asked_for_as_shards() -> None:
    """A share of a GPU is a resource of its own."""
    assert _asked(Resources(gpu=2), gpu_type="shard:a100") == {"--gres=shard:a100:2"}


@pytest.mark.parametrize("field", ["account", "partition", "qos", "reservation", "gpu_type"])
@pytest.mark.parametrize(
    "value",
    ["-x", "--uid=root", "a b", "a\nb", "a\n#SBATCH --uid=0", "$(id)", "a,b", "a'", 'a"', "é",
     "a;b", "a\x00", "٤", "x" * 200, 7, ["a"], {"a": 1}, True],
)  # fmt: skip
def test_value_that_is_no_name_is_refused(field: str, value: object) -> None:
    """What no account, partition, QOS, reservation or GPU can be called never reaches sbatch."""
    request = replace(PLAIN, resources=Resources(gpu=1), options={field: value})
    with pytest.raises(SpawnerRejected) as caught:
        SLURM.submission(request)
    assert caught.value.code == "bad-option"
    assert caught.value.params["field"] == field


@pytest.mark.parametrize(
    "features", ["avx2", ["a&b"], ["a|b"], ["[a*2]"], [7], {"a": 1}, ["a"] * 99]
)
def test_features_hold_no_operator(features: object) -> None:
    """A feature cannot be an expression of features."""
    with pytest.raises(SpawnerRejected, match="features"):
        SLURM.submission(replace(PLAIN, options={"features": features}))


@pytest.mark.parametrize(
    "resources",
    [Resources(cpu=float("nan")), Resources(cpu=-1), Resources(memory_bytes=0), Resources(gpu=-1),
     Resources(time_seconds=0), Resources(cpu=float("inf"))],
)  # fmt: skip
def test_amount_that_is_none_is_refused(resources: Resources) -> None:
    """Only positive, finite amounts are asked for."""
    with pytest.raises(SpawnerRejected, match="cannot be asked"):
        SLURM.submission(replace(PLAIN, resources=resources))


@pytest.mark.parametrize(
    "argument",
    ["--export=ALL", "--exp=ALL", "--uid=0", "--wrap=id", "--array=1-9", "-A", "x", "--output=/x",
     "--job-name=x", "--par", "--clusters=b", "--mail-user=a\nb", "--é=1", ""],
)  # fmt: skip
def test_argument_of_the_site_leaves_the_job_ours(argument: str) -> None:
    """What would change whose job it is, its name or its environment is refused."""
    with pytest.raises(SpawnerRejected, match="extra"):
        SLURM.submission(replace(PLAIN, extra=[argument]))


def test_other_arguments_of_the_site_come_last() -> None:
    """A site may add what it needs; for an option that comes twice the last one counts."""
    extra = ["--requeue", "--mail-type=END", "--exclusive=user", "--signal=B:USR2@60"]
    assert SLURM.submission(replace(PLAIN, extra=extra))[-5:] == [*extra, "job.sh"]


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
_field = st.sampled_from(["account", "partition", "qos", "reservation", "gpu_type", "features"])
_SAFE = re.compile(r"--[a-z-]+(=[A-Za-z0-9_.:@/+=&-]+)?|[a-z.]+", re.ASCII)


@given(st.dictionaries(_field, _anything, max_size=6), st.text(max_size=20))
def test_nothing_in_any_option_escapes(options: Mapping[str, Any], name: str) -> None:
    """Whatever is chosen, each argument is an option's name and a plain value, or it is refused."""
    request = JobRequest(name=name or "n", comment="c", resources=Resources(gpu=1), options=options)
    try:
        command = SLURM.submission(request)
    except SpawnerRejected:
        return
    assert all(_SAFE.fullmatch(argument) for argument in command)


# --- answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stdout", ["53\n", "53;testbed\n", "Welcome to the cluster\n\n53\n", "53"])
def test_number_is_on_the_last_line(stdout: str) -> None:
    """A site's wrapper may say something first; another cluster is named behind."""
    assert SLURM.read_submission(Result(status=0, stdout=stdout, stderr="")) == "53"


def test_success_without_a_number_is_unknown() -> None:
    """The job may be there: whoever submitted must look before trying again."""
    with pytest.raises(SpawnerTransient):
        SLURM.read_submission(said("scancel-unknown-job.txt"))


EXPECTED = {
    "an account that does not exist": ("invalid-account", "account"),
    "an account of somebody else": ("invalid-account", "account"),
    "a user without any association": ("invalid-account", "account"),
    "a partition that does not exist": ("invalid-partition", "partition"),
    "a partition closed to this account (AllowAccounts)": ("invalid-account", "account"),
    "a QOS that does not exist": ("invalid-qos", "qos"),
    "a QOS not open to this user": ("invalid-qos", "qos"),
    "more time than the partition allows": ("over-time-limit", "time"),
    "more time than the QOS allows, QOS with DenyOnLimit": ("over-time-limit", "time"),
    "more CPUs than the QOS allows, QOS with DenyOnLimit": ("over-size-limit", "cpu"),
    "more time than the QOS allows, QOS without DenyOnLimit (accepted; pends)":
        ("over-time-limit", "time"),
    "more memory than any node has": ("over-size-limit", "memory"),
    "more CPUs than any node has": ("over-size-limit", "cpu"),
    "more nodes than the partition has": ("over-size-limit", "cpu"),
    "a GPU in a partition with none": ("bad-constraints", ""),
    "a GPU type that does not exist": ("bad-constraints", ""),
    "more GPUs than a node has": ("bad-constraints", ""),
    "a GRES that does not exist": ("bad-constraints", "gpu"),
    "a rule of the site (job_submit.lua)": ("rejected", ""),
    "a feature that no node has": ("bad-constraints", "features"),
    "a node that does not exist": ("rejected", ""),
    "a reservation that does not exist": ("reservation-gone", "reservation"),
    "a reservation closed to this user": ("rejected", "reservation"),
    "a time that is no time": ("bad-option", ""),
    "a memory that is no memory": ("bad-option", ""),
    "an option that does not exist": ("bad-option", ""),
    "a script without #!": ("rejected", ""),
    "an empty script": ("rejected", ""),
    "a script with DOS line ends": ("rejected", ""),
    "a script of 5 MiB": ("rejected", ""),
    "one job more than the QOS lets a user submit": ("max-submit", ""),
    "one job more than the association lets a user submit": ("max-submit", ""),
    "submitting as somebody else, without being root": ("rejected", ""),
}  # fmt: skip
"""By the title of the corpus: code and field."""


@pytest.mark.parametrize("title", EXPECTED)
def test_refusal_names_the_culprit(title: str) -> None:
    """What a real Slurm refused comes to a code of the catalogue, and to the field it is about."""
    (attempt,) = (each for each in attempts() if each.title == title)
    with pytest.raises(SpawnerRejected) as caught:
        SLURM.read_submission(attempt.result)
    assert (caught.value.code, caught.value.params["field"]) == EXPECTED[title]
    assert caught.value.code in {**WAITING, **CANNOT}


def test_every_attempt_of_the_corpus_is_understood() -> None:
    """What is not refused was accepted, or Slurm was silent."""
    others = [each for each in attempts() if each.title not in EXPECTED]
    accepted = [each for each in others if each.result.status == 0]
    silent = [each.title for each in others if each.result.status != 0]
    assert [SLURM.read_submission(each.result) for each in accepted] == ["53", "58"]
    assert silent == ["slurmctld does not answer", "munged does not answer"]


@pytest.mark.parametrize(
    "result",
    [
        *(each.result for each in attempts() if "does not answer" in each.title),
        failed("sbatch: error: Batch job submission failed: Socket timed out on send/recv"),
        failed("sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying"),
        failed("sbatch: fatal: Unable to process configuration file"),
        failed("", status=-9),
        failed("sudo: a password is required"),
    ],
)
def test_silence_is_no_refusal(result: Result) -> None:
    """When Slurm cannot be asked, or was not, nobody learns that the request was wrong."""
    with pytest.raises(SpawnerTransient):
        SLURM.read_submission(result)


def test_rule_of_the_site_is_told_in_its_own_words() -> None:
    """A site's own sentence is shown, without what Slurm adds around it."""
    (attempt,) = (each for each in attempts() if "lua" in each.title)
    with pytest.raises(SpawnerRejected) as caught:
        SLURM.read_submission(attempt.result)
    words = "Partition gpu is for GPU jobs: ask for one with --gres=gpu:1"
    assert caught.value.params["words"] == words


@pytest.mark.parametrize("job_id", ["", "0", "-1", "1 2", "1_2", "12;x", "٤", "9" * 30])
def test_only_a_number_is_cancelled_or_released(job_id: str) -> None:
    """Nothing but one job's number reaches scancel and scontrol."""
    assert SLURM.cancellation("17") == ["scancel", "17"]
    assert SLURM.release("17") == ["scontrol", "release", "17"]
    for make in (SLURM.cancellation, SLURM.release):
        with pytest.raises(SpawnerRejected):
            make(job_id)


# --- dry run ----------------------------------------------------------------------------------


def test_dry_run_asks_the_same_and_runs_nothing() -> None:
    """What is rehearsed is what would be submitted, without the script."""
    request = replace(PLAIN, resources=Resources(cpu=2), options={"account": "def-x"})
    command = dry_run(request)
    assert "--test-only" in command
    assert set(SLURM.submission(request)) - set(command) == {
        "--parsable", "--open-mode=append", "--output=job.log", "job.sh",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("resources", "options", "field"),
    [
        (Resources(gpu=1), {"gpu_type": "h100"}, "gpu_type"),
        (Resources(gpu=9), {}, "gpu"),
        (Resources(), {"features": ["avx2", "milan"]}, "features"),
        (Resources(), {}, ""),
    ],
)
def test_objection_marks_the_likely_culprit(
    resources: Resources, options: Mapping[str, Any], field: str
) -> None:
    """Where Slurm does not say what no node has, what was asked for tells."""
    request = replace(PLAIN, resources=resources, options=options)
    said = failed("allocation failure: Requested node configuration is not available")
    (objection,) = read_dry_run(said, request)
    assert (objection.field, objection.code) == (field, "bad-constraints")
    assert objection.words == "Requested node configuration is not available"


def test_dry_run_without_an_answer_is_no_objection() -> None:
    """A silent Slurm has nothing against a request, and nothing for it."""
    words = "sbatch: Job 6 to start at 2026-11-20T15:31:25 using 1 processors on nodes cpu1"
    assert read_dry_run(Result(status=0, stdout="", stderr=words), PLAIN) == ()
    with pytest.raises(SpawnerTransient):
        read_dry_run(failed("allocation failure: Socket timed out on send/recv operation"), PLAIN)
