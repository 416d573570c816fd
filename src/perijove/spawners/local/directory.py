"""
The file protocol of a launch directory, read and written by the hub.

The other side is `supervisor.py`; what each file proves is told in docs/design/spawners.md.
Everything here blocks: call it in a thread.
"""

import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self

from perijove.domain.launch import Cause, End
from perijove.kit.files import read_json, sync, write_json
from perijove.spawners.local.process import is_running, lock_holder

_HOST: Final = "127.0.0.1"  # As in `supervisor.py`.


class Condition(StrEnum):
    """What the files of a launch prove about it."""

    REQUESTED = "requested"  #: Written, and no supervisor has it yet.
    ALIVE = "alive"  #: A supervisor holds the lock.
    ENDED = "ended"  #: The supervisor wrote how it ended.
    LOST = "lost"  #: It was started, and the supervisor went without a word.
    CANCELLED = "cancelled"  #: Whoever wanted it stopped was faster than any supervisor.


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where the server was told to listen."""

    url: str
    port: int
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What the files said at one moment."""

    condition: Condition
    address: Address | None = None
    end: End | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What is known of a launch for good."""

    name: str
    launch_id: str
    installation: str
    owner: str

    def fields(self) -> dict[str, str]:
        """Return what is written of it."""
        return {
            "name": self.name,
            "launch_id": self.launch_id,
            "installation": self.installation,
            "owner": self.owner,
        }


class UnreadableLaunch(Exception):
    """The directory is there, but its label cannot be read: whose it is cannot be told."""


@dataclass(frozen=True, slots=True)
class LaunchDirectory:
    """One launch on disk."""

    path: Path

    @classmethod
    def create(cls, path: Path, label: Label, files: Mapping[str, object]) -> Self:
        """Make it as a whole, or find the one that is there already."""
        draft = path.with_name(f".new-{os.getpid()}-{secrets.token_hex(8)}")
        draft.mkdir(mode=0o700)
        try:
            content = {"label.json": label.fields()} | dict(files)
            for name, value in content.items():
                (draft / name).parent.mkdir(mode=0o700, exist_ok=True)
                write_json(draft / name, value)
            sync(draft)
            draft.rename(path)  # Fails when it exists: such a directory is never empty.
            sync(path.parent)
        except FileExistsError:
            shutil.rmtree(draft)
        except OSError:
            shutil.rmtree(draft, ignore_errors=True)
            if not path.is_dir():
                raise
        return cls(path)

    @staticmethod
    def sweep(folder: Path) -> None:
        """Remove what a crash left half made or half removed in the folder of directories."""
        for path in folder.glob(".gone-*"):
            shutil.rmtree(path, ignore_errors=True)
        for path in folder.glob(".new-*"):
            # A draft holds a token. One whose maker lives may still be somebody's work.
            if not is_running(int(path.name.split("-")[1])):
                shutil.rmtree(path, ignore_errors=True)

    @property
    def exists(self) -> bool:
        """Tell whether it has not been taken away."""
        return (self.path / "label.json").exists()

    def label(self) -> Label:
        """
        Return who it belongs to.

        Raises `FileNotFoundError` when the directory is not there, and `UnreadableLaunch` when
        it is and cannot be understood.
        """
        try:
            return Label(**read_json(self.path / "label.json"))
        except (OSError, ValueError, TypeError) as error:
            if isinstance(error, FileNotFoundError) and not self.path.exists():
                raise
            raise UnreadableLaunch(str(self.path)) from error

    def look(self) -> View | None:
        """Return what the files prove; None when the directory is being taken away."""
        # The order is the proof. The supervisor takes the lock, then writes `started`; it writes
        # the end, then lets go of the lock. So: started, and then nobody at the lock, means that
        # an end that is not there now will never be.
        started = self._since("started")
        if self.holder() is not None:
            view = View(condition=Condition.ALIVE, address=self._address(), since=started)
        else:
            view = self._look_at_dead(started)
        return view if self.exists else None

    def _look_at_dead(self, started: datetime | None) -> View:
        try:
            outcome = read_json(self.path / "end.json")
        except FileNotFoundError:
            if started is not None:
                end = End(cause=Cause.UNKNOWN, reason="supervisor-lost")
                return View(condition=Condition.LOST, end=end, since=started)
            if (self.path / "cancelled").exists():
                return View(condition=Condition.CANCELLED, end=never_started("cancelled"))
            return View(condition=Condition.REQUESTED)
        except (OSError, ValueError):
            return View(condition=Condition.ENDED, end=End(cause=Cause.UNKNOWN))
        return View(
            condition=Condition.ENDED,
            end=end_of(outcome),
            since=instant_of(outcome.get("ended_at")),
        )

    def holder(self) -> int | None:
        """Return the id of the supervisor's process while it lives."""
        return lock_holder(self.path / "lock")

    def cancel(self, grace: float) -> None:
        """Make sure that no supervisor starts anything any more, and tell one how long to wait."""
        write_json(self.path / "cancelled", {"grace": grace})
        sync(self.path)
        (self.path / "spec.json").unlink(missing_ok=True)

    def output(self, limit: int) -> bytes:
        """Return at most about `limit` bytes of what the server wrote: the last ones."""
        tail = b"".join(_read(self.path / name, limit) for name in ("log.tail.1", "log.tail"))
        if len(tail) >= limit:
            return tail[-limit:]
        head = _read(self.path / "log", limit - len(tail))
        return head + (b"\n[...]\n" if tail else b"") + tail

    def remove(self) -> None:
        """Take it away: at once for everyone who looks, then file by file."""
        trash = self.path.with_name(f".gone-{secrets.token_hex(8)}")
        try:
            self.path.rename(trash)
        except FileNotFoundError:
            return
        shutil.rmtree(trash, ignore_errors=True)

    def _address(self) -> Address | None:
        try:
            return address_of(read_json(self.path / "address.json"))
        except (OSError, ValueError):
            return None

    def _since(self, mark: str) -> datetime | None:
        try:
            return instant_of(read_json(self.path / mark).get("at")) or datetime.now(UTC)
        except FileNotFoundError:
            return None
        except ValueError:
            return datetime.now(UTC)  # That it is there is what counts.


