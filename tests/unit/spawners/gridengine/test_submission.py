"""What becomes of a request, and of what qsub answers to it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.domain.errors import SpawnerRejected, SpawnerTransient
from perijove.domain.launch import Resources
from perijove.spawners.batch.scheduler import JobRequest, Result, Site
from perijove.spawners.gridengine.scheduler import GridEngineScheduler
from tests.unit.spawners.gridengine.corpus import rejections


def scheduler(*per_job: str, parallel_environment: str | None = "smp") -> GridEngineScheduler:
    """Return a scheduler as the samples' site has it."""
    return GridEngineScheduler(
        Site(),
        parallel_environment=parallel_environment,
        memory_complex="rmem",
        gpu_complex="gpu",
        per_job=per_job,
    )


def request(
    resources: Resources = Resources(), *, name: str = "pj-a-1", comment: str = "", **options: Any
) -> JobRequest:
    """Return a request with these options."""
    return JobRequest(name=name, comment=comment, resources=resources, options=options)


def test_everything_asked_for_is_an_argument_of_its_own() -> None:
    """A full request becomes one command; what is counted for each slot is divided."""
    asked = Resources(cpu=4, memory_bytes=6 * 2**30, gpu=8, time_seconds=7200)
    command = scheduler().submission(
        request(asked, comment="alice: Lab, 2 h", account="rse", partition="all.q")
    )
    assert command == [
        "qsub", "-terse", "-N", "pj-a-1", "-cwd", "-o", "job.log", "-j", "y", "-S", "/bin/sh",
        "-r", "n", "-notify", "-ac", "perijove=alice: Lab_ 2 h", "-w", "e",
        "-l", "h_rt=7200,rmem=1536M,gpu=2", "-pe", "smp", "4", "-P", "rse", "-q", "all.q",
        "job.sh",
    ]  # fmt: skip


def test_what_is_counted_for_the_job_is_not_divided() -> None:
    """A complex named in `per_job` gets the whole amount."""
    asked = Resources(cpu=4, memory_bytes=6 * 2**30, gpu=1)
    command = scheduler("rmem", "gpu").submission(request(asked))
    assert command[command.index("-l") + 1] == "rmem=6144M,gpu=1"


def test_nothing_asked_for_adds_nothing() -> None:
    """Without resources and options the site's defaults hold: no -l, no -pe, no -q."""
    command = scheduler().submission(request(account="", partition=None, features=[]))
    assert not {"-l", "-pe", "-P", "-q", "-ar"} & set(command)
    assert not {"-V", "-v"} & set(command)


@pytest.mark.parametrize(
    ("resources", "field"),
    [
        (Resources(cpu=4, gpu=2), "gpu"),
        (Resources(cpu=float("nan")), "cpu"),
        (Resources(cpu=-1), "cpu"),
        (Resources(memory_bytes=0), "memory"),
        (Resources(time_seconds=-5), "time"),
    ],
)
def test_resources_that_cannot_be_said_are_refused(resources: Resources, field: str) -> None:
    """GPUs that the slots cannot share, and numbers that are none, name their option."""
    with pytest.raises(SpawnerRejected) as refused:
        scheduler().submission(request(resources))
    assert (refused.value.code, refused.value.params["field"]) == ("bad-option", field)


def test_cores_need_a_parallel_environment() -> None:
    """Without one configured only one core can be had."""
    assert scheduler(parallel_environment=None).submission(request(Resources(cpu=1)))
    with pytest.raises(SpawnerRejected):
        scheduler(parallel_environment=None).submission(request(Resources(cpu=2)))


NASTY = st.one_of(
    st.text(),
    st.sampled_from(
        ["-l", "a b", "a,b", "*", "all.q@*", "$(id)", "`id`", "a\nb", "#$ -V", "é", "a=b", "a'b"]
    ),
)


