"""Asking a scheduler as the hub's own account: not too often, with a deadline, and counted."""

from collections import Counter, deque
from collections.abc import Mapping
from pathlib import PurePath
from typing import Final

import anyio

from perijove.domain.errors import SpawnerTransient
from perijove.kit.clock import monotonic
from perijove.spawners.batch.scheduler import Command, Result, RunForForm, Site

_SEARCH_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
_MOST: Final = 6
"""How many questions there may be in as many periods."""
_KEPT: Final = 2
"""How many of them are kept for questions about jobs, and as many for those of forms."""


class Turns:
    """
    When the next question may be asked: six in any six periods, and never more.

    With ten seconds that is six in any minute, enough for everything, however many people there
    are (failure 5.4). Two of the six are kept for questions about jobs, two for those of forms,
    so that neither shuts out the other; the last two are for whoever comes first.
    """

    def __init__(self, period: float) -> None:
        self.window = _MOST * period
        self._of_jobs, self._of_forms = deque[float](), deque[float]()

    def at(self, now: float, *, for_form: bool) -> float:
        """Return when to look for a turn again; it is there if that is `now`."""
        own, others = self._lines(for_form=for_form)
        for asked in (own, others):
            while asked and asked[0] + self.window <= now:
                asked.popleft()
        if len(own) + max(len(others), _KEPT) < _MOST:
            return now
        return min(asked[0] + self.window for asked in (own, others) if asked)

    def take(self, now: float, *, for_form: bool) -> None:
        """Note that a question is asked."""
        own, _ = self._lines(for_form=for_form)
        own.append(now)

    def _lines(self, *, for_form: bool) -> tuple[deque[float], deque[float]]:
        """Return the times of the last questions of this sort, and of the other."""
        both = (self._of_forms, self._of_jobs)
        return both if for_form else both[::-1]


class Allowance:
    """`Turns` for those who wait for one: first come, first served among forms and among jobs."""

    def __init__(self, period: float) -> None:
        self._turns = Turns(period)
        self._line, self._line_of_forms = anyio.Lock(), anyio.Lock()

    @property
    def longest(self) -> float:
        """How many seconds who is first in its line waits at the most."""
        return self._turns.window

    def has_turn_for_form(self) -> bool:
        """Tell whether a question of a form would be allowed at once."""
        now = monotonic()
        return not self._line_of_forms.locked() and self._turns.at(now, for_form=True) <= now

    async def take(self, *, for_form: bool = False) -> None:
        """Return when one more question is allowed; who gives up has asked nothing."""
        async with self._line_of_forms if for_form else self._line:
            while True:
                now = monotonic()
                at = self._turns.at(now, for_form=for_form)
                if at <= now:
                    break
                await anyio.sleep(at - now)
            self._turns.take(now, for_form=for_form)


class Commands:
    """Runs commands of one site; `counts` says how often each program was called."""

    def __init__(self, site: Site, allowance: Allowance) -> None:
        self._site = site
        self._allowance = allowance
        self.counts: Counter[str] = Counter()

    @property
    def longest(self) -> float:
        """How many seconds a question waits for its turn at the most."""
        return self._allowance.longest

    @property
    def pace(self) -> float:
        """How many seconds lie between questions about jobs that share all turns evenly."""
        return self._allowance.longest / (_MOST - _KEPT)

    async def run(self, command: Command) -> Result:
        """Return what a command says; raise `SpawnerTransient` if it does not in time."""
        await self._allowance.take()
        return await self._run(command)

    @property
    def for_form(self) -> RunForForm:
        """Return what does the same for what a form shows: its turns are of their own sort."""
        return RunForForm(self._run_for_form, self._allowance.has_turn_for_form)

    async def _run_for_form(self, command: Command) -> Result:
        await self._allowance.take(for_form=True)
        return await self._run(command)

    async def _run(self, command: Command) -> Result:
        program = PurePath(command[0]).name
        self.counts[program] += 1
        try:
            with anyio.fail_after(self._site.timeout):
                done = await anyio.run_process(
                    list(command), check=False, env=environment_of(self._site)
                )
        except TimeoutError:
            raise SpawnerTransient(
                f"{program} did not answer within {self._site.timeout:g} s"
            ) from None
        except OSError as error:
            raise SpawnerTransient(f"{program} cannot be run: {error.strerror}") from error
        return Result(
            status=done.returncode,
            stdout=done.stdout.decode(errors="replace"),
            stderr=done.stderr.decode(errors="replace"),
        )


def environment_of(site: Site) -> Mapping[str, str]:
    """Return all the environment that a scheduler's program gets."""
    path = f"{site.bin_dir}:{_SEARCH_PATH}" if site.bin_dir else _SEARCH_PATH
    return {"PATH": path, "LC_ALL": "C", **site.environment}
