"""
How a job says where its server is, and gets its token (anchors 4.4.4, failure 5.8).

The wrapper of a job proves with the launch's code that it belongs to it, the scheduler that its
job does and that its host is a node of that job, and an answer on the very port that the hub
reaches it there. Only then the token is given out; and the address is only used when the
wrapper has seen its own server listen at it.

The same run of a job (the same nonce) always gets the same answer, whatever was lost on the
way. A job that its scheduler runs again comes with another nonce: the token of the run before
is taken back. Of two jobs of one launch the first one counts.
"""

import hmac
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import anyio
import anyio.abc
from sqlalchemy import Connection, exists, select

from perijove.db import launches as rows
from perijove.db.core import bound
from perijove.db.events import record
from perijove.db.notify import notify
from perijove.db.registrations import (
    Registered,
    find_registration,
    mark_handle,
    mark_listening,
    save_registration,
)
from perijove.db.routes import remove_routes
from perijove.db.tables import launches, tokens
from perijove.domain.asking import Asking
from perijove.domain.errors import (
    Conflict,
    Forbidden,
    Gone,
    LeaseLost,
    SpawnerRejected,
    SpawnerTransient,
)
from perijove.domain.launch import Cause, End, Launch, Status, Wanted
from perijove.domain.reasons import CANNOT
from perijove.kit.ids import hash_secret
from perijove.services.hub import Hub
from perijove.services.launches import mark_end
from perijove.services.specs import (
    is_registration_code,
    issue_server_token,
    revoke_server_token,
    server_token,
)
from perijove.services.throttle import attempt_of, count_attempt
from perijove.spawners.contract import Claim, Place, Registers

WRAPPER: Final = Asking(actor="job")

_IN_QUEUE: Final = (Status.QUEUED, Status.HELD)
T = TypeVar("T")

_LOOKS: Final = 10
_CLAIM_SECONDS: Final = 15.0
_CHALLENGE_SECONDS: Final = 4.0
_PROOF_LIMIT: Final = 4096
_MOST_PARAMS: Final = 10
_LONGEST_PARAM: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of one job, and what it proves itself with."""

    launch_id: str
    code: str = field(repr=False)
    nonce: str = field(repr=False)
    job_id: str
    address: str = ""
    """Where the request came from; it only slows down who guesses."""

    @property
    def nonce_hash(self) -> str:
        """What is stored of the nonce."""
        return hash_secret(self.nonce)


# --- registering ------------------------------------------------------------------------------


async def register(
    hub: Hub, run: Run, *, host: str, port: int, wrapper: str = ""
) -> Mapping[str, str]:
    """
    Take a job's claim to listen at `host` and `port`; return its server's further environment.

    Raises `Forbidden` for a wrong code, `Gone` when nobody wants the launch any more, `Conflict`
    for a second job, `SpawnerRejected` when the claim is not believed or nobody of the job
    answers there, `SpawnerTransient` and `Throttled` when it may be tried again.
    """
    await _prove(hub, run)
    launch, known = await hub.database.read(bound(_admit, run))
    place = await _check_claim(hub, launch, Claim(job_id=run.job_id, host=host, port=port))
    url = place.url
    if known is None or (known.nonce_hash, known.url) != (run.nonce_hash, url):
        try:
            await _challenge(url, run.code)
        except SpawnerRejected:
            await _slow_down(hub, f"launch {run.launch_id}", run.address)
            raise

    def unit(connection: Connection) -> str:
        return _accept(hub, connection, run, place, host=host, port=port, wrapper=wrapper)

    token = await _written(hub, unit)
    hub.due.ring()
    hub.events.strike(run.launch_id)
    hub.routes.strike()
    return {"JUPYTERHUB_API_TOKEN": token}


def _accept(
    hub: Hub, connection: Connection, run: Run, place: Place, *, host: str, port: int, wrapper: str
) -> str:
    """Write the registration down, unless it is already; returns the token of this run."""
    launch, known = _admit(connection, run)
    if known is not None and (known.nonce_hash, known.url) == (run.nonce_hash, place.url):
        return _token_of(hub, connection, launch)
    now = hub.clock.now()
    if known is not None and known.nonce_hash != run.nonce_hash:
        launch = _begin_anew(hub, connection, launch)
    save_registration(
        connection,
        launch.id,
        job_id=run.job_id,
        nonce_hash=run.nonce_hash,
        host=host,
        port=port,
        url=place.url,
        wrapper=wrapper,
        registered_at=now,
    )
    handle = {"user": launch.user_name, "job_id": run.job_id}
    mark_handle(connection, launch.id, handle, now=now)
    params = {"job": run.job_id, "host": host, "port": port}
    record(connection, launch.id, "registered", params, asking=WRAPPER, now=now)
    if launch.status in _IN_QUEUE:
        # It runs: no need to wait until the queue is looked at again.
        launch = rows.change(
            connection,
            launch,
            now=now,
            status=Status.STARTING,
            reason=None,
            node=place.node or launch.node,
            due_at=now,
        )
        record(connection, launch.id, "starting", {}, asking=WRAPPER, now=now)
    return _token_of(hub, connection, launch)


def _begin_anew(hub: Hub, connection: Connection, launch: Launch) -> Launch:
    """Forget the run before this one: its address, its route, its token."""
    now = hub.clock.now()
    if remove_routes(connection, launch.id, now=now):
        notify(connection, "routes")
    revoke_server_token(connection, launch)
    # It waited again in between, though the queue may not have been looked at meanwhile.
    status = launch.status if launch.status is Status.SUBMITTED else Status.QUEUED
    launch = rows.change(
        connection,
        launch,
        now=now,
        status=status,
        generation=launch.generation + 1,
        url="",
        due_at=now,
    )
    issue_server_token(hub, connection, launch)
    record(connection, launch.id, "requeued", {}, asking=WRAPPER, now=now)
    return launch


def _token_of(hub: Hub, connection: Connection, launch: Launch) -> str:
    """Return the token that was issued, although the newest key may be a newer one by now."""
    for key_id in hub.keyring.keys:
        value = hub.keyring.server_token(launch.id, launch.generation, key_id=key_id)
        if connection.scalar(select(exists().where(tokens.c.hash == hash_secret(value)))):
            return value
    return server_token(hub, launch)


async def note_listening(hub: Hub, run: Run) -> None:
    """Use the registered address from now on: the job's own server listens there."""
    await _prove(hub, run)

    def unit(connection: Connection) -> None:
        launch, known = _admit(connection, run)
        if known is None or known.nonce_hash != run.nonce_hash:
            raise Conflict("this run of the job is not registered", code="not-registered")
        _use(hub, connection, launch, known.url)

    await _written(hub, unit)
    hub.due.ring()
    hub.events.strike(run.launch_id)


