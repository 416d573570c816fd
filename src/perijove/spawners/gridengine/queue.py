"""
Reading ``qstat``: the queue of everybody, and why single jobs in it wait.

A busy cell's queue is tens of megabytes of XML of which a handful of jobs matters. A ``<`` is
never part of anybody's text in it (see `markup`), so the listing is cut at its tags first, and
only the jobs in question are parsed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Final

from perijove.domain.errors import SpawnerTransient
from perijove.domain.launch import Reason
from perijove.spawners.batch.scheduler import Command, Job, Result
from perijove.spawners.contract import Phase
from perijove.spawners.gridengine import messages
from perijove.spawners.gridengine.markup import Element, parse, text_of
from perijove.spawners.gridengine.values import (
    first_line,
    is_nothing,
    read_count,
    read_duration,
    read_instant,
)

NEW: Final = timedelta(seconds=60)
"""How long a job without a reason is called just submitted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One job as the queue lists it."""

    id: str
    name: str
    """Complete: ``-r`` prints it apart from the column that some versions cut off."""
    user: str
    state: str
    """Grid Engine's letters: ``qw``, ``hqw``, ``Eqw``, ``t``, ``r``, ``s``, ``dr``, …"""
    is_pending: bool
    is_over: bool
    """One of the last jobs that ended (``z``): it has left the queue."""
    host: str
    queue: str
    project: str
    slots: int
    requests: Mapping[str, str]
    waits_for: str
    """Ids of the jobs that must end first."""
    submitted_at: datetime | None
    started_at: datetime | None

    @property
    def phase(self) -> Phase:
        """What the letters come to; those of newer versions change nothing."""
        if self.is_pending:
            return Phase.HELD if {"E", "h"} & set(self.state) else Phase.PENDING
        return Phase.SUSPENDED if {"s", "S", "T"} & set(self.state) else Phase.RUNNING

    @property
    def is_being_deleted(self) -> bool:
        """Somebody asked for its end."""
        return "d" in self.state

    @property
    def ends_at(self) -> datetime | None:
        """When its ``h_rt`` is over; known only for what asked for one and runs."""
        seconds = read_duration(self.requests.get("h_rt", ""))
        if self.started_at is None or seconds is None:
            return None
        try:
            return self.started_at + timedelta(seconds=seconds)
        except OverflowError:
            return None


@dataclass(frozen=True, slots=True)
class Listing:
    """The whole queue at one moment, as ``qstat -u '*' -s prsz -r -xml`` prints it."""

    text: str
    zone: tzinfo | None

    def named(self, prefix: str) -> list[Entry]:
        """Return the jobs whose name begins with `prefix`, those that are over among them."""
        # Both elements that may hold the name end so: JB_name and full_job_name.
        found = self._entries(f"_name>{prefix}")
        return [entry for entry in found if entry.name.startswith(prefix)]

    def of_user(self, user_name: str) -> list[Entry]:
        """Return one person's jobs that are not over."""
        found = self._entries(f"<JB_owner>{user_name}</JB_owner>")
        return [entry for entry in found if entry.user == user_name and not entry.is_over]

    def _entries(self, mark: str) -> Iterator[Entry]:
        wanted = (block for block in self.text.split("<job_list")[1:] if mark in block)
        jobs = "".join(f"<job_list{each.partition('</job_list>')[0]}</job_list>" for each in wanted)
        for element in parse(f"<jobs>{jobs}</jobs>"):
            yield _read_entry(element, self.zone)


def read_listing(result: Result, zone: tzinfo | None) -> Listing:
    """
    Return the queue; times without a zone are of `zone`.

    Raises `SpawnerTransient` unless it is complete: what is missing in half a list may exist.
    """
    text = result.stdout
    if result.status != 0:
        raise SpawnerTransient(f"qstat: {first_line(result.stderr) or f'exit {result.status}'}")
    if "<job_info" not in text[:500] or not text.rstrip().endswith("</job_info>"):
        raise SpawnerTransient(f"qstat's answer is no complete list: {first_line(text)!r}")
    return Listing(text, zone)


