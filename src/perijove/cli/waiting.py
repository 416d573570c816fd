"""
What a person sees of a launch on a terminal, while it starts and when it is decided.

On a terminal it is one picture that is kept up to date; elsewhere, a line for each change. A
hub that restarts meanwhile changes nothing of what was asked for: it is said and waited for.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any, Final, Protocol

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.padding import Padding
from rich.segment import Segment
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from perijove.client.errors import Refused, Unreachable
from perijove.client.hub import Hub
from perijove.client.models import Event, Launch, Other, Wait, Window
from perijove.kit.quantities import write_duration, write_number, write_size

_PER_SECOND: Final = 8
_QUICK: Final = 1.0
_SLOW: Final = 5.0
"""Seconds between two looks: at first, and when nothing has changed for a while."""
_PATIENT_AFTER: Final = 60.0
_STEPS: Final = 6
_OTHERS: Final = 4
_FOR_NOW: Final = frozenset({429, 500, 502, 503, 504})
"""Statuses of an answer after which the next one may be another."""
_QUIET: Final = frozenset({"reason", "routed", "end-wanted", "listening", "usage"})
_WAITS: Final = frozenset({"queued", "held"})


@dataclass(slots=True)
class Watched:
    """A launch, what happened to it, what surrounds it, and since when the hub is silent."""

    launch: Launch
    events: list[Event] = field(default_factory=list)
    wait: Wait = field(default_factory=Wait)
    away_since: datetime | None = None


class Shows(Protocol):
    """Shows what is known, each time something may have changed."""

    def __call__(self, watched: Watched) -> None:
        """Show it."""
        ...


def watch(
    hub: Hub,
    launch: Launch,
    *,
    until: Callable[[Launch], bool],
    show: Shows,
    seconds: float | None = None,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Launch:
    """Return the launch when `until` holds of it, or `seconds` have passed."""
    watched = Watched(launch)
    began = changed = clock()
    _look(hub, watched)
    while True:
        show(watched)
        if until(watched.launch) or (seconds is not None and clock() - began >= seconds):
            return watched.launch
        rest = _SLOW if clock() - changed > _PATIENT_AFTER else _QUICK
        if seconds is not None:
            rest = min(rest, max(0.0, began + seconds - clock()))
        pause(rest)
        before = (watched.launch, len(watched.events))
        _look(hub, watched)
        if before != (watched.launch, len(watched.events)):
            changed = clock()


def _look(hub: Hub, watched: Watched) -> None:
    try:
        watched.launch = hub.launch(watched.launch.id)
        after = watched.events[-1].seq if watched.events else 0
        watched.events += hub.events(watched.launch.id, after)
        if watched.launch.status in _WAITS:
            watched.wait = hub.wait(watched.launch.id)
        watched.away_since = None
    except (Unreachable, Refused) as error:
        # A proxy whose hub restarts, or a hub that is very busy, answers too.
        if isinstance(error, Refused) and error.status not in _FOR_NOW:
            raise
        watched.away_since = watched.away_since or datetime.now(UTC)


# --- showing it -------------------------------------------------------------------------------


@contextmanager
def on_terminal(console: Console, title: str) -> Iterator[Shows]:
    """Give what keeps one picture of a launch up to date."""
    picture = Picture(title)
    with Live(picture, console=console, refresh_per_second=_PER_SECOND, transient=True):
        yield picture.take


@contextmanager
def as_lines(console: Console) -> Iterator[Shows]:
    """Give what prints a line for each change."""
    last: list[str] = []

    def show(watched: Watched) -> None:
        line = _line(watched)
        if last != [line]:
            last[:] = [line]
            stamp = datetime.now().astimezone().strftime("%H:%M:%S")
            console.print(Text(f"{stamp}  {line}"), soft_wrap=True)

    yield show


def _line(watched: Watched) -> str:
    if watched.away_since is not None:
        return "The hub does not answer; what was asked for goes on."
    return sentences(watched.launch)


def sentences(launch: Launch) -> str:
    """Say in a line how it is with a launch, and why."""
    said = launch.said
    return clean(" ".join(part for part in (f"{said.state}.", said.text) if part != "."))


class Picture:
    """What `Live` draws: the time in it goes on by itself."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._watched: Watched | None = None
        self._spinner = Spinner("dots", style="cyan")

    def take(self, watched: Watched) -> None:
        """Draw this from now on."""
        self._watched = watched

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw what fits on the screen: lines that have left it cannot be taken back."""
        if self._watched is None:
            yield self._spinner
            return
        lines: list[list[Segment]] = []
        for has_steps in (True, False):
            now = datetime.now(UTC)
            drawn = picture(self._watched, self._title, now, self._spinner, has_steps=has_steps)
            lines = console.render_lines(drawn, options, pad=False)
            if len(lines) < console.height:
                break
        for line in lines[: console.height - 1]:
            yield from line
            yield Segment.line()


def picture(
    watched: Watched,
    title: str,
    now: datetime,
    spinner: RenderableType = "",
    *,
    has_steps: bool = True,
) -> RenderableType:
    """Return all that is known of a launch that starts."""
    launch = watched.launch
    head = Table.grid(padding=(0, 1))
    head.add_row(
        spinner,
        Text.assemble(
            (clean(launch.said.state), "bold"),
            ("  ", ""),
            (clean(title), "cyan"),
        ),
        Text(f"for {span(now - launch.entered_at)}", style="dim"),
    )
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for label, value in _facts(watched, now):
        facts.add_row(label, value)
    parts: list[RenderableType] = [Text(), head, Padding(facts, (1, 0, 0, 2))]
    if has_steps and (steps := _steps(watched)):
        parts.append(Padding(steps, (1, 0, 0, 2)))
    parts.append(Padding(Text("Ctrl-C: leave it waiting, or cancel it", style="dim"), (1, 0, 0, 2)))
    return Group(*parts)


def _facts(watched: Watched, now: datetime) -> Iterator[tuple[str, Text]]:
    launch = watched.launch
    if watched.away_since is not None:
        words = f"does not answer, {span(now - watched.away_since)} now; what you asked for goes on"
        yield "Hub", Text(words, style="yellow")
    if launch.said.text:
        yield "Why", Text(clean(launch.said.text))
    if launch.said.advice:
        yield "", Text(clean(launch.said.advice), style="dim")
    if launch.reason is not None and launch.reason.since is not None:
        yield "For this reason", Text(f"{span(now - launch.reason.since)} now")
    if launch.reason is not None and launch.reason.words:
        yield "Its words", Text(clean(launch.reason.words), style="italic")
    if launch.unknown_since is not None:
        yield "Out of sight", Text(f"for {span(now - launch.unknown_since)}", style="yellow")
    if launch.status in _WAITS:
        yield "Expected start", Text(_expected(launch, now))
    if launch.status in _WAITS:
        yield from _around(watched.wait, now)
    if asked := asked_for(launch):
        yield "Asked for", Text(asked)
    if launch.node:
        yield "Runs on", Text(clean(launch.node))


def _around(wait: Wait, now: datetime) -> Iterator[tuple[str, Text]]:
    if wait.silent_since is not None:
        words = f"the computing system does not answer, {span(now - wait.silent_since)} now"
        yield "Out of touch", Text(words, style="yellow")
    if wait.usual is not None:
        usual = span(timedelta(seconds=wait.usual.wait_seconds))
        words = f"about {usual} ({wait.usual.starts} starts in {wait.usual.days} days)"
        yield "Usual wait", Text(words)
    if room := wait.room:
        gpus = f", {room.gpus} of {room.of_gpus} GPUs" if room.of_gpus else ""
        words = f"{room.cpus} of {room.of_cpus} cores{gpus} ({span(now - room.as_of)} ago)"
        yield "Free now", Text(words)
    yield from _sooner(wait)
    others = [
        f"{each.name or '(default)'} {each.state or each.status}" for each in wait.own_servers
    ]
    others += [_job(each) for each in wait.own_jobs]
    if others:
        more = f" and {len(others) - _OTHERS} more" if len(others) > _OTHERS else ""
        age = f" ({span(now - wait.as_of)} ago)" if wait.own_jobs and wait.as_of else ""
        yield "Also yours", Text(clean(", ".join(others[:_OTHERS]) + more + age))
    if "release" in wait.actions:
        yield "You hold it", Text("Ctrl-C, then r, to release it", style="bold yellow")
    if wait.asked_at is not None:
        words = (
            "It has waited as long as your site allows without asking: Ctrl-C, then k, to go on."
        )
        yield "A question", Text(words, style="bold yellow")


def _sooner(wait: Wait) -> Iterator[tuple[str, Text]]:
    """Say what may let it start sooner, and when it cannot run at all."""
    if wait.fits_now:
        less = sizes({"cpu": wait.fits_now.get("cpu"), "memory_bytes": wait.fits_now.get("memory")})
        yield "Fits now", Text(f"with no more than {less}")
    if wait.reservation is not None:
        name = clean(wait.reservation.name)
        yield "Reservation", Text(f"{name}, {_window(wait.reservation)}")
    if wait.maintenance is not None:
        shorter = (
            f"; with no more than {write_duration(Fraction(wait.fits_before))} it is over before"
            if wait.fits_before is not None
            else ""
        )
        yield "Maintenance", Text(_window(wait.maintenance) + shorter)


def _window(window: Window) -> str:
    starts, ends = window.starts_at.astimezone(), window.ends_at.astimezone()
    return f"{starts:%a %d %b %H:%M} to {ends:%a %d %b %H:%M}"


def _job(job: Other) -> str:
    """Say what a job is that was not started here, and how it is cancelled."""
    kind = ", interactive" if job.interactive else ""
    return f"{job.name} {job.state}{kind}" + (f" [{job.cancel}]" if job.cancel else "")


def _expected(launch: Launch, now: datetime) -> str:
    if launch.expected_start is None:
        return "no estimate yet"
    at, ahead = launch.expected_start.astimezone(), launch.expected_start - now
    day = "" if at.date() == now.astimezone().date() else f"{at:%a %d %b} "
    when = f"in {span(ahead)}" if ahead > timedelta(0) else "any moment"
    age = (
        "" if launch.estimated_at is None else f", estimated {span(now - launch.estimated_at)} ago"
    )
    return f"{day}{at:%H:%M} ({when}{age})"


def _steps(watched: Watched) -> Table | None:
    told = [event for event in watched.events if event.code not in _QUIET and event.text]
    if not told:
        return None
    grid = Table.grid(padding=(0, 1))
    for event in told[-_STEPS:]:
        is_last = event is told[-1]
        grid.add_row(
            Text("●" if is_last else "✓", style="cyan" if is_last else "green"),
            Text(f"{event.at.astimezone():%H:%M:%S}", style="dim"),
            Text(clean(event.text)),
        )
    return grid


def asked_for(launch: Launch) -> str:
    """Say how large it is: ``2 cores · 4 GiB · 1 h``."""
    return sizes(launch.resources)


def sizes(resources: Mapping[str, Any]) -> str:
    """Say what resources are, those of which there are any."""
    cpu, gpu, memory, seconds = (
        Fraction(str(resources.get(name) or 0))
        for name in ("cpu", "gpu", "memory_bytes", "time_seconds")
    )
    parts = [
        f"{write_number(cpu)} {'core' if cpu == 1 else 'cores'}" if cpu else "",
        f"{write_number(gpu)} {'GPU' if gpu == 1 else 'GPUs'}" if gpu else "",
        write_size(memory) if memory else "",
        write_duration(seconds) if seconds else "",
    ]
    return " · ".join(part for part in parts if part)


# --- words ------------------------------------------------------------------------------------


def clean(text: str) -> str:
    """Return a text from elsewhere as a terminal may show it: nothing in it is a command."""
    flat = " ".join(text.split())
    return "".join(character if character.isprintable() else "\ufffd" for character in flat)


def span(length: timedelta) -> str:
    """Write a length of time as people say it: two units at most."""
    seconds = max(0, int(length.total_seconds()))
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    parts: list[str] = []
    for unit, size in units:
        count, seconds = divmod(seconds, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