def _use(hub: Hub, connection: Connection, launch: Launch, url: str) -> None:
    """Write where the server is; whether it answers there is the reconciler's to see."""
    now = hub.clock.now()
    mark_listening(connection, launch.id, now=now)
    if launch.url == url:
        return
    values: dict[str, Any] = {"url": url, "heard_at": now, "due_at": now}
    record(connection, launch.id, "listening", {}, asking=WRAPPER, now=now)
    if launch.status in (*_IN_QUEUE, Status.STARTING):
        values |= {"status": Status.CONNECTING, "reason": None}
        record(connection, launch.id, "connecting", {}, asking=WRAPPER, now=now)
    rows.change(connection, launch, now=now, **values)
    notify(connection, "due")


async def set_port(hub: Hub, launch_id: str | None, port: int) -> None:
    """
    Take the port of a server that batchspawner's own program started, known by its token.

    Nothing but the port is believed; the host is the node that the scheduler says. The run that
    got the token stays the one that is registered: its wrapper still has to tell the end.
    """
    if launch_id is None:
        raise Forbidden("only a server may say where it listens", code="not-a-server")
    launch = await hub.database.read(bound(_wanted, launch_id))
    handles = await hub.database.read(bound(rows.list_handles, launch_id))
    job_id = next((str(each["job_id"]) for each in handles if "job_id" in each), "")
    if not launch.node or not job_id:
        raise SpawnerTransient("where the job runs is not known yet")
    place = await _check_claim(hub, launch, Claim(job_id=job_id, host=launch.node, port=port))

    def unit(connection: Connection) -> None:
        current = _wanted(connection, launch_id)
        known = find_registration(connection, launch_id)
        now = hub.clock.now()
        save_registration(
            connection,
            launch_id,
            job_id=job_id,
            nonce_hash=known.nonce_hash if known is not None and known.job_id == job_id else "",
            host=current.node,
            port=port,
            url=place.url,
            wrapper="batchspawner",
            registered_at=now,
        )
        mark_handle(connection, launch_id, {"user": current.user_name, "job_id": job_id}, now=now)
        _use(hub, connection, current, place.url)

    await _written(hub, unit)
    hub.due.ring()
    hub.events.strike(launch_id)