def _read_entry(block: Element, zone: tzinfo | None) -> Entry:
    queue, _, host = text_of(block, "queue_name").partition("@")
    asked = {each.get("name", ""): (each.text or "").strip() for each in block.iter("hard_request")}
    return Entry(
        id=text_of(block, "JB_job_number"),
        name=text_of(block, "full_job_name") or text_of(block, "JB_name"),
        user=text_of(block, "JB_owner"),
        state=text_of(block, "state"),
        is_pending=block.get("state") == "pending",
        is_over=block.get("state") == "zombie",
        host=host,
        queue=queue or text_of(block, "hard_req_queue"),
        project=text_of(block, "JB_project"),
        slots=read_count(text_of(block, "slots")) or 1,
        requests=asked,
        waits_for=text_of(block, "predecessor_jobs"),
        submitted_at=read_instant(text_of(block, "JB_submission_time"), zone),
        started_at=read_instant(text_of(block, "JAT_start_time"), zone),
    )


# --- why it waits ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What ``qstat -j`` says of one job."""

    user: str = ""
    errors: tuple[str, ...] = ()
    """Why it is in error (``Eqw``)."""
    messages: tuple[str, ...] = ()
    """The scheduler's messages about it, those about all jobs last."""
    is_held_by_owner: bool = True
    """False: an operator or the system holds it, and the owner cannot release it."""


def details_of(job_ids: Sequence[str]) -> Command:
    """Return the command that tells the details of these jobs."""
    return ["qstat", "-xml", "-j", ",".join(job_ids)]


def read_details(result: Result) -> dict[str, Details]:
    """Return the details of each job in ``qstat -xml -j IDS``; unknown ids are not in it."""
    if result.status != 0:
        raise SpawnerTransient(f"qstat -j: {first_line(result.stderr)}")
    root = parse(result.stdout)
    told: dict[str, list[str]] = {}
    for group in root.iter("SME_message_list"):
        for element in group:
            message = text_of(element, "MES_message")
            for number in element.iter("ULNG_value"):
                told.setdefault((number.text or "").strip(), []).append(message)
    general = [
        text_of(element, "MES_message")
        for group in root.iter("SME_global_message_list")
        for element in group
    ]
    return {
        text_of(job, "JB_job_number"): Details(
            user=text_of(job, "JB_owner"),
            errors=tuple(text for each in job.iter("QIM_message") if (text := each.text or "")),
            messages=(*told.get(text_of(job, "JB_job_number"), ()), *general),
        )
        for job in root.iterfind("djob_info/element")
    }


def read_ids(result: Result, user_name: str) -> list[str]:
    """Return a person's ids in ``qstat -xml -j NAME``, oldest first; raises `SpawnerTransient`."""
    own = (job_id for job_id, each in read_details(result).items() if each.user == user_name)
    return sorted(filter(str.isdecimal, own), key=int)


def job_of(entry: Entry, details: Details | None, now: datetime) -> Job:
    """Return what the batch layer knows of a job, with the reason while it waits."""
    is_active = not entry.is_pending
    return Job(
        id=entry.id,
        name=entry.name,
        user=entry.user,
        phase=entry.phase,
        reason=reason_of(entry, details, now),
        nodes=(entry.host,) if is_active and entry.host else (),
        submitted_at=entry.submitted_at,
        started_at=entry.started_at if is_active else None,
        ends_at=entry.ends_at if is_active else None,
    )


def reason_of(entry: Entry, details: Details | None, now: datetime) -> Reason | None:
    """Return why a job does not run; None for one that does."""
    if entry.phase is Phase.RUNNING:
        return None
    if entry.phase is Phase.SUSPENDED:
        return Reason(code="other", params={"state": entry.state}, words=entry.state)
    if "E" in entry.state:
        errors = details.errors if details else ()
        return Reason(code="job-error", words="\n".join(errors) or entry.state)
    if "h" in entry.state:
        return _hold(entry, details)
    return _wait(entry, details, now)


def _wait(entry: Entry, details: Details | None, now: datetime) -> Reason:
    if details is not None:
        # What the scheduler does not object to could run: it is behind others in line.
        return messages.waiting_reason(details.messages) or Reason(code="priority")
    is_new = entry.submitted_at is not None and now - entry.submitted_at < NEW
    return Reason(code="just-submitted" if is_new else "other", words=entry.state)


def _hold(entry: Entry, details: Details | None) -> Reason:
    if not is_nothing(entry.waits_for):
        return Reason(code="dependency", words=entry.waits_for)
    is_own = details is None or details.is_held_by_owner
    return Reason(code="held-by-user" if is_own else "held-by-admin", words=entry.state)
