"""Asking a scheduler as the hub's own account: not too often, with a deadline, and counted."""

from collections import Counter
from collections.abc import Mapping
from pathlib import PurePath

import anyio

from perijove.domain.errors import SpawnerTransient
from perijove.kit.clock import monotonic
from perijove.spawners.batch.scheduler import Command, Result, Site

_SEARCH_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


class Allowance:
    """
    How often a cluster may be asked: every `period` seconds, and what was saved before.

    Six questions a minute are enough for everything, however many people there are (failure
    5.4): so many may be saved, for a form that needs several answers at once.
    """

    def __init__(self, period: float, burst: int = 6) -> None:
        self._period = period
        self._burst = burst
        self._saved = float(burst)
        self._at = monotonic()

    async def take(self) -> None:
        """Return when one more question is allowed."""
        now = monotonic()
        self._saved = min(self._burst, self._saved + (now - self._at) / self._period) - 1
        self._at = now
        try:
            await anyio.sleep(max(0.0, -self._saved * self._period))
        except BaseException:
            self._saved += 1  # Who gave up has asked nothing: else impatience would pile up.
            raise


class Commands:
    """Runs commands of one site; `counts` says how often each program was called."""

    def __init__(self, site: Site, allowance: Allowance) -> None:
        self._site = site
        self._allowance = allowance
        self.counts: Counter[str] = Counter()

    async def run(self, command: Command) -> Result:
        """Return what a command says; raise `SpawnerTransient` if it does not in time."""
        await self._allowance.take()
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