async def tell_outlook(hub: Hub, run: Run) -> float | None:
    """
    Return how many seconds a job has left, by what was last heard of its platform.

    None: no end is known. Raises `Gone` when nobody wants the launch any more.
    """
    await _prove(hub, run)
    launch, _ = await hub.database.read(bound(_admit, run))
    ends_at = launch.time_is_over_at()
    return None if ends_at is None else (ends_at - hub.clock.now()).total_seconds()


# --- tunnels ----------------------------------------------------------------------------------


async def admit_tunnel(hub: Hub, run: Run) -> str:
    """
    Return the name of the launch whose job dials in, which is all that a tunnel needs to know.

    Raises `Forbidden` for a wrong code, `Gone` when nobody wants the launch any more, `Conflict`
    for a job beside the one that is registered, `Throttled` when it may be tried again.
    """
    await _prove(hub, run)
    launch, _ = await hub.database.read(bound(_admit, run))
    return launch.name


def list_over(connection: Connection, launch_ids: Sequence[str]) -> Sequence[str]:
    """Return those of some launches that have ended, or were never."""
    live = set(
        connection.scalars(
            select(launches.c.id).where(
                launches.c.id.in_(launch_ids), launches.c.status != Status.ENDED
            )
        )
    )
    return [each for each in launch_ids if each not in live]


async def _written(hub: Hub, unit: Callable[[Connection], T]) -> T:
    """Run a unit, again when what was seen of its launch came in between (PostgreSQL only)."""
    for left in reversed(range(_LOOKS)):
        try:
            return await hub.database.write(unit)
        except LeaseLost:
            if not left:
                break
    raise SpawnerTransient("the launch changes too fast to be written to")


# --- who it is --------------------------------------------------------------------------------


async def _prove(hub: Hub, run: Run) -> None:
    """Raise `Forbidden` for a wrong code, and `Throttled` for too many of them."""
    if not is_registration_code(hub, run.launch_id, run.code):
        await _slow_down(hub, "wrong code", run.address)
        raise Forbidden("the code is not that of the launch", code="code-refused")


async def _slow_down(hub: Hub, name: str, address: str) -> None:
    """Count a failure. A right claim is never kept waiting for the wrong ones of others."""
    address = f"registration {address}"  # not the counter of those who sign in from there
    attempt = attempt_of(name, address)
    await hub.database.write(
        bound(count_attempt, attempt, name=name, address=address, now=hub.clock.now())
    )


def _wanted(connection: Connection, launch_id: str) -> Launch:
    """Return a launch that is to run; raises `Gone` for any other."""
    launch = rows.find_launch(connection, launch_id)
    if launch is None or launch.wanted is Wanted.END or launch.status is Status.ENDED:
        raise Gone("this launch has ended, or is to end", code="launch-over")
    return launch


def _admit(connection: Connection, run: Run) -> tuple[Launch, Registered | None]:
    """Return the launch and its registration; raises `Gone`, or `Conflict` for a second job."""
    launch = _wanted(connection, run.launch_id)
    known = find_registration(connection, launch.id)
    if known is not None and known.job_id != run.job_id:
        raise Conflict(f"job {known.job_id} runs this launch already", code="second-job")
    return launch, known


async def _check_claim(hub: Hub, launch: Launch, claim: Claim) -> Place:
    placed = hub.spawners.get(launch.spawner)
    if placed is None or not isinstance(placed.spawner, Registers):
        raise Conflict(f"spawner {launch.spawner} takes no registrations", code="not-registering")
    handles = await hub.database.read(bound(rows.list_handles, launch.id))
    try:
        with anyio.fail_after(_CLAIM_SECONDS):
            return await placed.spawner.check_claim(launch.name, handles, claim)
    except TimeoutError:
        raise SpawnerTransient("the platform did not say in time whose the job is") from None


