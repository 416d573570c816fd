"""The picture of a launch that waits: every fact in plain words, and nothing a terminal obeys."""

import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from perijove.cli.waiting import Picture, Watched, clean, picture, span
from perijove.client.models import Event, Launch, Other, Reason, Room, Said, Usual, Wait, Window

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def _at(instant: datetime) -> str:
    return f"{instant.astimezone():%a %d %b %H:%M}"


def drawn(watched: Watched, now: datetime = NOON) -> str:
    """Return the picture as text in one line."""
    console = Console(file=io.StringIO(), width=100)
    with console.capture() as capture:
        console.print(picture(watched, "gpu", now))
    return " ".join(capture.get().split())


def test_what_surrounds_a_wait_is_shown() -> None:
    """What is usual, what is free, what of one's own stands in the way, what the site asks."""
    launch = Launch(
        id="lch_1",
        status="queued",
        entered_at=NOON - timedelta(minutes=5),
        expected_start=NOON + timedelta(hours=2),
        estimated_at=NOON - timedelta(seconds=40),
        said=Said(state="In the queue", text="Others come first.", advice="Ask for less."),
        reason=Reason(
            code="priority", words="(Priority) \x1b[2J", since=NOON - timedelta(seconds=130)
        ),
        resources={"cpu": 1, "gpu": 2, "memory_bytes": 2**33, "time_seconds": 5400},
    )
    wait = Wait(
        usual=Usual(wait_seconds=260, starts=12, days=14),
        room=Room(as_of=NOON - timedelta(minutes=1), cpus=12, of_cpus=64, gpus=0, of_gpus=4),
        as_of=NOON - timedelta(minutes=1),
        fits_now={"cpu": 4, "memory": 2**32},
        reservation=Window(name="course", starts_at=NOON, ends_at=NOON + timedelta(hours=2)),
        maintenance=Window(starts_at=NOON, ends_at=NOON + timedelta(days=1)),
        fits_before=7200,
        own_jobs=[Other(name="fit", state="running", interactive=True, cancel="scancel 7")],
        own_servers=[Other(name="", status="ready")],
        actions=["release"],
        asked_at=NOON,
        silent_since=NOON - timedelta(minutes=3),
    )
    shown = drawn(Watched(launch, wait=wait, away_since=NOON - timedelta(seconds=7)))
    for words in (
        "In the queue gpu for 5 min",
        "Hub does not answer, 7 s now; what you asked for goes on",
        "Why Others come first. Ask for less.",
        "Its words (Priority) \ufffd[2J",
        "(in 2 h, estimated 40 s ago)",
        "Out of touch the computing system does not answer, 3 min now",
        "Usual wait about 4 min 20 s (12 starts in 14 days)",
        "Free now 12 of 64 cores, 0 of 4 GPUs (1 min ago)",
        "For this reason 2 min 10 s now",
        "Fits now with no more than 4 cores · 4 GiB",
        f"Reservation course, {_at(NOON)} to {_at(NOON + timedelta(hours=2))}",
        f"Maintenance {_at(NOON)} to {_at(NOON + timedelta(days=1))}; "
        "with no more than 2 h it is over before",
        "Also yours (default) ready, fit running, interactive [scancel 7] (1 min ago)",
        "Ctrl-C, then k, to go on.",
        "You hold it Ctrl-C, then r, to release it",
        "Asked for 1 core · 2 GPUs · 8 GiB · 1 h 30 min",
    ):
        assert words in shown


@pytest.mark.parametrize(("height", "has_steps"), [(24, True), (12, False), (6, False)])
def test_a_low_terminal_shows_what_matters_most(height: int, has_steps: bool) -> None:
    """What would leave the screen at its top could not be taken back, so it is not drawn."""
    text = "You are next, but nothing large enough is free yet."
    launch = Launch(
        id="lch_1", status="queued", entered_at=NOON, said=Said(state="In the queue", text=text)
    )
    events = [Event(seq=seq, at=NOON, code="queued", text="Handed over") for seq in range(9)]
    shown = Picture("gpu")
    shown.take(Watched(launch, events=events))
    console = Console(file=io.StringIO(), width=60, height=height)
    with console.capture() as capture:
        console.print(shown)
    lines = capture.get().splitlines()
    assert len(lines) < height
    drawn = " ".join(capture.get().split())
    assert "In the queue gpu" in drawn
    assert "You are next" in drawn
    assert ("Handed over" in drawn) is has_steps


def test_a_start_that_does_not_wait_promises_nothing() -> None:
    """No estimate is shown where nothing is in a queue."""
    launch = Launch(id="lch_1", status="starting", entered_at=NOON, node="cpu1")
    shown = drawn(Watched(launch))
    assert "Runs on cpu1" in shown
    assert "Expected start" not in shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3661, "1 h 1 min"),
     (90061, "1 d 1 h")],
)  # fmt: skip
def test_a_length_of_time_has_two_units_at_most(seconds: float, text: str) -> None:
    """As people say it."""
    assert span(timedelta(seconds=seconds)) == text


def test_no_text_from_elsewhere_is_a_command() -> None:
    """Neither escape sequences nor lines of its own."""
    assert clean("a\x1b[31m\r\nb\u202e\tc") == "a\ufffd[31m b\ufffd c"