def never_started(reason: str) -> End:
    """Return the end of what was not started."""
    return End(cause=Cause.NEVER_STARTED, reason=reason)


def end_of(outcome: Mapping[str, Any]) -> End:
    """Turn a supervisor's words into the evidence of an end."""
    if outcome.get("failure"):
        return never_started(str(outcome["failure"]))
    if outcome.get("over_limit") is True:
        return End(cause=Cause.OUT_OF_MEMORY, code=9)
    if isinstance(outcome.get("signal"), int):
        # Only a hint: the kernel killed somebody for memory at about that time.
        reason = "maybe-out-of-memory" if outcome.get("out_of_memory") else ""
        return End(cause=Cause.SIGNAL, code=outcome["signal"], reason=reason)
    if isinstance(outcome.get("exit"), int):
        return End(cause=Cause.EXITED, code=outcome["exit"])
    return End(cause=Cause.UNKNOWN)


def address_of(words: Mapping[str, Any]) -> Address | None:
    """Return where a supervisor says that it told its server to listen."""
    port, pid = words.get("port"), words.get("pid")
    if not isinstance(port, int) or not isinstance(pid, int) or not 0 < port < 65536:
        return None
    return Address(url=f"http://{_HOST}:{port}", port=port, pid=pid)


def instant_of(seconds: object) -> datetime | None:
    """Return the time that a file gives in seconds of the epoch, if that can be one."""
    if isinstance(seconds, (int, float)):
        with suppress(ValueError, OverflowError, OSError):
            return datetime.fromtimestamp(seconds, UTC)
    return None


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - limit, 0))
            return file.read(limit)
    except FileNotFoundError:
        return b""
