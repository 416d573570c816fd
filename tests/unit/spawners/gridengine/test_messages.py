"""What Grid Engine's sentences mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.domain import reasons
from perijove.domain.offer import Objection
from perijove.spawners.gridengine import messages
from tests.unit.spawners.gridengine.corpus import COMPLEXES, said

OTHER_PROJECT = '(no project) does not have the correct project to run in cluster queue "rse.q"'
OTHER_QUEUE = 'cannot run in queue "all.q" because it is not contained in its hard queue list (-q)'


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ([OTHER_PROJECT, 'queue instance "all.q@vm" dropped because it is full'], "no-slots"),
        (['queue instance "all.q@vm" dropped because it is disabled',
          "All queues dropped because of overload or full"], "queue-disabled"),
        (['queue instance "all.q@vm" dropped because it is temporarily not available'],
         "node-unavailable"),
        (["job dropped because of user limitations"], "max-jobs-user"),
        ([OTHER_QUEUE, "a sentence of a version to come"], "other"),
    ],
)  # fmt: skip
def test_the_most_telling_message_is_the_reason(said: list[str], code: str) -> None:
    """What is said about queues that are beside the point does not hide the cause."""
    reason = messages.waiting_reason(said)
    assert reason is not None
    assert reason.code == code
    assert reason.words in said


def test_other_queues_are_no_reason() -> None:
    """A job that only hears why some queues are none for it waits in line."""
    assert messages.waiting_reason([OTHER_PROJECT, OTHER_QUEUE]) is None
    assert messages.waiting_reason([]) is None


def codes() -> set[str]:
    """Return every code that a message or a refusal can come to."""
    tables = (messages._WAITING, messages._REFUSALS, [each for _, each in messages._AGAINST])
    return {meaning.code for table in tables for meaning in table}


def test_the_catalogue_knows_every_code() -> None:
    """No code reaches a page without a sentence."""
    assert codes() <= reasons.WAITING.keys() | reasons.CANNOT.keys()


def test_no_wait_is_called_hopeless() -> None:
    """Messages are about single queues: none of them may end a request that waits."""
    waiting = {meaning.code for meaning in messages._WAITING}
    assert not any(reasons.WAITING[code].can_never_start for code in waiting)


def test_a_verification_names_the_culprit() -> None:
    """The report of the corpus: nine GPUs, of which the host has two."""
    (objection,) = messages.verdict(said("qalter-w-v").stdout, COMPLEXES.fields())
    assert (objection.field, objection.code) == ("gpu", "over-size-limit")
    assert "offers only hc:gpu=2.000000" in objection.words


REPORT = "Unable to run job: Job 13 {}\nverification: no suitable queues\nExiting.\n"


@pytest.mark.parametrize(
    ("message", "field", "code"),
    [
        ('(-l h_rt=5000) cannot run in queue "short.q" because of cluster queue',
         "time", "over-time-limit"),
        ('(-l rmem=900G) cannot run at host "vm" because it offers only hc:rmem=16.000G',
         "memory", "over-size-limit"),
        ('cannot run in PE "make" because it only offers 2 slots', "cpu", "over-size-limit"),
        ('cannot run in PE "smp" because it only offers 0 slots', "", "over-size-limit"),
        ('has no permission for cluster queue "all.q"', "account", "account-not-allowed"),
        ("does not request 'forced' resource \"many\" of queue instance many.q@vm",
         "partition", "bad-constraints"),
        ('cannot run because it exceeds limit "/////" in rule "two/1"', "", "quota"),
    ],
)  # fmt: skip
def test_each_objection_has_field_and_code(message: str, field: str, code: str) -> None:
    """What -w v said on a real cell, with the option that is to blame."""
    report = REPORT.format(f"{OTHER_QUEUE}\nJob 13 {message}")
    assert messages.verdict(report, COMPLEXES.fields()) == (
        Objection(field=field, code=code, words=message),
    )


@given(st.text())
def test_any_report_can_be_read(text: str) -> None:
    """Sentences that nobody knows are no objections, and end nothing."""
    assert messages.verdict(text, COMPLEXES.fields()) == ()
    assert messages.refusal(text)[0]
