"""
``perijove doctor``: goes the way of a start with a tiny job, and names what is wrong with it.

From here: the commands, the scheduler's answer, the launcher and its sudo rule, accounting, a
dry run, the submission. From the node, read in the job's output so that it is heard although the
network is the trouble: Python, home, software, the server's program and version, the clock, the
way to the hub. Then the way from the hub to the node, unless servers dial out, and when the job is
cancelled, whether accounting has it.
"""

import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import anyio
import msgspec

from perijove.agent.doctor import MARK
from perijove.domain.errors import HubError, SpawnerError
from perijove.domain.launch import Resources
from perijove.kit.clock import monotonic
from perijove.kit.ids import platform_name
from perijove.spawners.batch.spawner import BatchSpawner
from perijove.spawners.contract import Claim, LaunchSpec

_JOB_SECONDS: Final = 300
_QUEUE_PAUSE: Final = 5.0
_NODE_SECONDS: Final = 120.0
_VISIT_SECONDS: Final = 5.0
_RECORD_SECONDS: Final = 60.0
"""How long accounting may take: Grid Engine writes it each 15 s, and a network may keep it."""
_OLDEST_SERVER: Final = (4, 0)
_LAST: Final = frozenset({"port", "tunnel"})
"""The node's last finding is one of them."""
_CHECKS: Final = _LAST | {"python", "job", "home", "command", "node-to-hub", "clock"}
"""What a node finds out; each once."""
_LONGEST: Final = 500
_ANSWER_BYTES: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    check: str
    ok: bool
    words: str
    code: str = ""
    """What is wrong, where the catalogue of reasons has a code for it."""


class Doctor:
    """One examination of one cluster, as one person."""

    def __init__(
        self,
        spawner: BatchSpawner,
        user_name: str,
        *,
        api_url: str,
        queue_seconds: float,
    ) -> None:
        self._spawner = spawner
        self._user = user_name
        self._api_url = api_url
        self._queue_seconds = queue_seconds
        self._code = secrets.token_hex(16)

    async def examine(self) -> AsyncIterator[Finding]:
        """Give each finding as soon as it is made; what needs an earlier one is left out."""
        scheduler = await _tried("scheduler", self._ask_scheduler)
        yield scheduler
        launcher = await _tried("launcher", self._ask_as_person)
        yield launcher
        if not (scheduler.ok and launcher.ok):
            return
        yield await _tried("accounting", self._discover)
        yield await _tried("dry-run", self._dry_run)
        async for finding in self._job():
            yield finding

    async def _ask_scheduler(self) -> str:
        began = monotonic()
        survey = await self._spawner.survey()
        return f"{len(survey.sightings)} jobs of ours, {monotonic() - began:.2f} s"

    async def _ask_as_person(self) -> str:
        answer = await self._spawner.act_as(self._user, "log", name=self._name(), lines=1)
        return f"acts as {self._user}" if "text" in answer else "no answer"

    async def _discover(self) -> str:
        offer = await self._spawner.discover(self._user)
        if offer.notes:
            raise SpawnerError(", ".join(offer.notes))
        named = [account.name for account in offer.accounts if account.name]
        accounts = ", ".join(named) or "none are needed"
        return f"accounts: {accounts}; partitions: {len(offer.partitions)}"

    async def _dry_run(self) -> str:
        objections = await self._spawner.validate(self._user, _TINY, {})
        if objections:
            raise SpawnerError("; ".join(f"{each.code}: {each.words}" for each in objections))
        return "no objection"

    # --- the job --------------------------------------------------------------------------

    async def _job(self) -> AsyncIterator[Finding]:
        name = self._name()
        handles: list[Mapping[str, Any]] = []

        async def keep(handle: Mapping[str, Any]) -> None:
            handles.append(handle)

        async def submit() -> str:
            await self._spawner.start(self._spec(name), keep)
            return f"job {handles[-1]['job_id']}"

        submitted = await _tried("submission", submit)
        yield submitted
        if not submitted.ok:
            return
        try:
            waited = await _tried("start", lambda: self._until_running(name))
            yield waited
            if waited.ok:
                async for finding in self._from_node(name, handles[-1]):
                    yield finding
        finally:
            with anyio.CancelScope(shield=True):
                stopped = await _tried("stop", lambda: self._stop(name, handles[-1]))
        yield stopped
        if waited.ok and stopped.ok:  # Grid Engine keeps no record of what never ran.
            yield await _tried("record", lambda: self._recorded(str(handles[-1]["job_id"])))

    async def _until_running(self, name: str) -> str:
        began = monotonic()
        why = "the queue does not show it to the hub's account"
        while monotonic() - began < self._queue_seconds:
            for seen in (await self._spawner.survey()).sightings:
                if seen.name != name:
                    continue
                if seen.end is not None:
                    raise SpawnerError(f"the job ended at once: {seen.end} {seen.end.detail}")
                if seen.node:
                    return f"on {seen.node} after {monotonic() - began:.0f} s"
                why = f"{seen.reason.code}: {seen.reason.words}" if seen.reason else ""
            await anyio.sleep(min(_QUEUE_PAUSE, self._queue_seconds))
        raise SpawnerError(f"the job still waits after {self._queue_seconds:g} s: {why}")

    async def _from_node(self, name: str, handle: Mapping[str, Any]) -> AsyncIterator[Finding]:
        """Give what the node says, and go there when it says where."""
        began = monotonic()
        told: set[str] = set()
        while monotonic() - began < _NODE_SECONDS and _LAST.isdisjoint(told):
            log = await self._spawner.log_tail(name, handle, lines=100)
            for line in log.splitlines():
                said = read_finding(line)
                if said is None or said.check in told:
                    continue
                told.add(said.check)
                yield _judged(said)
                if said.check == "port" and said.ok:
                    visit = partial(self._visit, name, handle, said)
                    yield await _tried("hub-to-node", visit)
            await anyio.sleep(1)
        if _LAST.isdisjoint(told):
            words = f"the job said nothing more within {_NODE_SECONDS:.0f} s"
            yield Finding(check="port", ok=False, words=words)

    async def _visit(self, name: str, handle: Mapping[str, Any], said: "Said") -> str:
        claim = Claim(job_id=str(handle["job_id"]), host=said.host, port=said.port)
        url = (await self._spawner.check_claim(name, [handle], claim)).url
        challenge = secrets.token_hex(16)
        with anyio.fail_after(_VISIT_SECONDS):
            heard = await _answer_at(url, f"GET /{challenge} HTTP/1.1\r\nHost: job\r\n\r\n")
        proof = hmac.new(
            self._code.encode(), b"perijove challenge " + challenge.encode(), hashlib.sha256
        )
        if proof.hexdigest().encode() not in heard:
            raise SpawnerError(f"somebody else answers at {url}")
        return url

    async def _stop(self, name: str, handle: Mapping[str, Any]) -> str:
        await self._spawner.stop(name, handle, grace=5)
        return "it is gone"

    async def _recorded(self, job_id: str) -> str:
        """Wait until accounting has the job: without it nobody learns how theirs ended."""
        latest = monotonic() + _RECORD_SECONDS
        while (end := await self._spawner.find_record(job_id)) is None:
            if monotonic() >= latest:
                raise SpawnerError(f"nothing of job {job_id} within {_RECORD_SECONDS:.0f} s")
            await anyio.sleep(_QUEUE_PAUSE)
        return f"{end.cause}"

    def _spec(self, name: str) -> LaunchSpec:
        return LaunchSpec(
            launch_id=name,
            name=name,
            installation=self._spawner.installation,
            user_name=self._user,
            server_name="doctor",
            command=self._spawner.command,
            environment={"JUPYTERHUB_API_URL": self._api_url},
            prefix="/",
            resources=_TINY,
            options={"examine": True},
            code=self._code,
        )

    def _name(self) -> str:
        return platform_name(self._spawner.installation)


