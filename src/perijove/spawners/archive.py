"""
What stays of a launch after it was removed: that it is over, how it ended, its last output.

That it is over must be known for as long as a late `start` of the same name could come. Files
are dropped by age and number. Everything here blocks: call it in a thread.
"""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from perijove.domain.launch import Cause, End
from perijove.kit.files import read_json, sync, write_json

_KEPT_SECONDS: Final = 7 * 86400
_KEPT_LOGS: Final = 200
_LOG_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Archive:
    """The folders ``ended`` and ``logs`` of a spawner."""

    root: Path

    def prepare(self) -> None:
        """Make the folders."""
        for folder in (self._ended, self._logs):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def close(self, name: str, end: End | None = None, output: bytes = b"") -> None:
        """Record, durably, that `name` is over; without `end` nothing recorded before is lost."""
        file = self._ended / f"{name}.json"
        if end is None and file.exists():
            return
        if output:
            self._keep_log(name, output[-_LOG_BYTES:])
        end = end or End(cause=Cause.NEVER_STARTED, reason="cancelled")
        words = {"cause": end.cause, "code": end.code, "reason": end.reason, "detail": end.detail}
        write_json(file, words)
        sync(self._ended)
        if sum(1 for _ in self._logs.iterdir()) > 2 * _KEPT_LOGS:
            self.prune()

    def find_end(self, name: str) -> End | None:
        """Return how `name` ended; None when it is not over."""
        try:
            words = read_json(self._ended / f"{name}.json")
            return End(**words | {"cause": Cause(words["cause"])})
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):
            return End(cause=Cause.UNKNOWN)

    def output(self, name: str) -> bytes:
        """Return the last output of what was removed."""
        with suppress(FileNotFoundError):
            return (self._logs / f"{name}.log").read_bytes()
        return b""

    def prune(self) -> None:
        """Drop what is too old, and the oldest logs when there are too many."""
        oldest = time.time() - _KEPT_SECONDS
        _drop(self._ended, oldest)
        logs = sorted((changed_at for changed_at, _ in _aged(self._logs)), reverse=True)
        _drop(self._logs, max(oldest, logs[_KEPT_LOGS - 1] if len(logs) > _KEPT_LOGS else 0.0))

    def _keep_log(self, name: str, output: bytes) -> None:
        file = os.open(self._logs / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(file, "wb") as stream:
            stream.write(output)

    @property
    def _ended(self) -> Path:
        return self.root / "ended"

    @property
    def _logs(self) -> Path:
        return self.root / "logs"


def _drop(folder: Path, oldest: float) -> None:
    for changed_at, path in _aged(folder):
        if changed_at < oldest:
            path.unlink(missing_ok=True)


def _aged(folder: Path) -> Iterator[tuple[float, Path]]:
    """Yield files with the time of their last change; others may remove some meanwhile."""
    for entry in os.scandir(folder):
        with suppress(FileNotFoundError):
            yield entry.stat().st_mtime, Path(entry)