@given(
    st.sampled_from(["account", "partition", "reservation", "qos", "features", "gpu_type"]), NASTY
)
def test_no_option_escapes_its_argument(option: str, value: str) -> None:
    """A value is one plain argument after its flag, or the request is refused; never more."""
    plain = scheduler().submission(request())
    try:
        asked = JobRequest(
            name="pj-a-1", comment="", resources=Resources(), options={option: value}
        )
        command = scheduler().submission(asked)
    except SpawnerRejected:
        return
    added = command[len(plain) - 1 : -1]
    assert list(command[: len(plain) - 1]) == list(plain[:-1])
    assert added in ([], ["-P", value], ["-q", value], ["-ar", value])
    assert not value or (value.isascii() and value[0] != "-" and not set(value) & set("*@,= $\n"))


@given(NASTY)
def test_names_and_ids_are_no_patterns(text: str) -> None:
    """What is no single job's name or id reaches no command that could mean many."""
    for make in (scheduler().cancellation, scheduler().release, scheduler().listing_by_name):
        try:
            command = make(text)
        except SpawnerRejected:
            continue
        assert command[-1] == text
        assert not set(text) & set("*?[],-@! \n") or text[0] != "-"
        assert not set(text) & set("*?[],! \n")


@given(NASTY)
def test_a_comment_stays_one_value(comment: str) -> None:
    """The comment cannot add context variables, which a comma would begin."""
    command = list(scheduler().submission(request(comment=comment)))
    if "-ac" in command:
        value = command[command.index("-ac") + 1]
        assert value.startswith("perijove=")
        assert value.isascii()
        assert not set(value[9:]) & set(",=\n'\"$`\\")


CODES = {
    "a resource that does not exist": ("bad-constraints", ""),
    "a resource with a value that is none": ("bad-option", ""),
    "a queue that does not exist": ("invalid-partition", "partition"),
    "a project that does not exist": ("invalid-account", "account"),
    "a project closed to this user": ("account-not-allowed", "account"),
    "a parallel environment that does not exist": ("bad-constraints", "cpu"),
    "more slots than there are, -w e": ("bad-constraints", ""),
    "more memory than there is, -w e": ("bad-constraints", ""),
    "more time than the queue allows, -w e": ("bad-constraints", ""),
    "a runtime that is none": ("bad-option", ""),
    "a name with a character not allowed": ("bad-option", ""),
    "an option that does not exist": ("bad-option", ""),
    "a name that begins with a digit": ("rejected", ""),
    "an empty script": ("rejected", ""),
    "a script that does not exist": ("rejected", ""),
    "submitting as root": ("rejected", ""),
}


@pytest.mark.parametrize("tried", CODES)
def test_refusals_have_a_code_and_keep_the_words(tried: str) -> None:
    """Each refusal of the corpus says what is to blame, in Grid Engine's words too."""
    with pytest.raises(SpawnerRejected) as refused:
        scheduler().read_submission(rejections()[tried])
    error = refused.value
    assert (error.code, error.params["field"]) == CODES[tried]
    assert error.params["words"]
    assert "Exiting" not in str(error.params["words"])


@pytest.mark.parametrize(
    "result",
    [
        rejections()["qmaster does not answer"],
        # What Grid Engine says when it cannot take in a name: nobody knows what it did.
        rejections()["a name that is not ASCII"],
        rejections()["qstat, no SGE_ROOT directory"],
        Result(status=0, stdout="", stderr=""),
        Result(status=0, stdout="Welcome to the cluster!\n", stderr=""),
        Result(status=127, stdout="", stderr="sh: qsub: not found"),
        Result(status=-9, stdout="", stderr=""),
    ],
)
def test_an_answer_that_is_none_is_tried_again(result: Result) -> None:
    """Silence, banners without an id and missing programs do not reject a request."""
    with pytest.raises(SpawnerTransient):
        scheduler().read_submission(result)


@pytest.mark.parametrize(
    ("tried", "job_id"),
    [
        ("an option given twice (accepted; the warning comes on standard output, before the id)",
         "1169"),
        ("an array (the id carries the range)", "1170"),
        ("a script without #! (accepted)", "1171"),
    ],
)  # fmt: skip
def test_the_id_is_found_among_warnings(tried: str, job_id: str) -> None:
    """The id is the last line; what a site's wrapper prints before does not matter."""
    assert scheduler().read_submission(rejections()[tried]) == job_id