async def _challenge(url: str, code: str) -> None:
    """Ask at `url` for a proof that the code is known there; raises `SpawnerRejected`."""
    parts = urlsplit(url)
    place = parts.netloc or "the end of its tunnel"
    challenge = secrets.token_hex(16)
    wanted = hmac.new(code.encode(), b"perijove challenge " + challenge.encode(), "sha256")
    words = "somebody else answers"
    try:
        with anyio.fail_after(_CHALLENGE_SECONDS):
            proof = await _ask(url, challenge)
        if hmac.compare_digest(proof, wanted.hexdigest().encode()):
            return
    except (OSError, anyio.BrokenResourceError) as error:  # a time-out is one too
        words = str(error) or "no answer in time"
    raise SpawnerRejected(
        f"the hub cannot reach the job at {place}: {words}",
        code="cannot-reach",
        host=parts.hostname or "",
        port=parts.port or 0,
    )


async def _connect(url: str) -> anyio.abc.ByteStream:
    if url.startswith("unix:"):
        return await anyio.connect_unix(url.removeprefix("unix:"))
    parts = urlsplit(url)
    return await anyio.connect_tcp(parts.hostname or "", parts.port or 0)


async def _ask(url: str, challenge: str) -> bytes:
    """Return the last line of the answer, read to a limit."""
    async with await _connect(url) as stream:
        await stream.send(
            f"GET /{challenge} HTTP/1.1\r\nHost: job\r\nConnection: close\r\n\r\n".encode()
        )
        answer = b""
        try:
            while len(answer) < _PROOF_LIMIT:
                answer += await stream.receive()
        except anyio.EndOfStream:
            pass
    return answer.rpartition(b"\n")[2]


# --- reports ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What a job reports: that it cannot start, a stage, a warning, or its end."""

    kind: str
    reason: str = ""
    words: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    usage: Mapping[str, Any] = field(default_factory=dict)
    """Of an end: exit, signal, out_of_memory, stop_asked, and what was used."""


async def take_report(hub: Hub, run: Run, message: Message) -> None:
    """
    Write a job's report down; what says that it is over is evidence of the end.

    That a run was asked to end says nothing of why: there the scheduler is the witness.
    """
    await _prove(hub, run)

    def unit(connection: Connection) -> None:
        launch, known = _admit(connection, run)
        if message.kind == "end" and (known is None or known.nonce_hash != run.nonce_hash):
            raise Conflict("this run of the job is not registered", code="not-registered")
        _write_report(hub, connection, launch, message)

    await _written(hub, unit)
    hub.due.ring()
    hub.events.strike(run.launch_id)


async def take_warning(hub: Hub, launch_id: str | None, *, reason: str, words: str) -> None:
    """
    Write down what a server that is known by its token has to do without, as a job reports it.

    Raises `Forbidden` for who is no server, `Gone` when nobody wants the launch any more.
    """
    if launch_id is None:
        raise Forbidden("only a server warns of itself", code="not-a-server")
    message = Message(kind="warning", reason=reason, words=words)

    def unit(connection: Connection) -> None:
        _write_report(hub, connection, _wanted(connection, launch_id), message)

    await _written(hub, unit)
    hub.events.strike(launch_id)


def _write_report(hub: Hub, connection: Connection, launch: Launch, message: Message) -> None:
    now = hub.clock.now()
    match message.kind:
        case "cannot":
            code = message.reason if message.reason in CANNOT else "wrapper-failed"
            end: End | None = End(cause=Cause.NEVER_STARTED, reason=code, detail=message.words)
        case "end":
            record(connection, launch.id, "usage", message.usage, asking=WRAPPER, now=now)
            end = _end_of(message.usage)
        case kind:
            params = {**_limited(message.params), "reason": message.reason}
            if message.words:
                params["words"] = message.words[:_LONGEST_PARAM]
            record(connection, launch.id, kind, params, asking=WRAPPER, now=now)
            end = None
    if end is not None:
        mark_end(connection, launch, end, asking=WRAPPER, now=now)


def _end_of(usage: Mapping[str, Any]) -> End | None:
    if usage.get("out_of_memory"):
        return End(cause=Cause.OUT_OF_MEMORY)
    if usage.get("stop_asked"):
        return None
    if usage.get("signal") is not None:
        return End(cause=Cause.SIGNAL, code=int(usage["signal"]))
    if usage.get("exit") is not None:
        return End(cause=Cause.EXITED, code=int(usage["exit"]))
    return None


def _limited(params: Mapping[str, Any]) -> Mapping[str, str]:
    """Return what an event keeps of a job's words."""
    kept = list(params.items())[:_MOST_PARAMS]
    return {name: str(value)[:_LONGEST_PARAM] for name, value in kept}