_TINY: Final = Resources(cpu=1, memory_bytes=512 * 2**20, time_seconds=_JOB_SECONDS)


# --- what the node says -----------------------------------------------------------------------


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """A finding as the node writes it (`agent.doctor`), checked as it is read."""

    check: str
    ok: bool
    words: str = ""
    code: str = ""
    host: str = ""
    port: int = 0


def read_finding(line: str) -> Said | None:
    """
    Return the finding in a line of the job's output; None where there is none.

    The job is the person's, and so is what it prints: who runs the doctor may be root.
    """
    if not line.startswith(MARK):
        return None
    try:
        said = msgspec.json.decode(line.removeprefix(MARK), type=Said)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return None
    if said.check not in _CHECKS:
        return None
    return msgspec.structs.replace(said, words=said.words[:_LONGEST], code=said.code[:_LONGEST])


def _judged(said: Said) -> Finding:
    """Return a finding of the node, with what can only be judged here."""
    if said.check == "command" and said.ok and not _is_new_enough(said.words):
        words = f"{said.words}: 4.0 or newer is needed"
        return Finding(check="version", ok=False, words=words)
    return Finding(check=said.check, ok=said.ok, words=said.words, code=said.code)


async def _answer_at(url: str, request: str) -> bytes:
    """Return the beginning of what answers `request` at ``http://address:port``."""
    parts = urlsplit(url)
    heard = b""
    async with await anyio.connect_tcp(parts.hostname or "", parts.port or 0) as stream:
        await stream.send(request.encode())
        with suppress(anyio.EndOfStream):
            while len(heard) < _ANSWER_BYTES:
                heard += await stream.receive()
    return heard


async def _tried(check: str, work: Callable[[], Awaitable[str]]) -> Finding:
    try:
        return Finding(check=check, ok=True, words=await work())
    except HubError as error:
        return Finding(check=check, ok=False, words=str(error), code=error.code)
    except (OSError, TimeoutError, anyio.BrokenResourceError) as error:
        return Finding(check=check, ok=False, words=f"{type(error).__name__}: {error}")


def _is_new_enough(version: str) -> bool:
    words = version.split()
    numbers = words[-1].split(".")[:2] if words else []
    if not all(number.isdigit() for number in numbers) or len(numbers) < 2:
        return True  # another program than the stock one: not for us to judge
    return tuple(map(int, numbers)) >= _OLDEST_SERVER
