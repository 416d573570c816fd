"""Asking a scheduler: how often, how long, with what, and how it is counted."""

import os
import time
from pathlib import Path

import anyio
import pytest

from perijove.domain.errors import SpawnerTransient
from perijove.spawners.batch.commands import Allowance, Commands
from perijove.spawners.batch.scheduler import Site

pytestmark = pytest.mark.anyio


async def test_questions_are_asked_at_the_rate_of_the_site() -> None:
    """At no moment were more asked than were saved before and than the time since allows."""
    period, burst = 0.02, 6
    allowance = Allowance(period, burst)
    began = time.monotonic()
    asked: list[float] = []

    async def ask() -> None:
        await allowance.take()
        asked.append(time.monotonic() - began)

    async with anyio.create_task_group() as tasks:
        for _ in range(30):
            tasks.start_soon(ask)

    assert len(asked) == 30
    for number, at in enumerate(sorted(asked), 1):
        assert number <= burst + at / period + 1


async def test_no_more_is_saved_than_for_one_form() -> None:
    """A quiet hour does not allow a storm: only some questions are saved."""
    allowance = Allowance(0.001, burst=2)
    await anyio.sleep(0.05)  # Enough to save fifty, if there were no limit.
    slow = Allowance(10, burst=2)
    with anyio.fail_after(8):
        for _ in range(2):
            await slow.take()
            await allowance.take()
    with anyio.move_on_after(0.05) as scope:
        await slow.take()
    assert scope.cancelled_caught


async def test_impatience_does_not_pile_up() -> None:
    """Who stops waiting for its turn has asked nothing, and nobody waits longer for it."""
    allowance = Allowance(0.2, burst=1)
    await allowance.take()
    for _ in range(100):
        with anyio.move_on_after(0):
            await allowance.take()
    with anyio.fail_after(15):
        await allowance.take()


def commands(**settings: object) -> Commands:
    """Return commands of a site, as many as anybody wants."""
    return Commands(Site(**settings), Allowance(0.001, burst=100))  # type: ignore[arg-type]


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
    await site.run(["true"])
    with pytest.raises(SpawnerTransient):
        await site.run(["/nonexistent/squeue"])
    assert site.counts == {"true": 2, "squeue": 1}
