"""What stays of a launch after it was removed."""

import os
from pathlib import Path

import pytest

from perijove.domain.launch import Cause, End
from perijove.spawners.archive import Archive

END = End(cause=Cause.EXITED, code=3)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Give an empty archive."""
    archive = Archive(tmp_path)
    archive.prepare()
    return archive


def test_it_tells_what_is_over(archive: Archive) -> None:
    """An end is found again; what has none is not over."""
    archive.close("pj-1", END, b"bye\n")

    assert archive.find_end("pj-1") == END
    assert archive.output("pj-1") == b"bye\n"
    assert archive.find_end("pj-2") is None
    assert archive.output("pj-2") == b""


def test_what_was_only_cancelled_never_started(archive: Archive) -> None:
    """Before more is known, a launch that was stopped never started; evidence replaces that."""
    archive.close("pj-1")
    assert archive.find_end("pj-1") == End(cause=Cause.NEVER_STARTED, reason="cancelled")

    archive.close("pj-1", END)
    archive.close("pj-1")

    assert archive.find_end("pj-1") == END


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"cause": "boredom"}', '{"cause": "exited", "x": 1}']
)
def test_damaged_record_is_still_an_end(archive: Archive, content: str) -> None:
    """That a launch is over is known by the file, not by what is in it."""
    archive.close("pj-1", END)
    (archive.root / "ended" / "pj-1.json").write_text(content)

    assert archive.find_end("pj-1") == End(cause=Cause.UNKNOWN)


def test_old_things_are_dropped(archive: Archive) -> None:
    """A week after the end nothing is kept."""
    archive.close("pj-1", END, b"old")
    archive.close("pj-2", END, b"new")
    for path in (archive.root / "ended/pj-1.json", archive.root / "logs/pj-1.log"):
        os.utime(path, (1, 1))

    archive.prune()

    assert (archive.find_end("pj-1"), archive.output("pj-1")) == (None, b"")
    assert (archive.find_end("pj-2"), archive.output("pj-2")) == (END, b"new")


def test_logs_are_limited_in_number(archive: Archive) -> None:
    """Of very many logs the newest are kept; the ends are kept all the same."""
    latest = 4_000_000_000
    for number in range(205):
        archive.close(f"pj-{number}", END, b"x")
        os.utime(archive.root / f"logs/pj-{number}.log", (latest, latest + number))

    archive.prune()

    assert {path.stem for path in (archive.root / "logs").iterdir()} == {
        f"pj-{number}" for number in range(5, 205)
    }
    assert archive.find_end("pj-0") == END


def test_it_keeps_itself_small(archive: Archive) -> None:
    """A hub that is not restarted for months does not fill its disk with the logs of the past."""
    for number in range(450):
        archive.close(f"pj-{number}", END, b"x")

    assert len(list((archive.root / "logs").iterdir())) <= 400
    assert archive.find_end("pj-0") == END
