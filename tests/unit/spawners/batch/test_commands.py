"""Asking a scheduler: how often, how long, with what, and how it is counted."""

import os
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.domain.errors import SpawnerTransient
from perijove.spawners.batch.commands import Allowance, Commands, Turns
from perijove.spawners.batch.scheduler import Site

pytestmark = pytest.mark.anyio


@dataclass(frozen=True, slots=True, order=True)
class Asked:
    """A question of which it is known when it was asked."""

    at: float
    for_form: bool
    first: float
    """When it was first in its line."""


def play(wants: Sequence[tuple[float, bool]]) -> list[Asked]:
    """
    Return the questions in the order in which they were asked.

    A question is wanted so many quarters of a second after the one before; a period is a second.
    """
    turns, now, came = Turns(1), 0.0, 0.0
    lines: dict[bool, deque[float]] = {False: deque(), True: deque()}
    for after, for_form in wants:
        came += after / 4
        lines[for_form].append(came)
    asked: list[Asked] = []
    while waiting := {for_form: line[0] for for_form, line in lines.items() if line}:
        looks = {
            for_form: first if first > now else turns.at(now, for_form=for_form)
            for for_form, first in waiting.items()
        }
        if (at := min(looks.values())) > now:
            now = at
            continue
        for_form = min(looks, key=looks.__getitem__)
        turns.take(now, for_form=for_form)
        before = max((one.at for one in asked if one.for_form is for_form), default=0.0)
        asked.append(Asked(now, for_form, max(before, lines[for_form].popleft())))
    return asked


WANTS = st.lists(
    st.tuples(st.sampled_from([0, 0, 0, 1, 4, 7, 12]), st.booleans()), min_size=1, max_size=60
)


@given(WANTS)
def test_there_are_never_more_than_six_in_six_periods(wants: list[tuple[float, bool]]) -> None:
    """Six a minute are six in any minute, wherever it begins, and after the quietest hour."""
    times = [one.at for one in play(wants)]
    assert len(times) == len(wants)
    assert all(later - first >= 6 for first, later in zip(times, times[6:], strict=False))


@given(WANTS)
def test_neither_forms_nor_jobs_shut_out_the_other(wants: list[tuple[float, bool]]) -> None:
    """Whatever the others ask, who is first in its line has a turn within six periods."""
    assert all(one.at - one.first <= 6 for one in play(wants))


@pytest.mark.parametrize("for_form", [True, False])
def test_two_are_kept_for_the_others(for_form: bool) -> None:
    """Four of a sort follow each other at once, and two of the other still have their turn."""
    same = [(0, for_form)] * 5
    others = [(1, not for_form)] * 3
    asked = play(same + others)
    assert [one.at for one in asked if one.for_form is for_form] == [0, 0, 0, 0, 6]
    assert [one.at for one in asked if one.for_form is not for_form] == [0.25, 0.5, 6]


def test_turns_last_for_surveys_at_their_pace() -> None:
    """Where a site wants few questions, looks at the queue are spread and not used up at once."""
    turns, pace = Turns(120), Commands(Site(), Allowance(120)).pace
    for number in range(100):
        assert turns.at(number * pace, for_form=False) == number * pace
        turns.take(number * pace, for_form=False)


async def test_questions_wait_for_their_turn() -> None:
    """However many want to ask at the same moment, six go in six periods."""
    period = 0.1
    allowance = Allowance(period)
    began = time.monotonic()
    asked: list[float] = []

    async def ask(*, for_form: bool) -> None:
        await allowance.take(for_form=for_form)
        asked.append(time.monotonic() - began)

    async with anyio.create_task_group() as tasks:
        for number in range(14):
            tasks.start_soon(partial(ask, for_form=bool(number % 2)))

    assert len(asked) == 14
    for number, at in enumerate(sorted(asked)):
        assert at >= number // 6 * 6 * period


async def test_impatience_does_not_pile_up() -> None:
    """Who stops waiting for its turn has asked nothing, and nobody waits longer for it."""
    allowance = Allowance(0.2)
    for _ in range(4):
        await allowance.take()
    for for_form in (True, False) * 50:
        with anyio.move_on_after(0):
            await allowance.take(for_form=for_form)
    with anyio.fail_after(15):
        await allowance.take(for_form=True)
        await allowance.take()


def commands(**settings: object) -> Commands:
    """Return commands of a site, as many as anybody wants."""
    return Commands(Site(**settings), Allowance(0.001))  # type: ignore[arg-type]


async def test_a_program_gets_the_sites_environment_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What this process has, secrets among it, is not for the scheduler's programs."""
    monkeypatch.setenv("PERIJOVE_SECRET", "canary")
    site = commands(environment={"SLURM_CONF": "/etc/x"}, bin_dir=Path("/opt/slurm/bin"))
    answer = await site.run(["/usr/bin/env"])
    told = dict(line.split("=", 1) for line in answer.stdout.splitlines())
    assert told.keys() == {"PATH", "LC_ALL", "SLURM_CONF"}
    assert told["PATH"].startswith("/opt/slurm/bin:")
    assert (told["LC_ALL"], told["SLURM_CONF"]) == ("C", "/etc/x")


async def test_a_program_of_the_sites_folder_is_found_there(tmp_path: Path) -> None:
    """Programs are looked for in ``bin_dir`` first."""
    program = tmp_path / "squeue"
    program.write_text("#!/bin/sh\necho ours\n")
    program.chmod(0o755)
    answer = await commands(bin_dir=tmp_path).run(["squeue"])
    assert answer.stdout == "ours\n"


async def test_no_answer_in_time_is_silence_and_the_program_ends(tmp_path: Path) -> None:
    """A program that hangs is given up, and is not left behind."""
    pid = tmp_path / "pid"
    with pytest.raises(SpawnerTransient, match="within"):
        await commands(timeout=2).run(["/bin/sh", "-c", f"echo $$ > {pid}; exec sleep 60"])
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


@pytest.mark.parametrize("program", ["/nonexistent/squeue", "/etc/passwd"])
async def test_a_program_that_cannot_be_run_is_silence(program: str) -> None:
    """A missing program says nothing about any job."""
    with pytest.raises(SpawnerTransient, match="cannot be run"):
        await commands().run([program])


async def test_answers_are_read_leniently() -> None:
    """Status, both outputs, and bytes that are no text."""
    answer = await commands().run(["/bin/sh", "-c", r"printf 'a\377b'; echo no >&2; exit 3"])
    assert (answer.status, answer.stdout, answer.stderr) == (3, "a�b", "no\n")


async def test_every_call_is_counted_by_its_program() -> None:
    """Counts go by program, whatever its folder, and also for calls that fail."""
    site = commands(timeout=60)
    await site.run(["/bin/true"])
    await site.for_form.run(["true"])
    with pytest.raises(SpawnerTransient):
        await site.run(["/nonexistent/squeue"])
    assert site.counts == {"true": 2, "squeue": 1}
