"""Small things that several pages show: states, chips, facts. Plain values, already in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

from perijove.domain.launch import Clock, Launch, Status, Wanted
from perijove.domain.policy import queue_limit
from perijove.domain.profile import GPU_TYPE
from perijove.services.hub import quote_name, server_prefix
from perijove.services.overview import Shown
from perijove.spawners.contract import SpawnerSettings
from perijove.web.texts import Texts, sentences
from perijove.web.texts.options import gpus_text
from perijove.web.texts.sentence import N_


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A state as people see it: a word, a drawing, and a tone that only repeats them."""

    word: str
    icon: str
    tone: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class Sign:
    """How a state looks, before it is put into a person's language."""

    word: str
    """As in the catalogue."""
    icon: str
    tone: str

    def said(self, texts: Texts, code: str = "") -> State:
        """Return the state that a person sees."""
        return State(word=texts.gettext(self.word), icon=self.icon, tone=self.tone, code=code)


@dataclass(frozen=True, slots=True)
class Chip:
    """One thing asked for, such as ``4 cores``."""

    icon: str
    text: str
    of: str = ""
    """The option it is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A name and a value in a list of facts."""

    label: str
    text: str = ""
    at: datetime | None = None
    about: datetime | None = None
    """A forecast rather than a fact, made at `as_of`."""
    as_of: datetime | None = None
    verbatim: bool = False
    """True for text that is not ours to translate."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A button of a page that asks first."""

    value: str
    text: str
    look: str


_LOOKS: Final[Mapping[Status, tuple[str, str]]] = {
    Status.REQUESTED: ("queue", "busy"),
    Status.SUBMITTED: ("queue", "busy"),
    Status.QUEUED: ("queue", "busy"),
    Status.HELD: ("hold", "bad"),
    Status.STARTING: ("rocket", "busy"),
    Status.CONNECTING: ("link", "busy"),
    Status.READY: ("check", "good"),
    Status.SUSPENDED: ("hold", "busy"),
    Status.ENDING: ("stop", "calm"),
    Status.ENDED: ("moon", "calm"),
}


_PREPARED: Final = Sign(N_("Being prepared"), "rocket", "busy")
"""The platform has it, and tells what has to be done before it can start."""


def state_of(texts: Texts, launch: Launch | None) -> State:
    """Return the state of a launch; of none: not running."""
    if launch is None:
        return State(word=texts.gettext("Not running"), icon="moon", tone="calm", code="none")
    if launch.is_live and launch.wanted is Wanted.END:
        return state_word_of(texts, Status.ENDING)  # said at once, though its step is still to come
    if launch.status is Status.SUBMITTED and launch.reason is not None:
        return _PREPARED.said(texts, launch.status)
    return state_word_of(texts, launch.status)


def state_word_of(texts: Texts, status: Status) -> State:
    """Return how a status looks."""
    icon, tone = _LOOKS[status]
    return State(word=sentences.state_word(texts, status), icon=icon, tone=tone, code=status)


def launch_chips(texts: Texts, launch: Launch | None) -> list[Chip]:
    """Return what a launch asked for."""
    if launch is None:
        return []
    gpu_type = launch.spec.get("options", {}).get(GPU_TYPE) or ""
    return chips_of(texts, launch.spec.get("resources", {}), gpu_type)


def chips_of(texts: Texts, resources: Mapping[str, Any], gpu_type: str = "") -> list[Chip]:
    """Return what is asked for, from the resources of a spec."""
    chips = []
    if (cpu := resources.get("cpu")) is not None:
        chips.append(Chip("cpu", texts.cores(cpu)))
    if (memory := resources.get("memory_bytes")) is not None:
        chips.append(Chip("memory", texts.size(memory)))
    if gpu := resources.get("gpu"):
        chips.append(Chip("gpu", gpus_text(texts, gpu, gpu_type)))
    if (time := resources.get("time_seconds")) is not None:
        chips.append(Chip("clock", texts.duration(time)))
    return chips


def name_of(texts: Texts, shown: Shown) -> str:
    """Return what a server is called: its display name, or that it is the default one."""
    return shown.display_name or shown.name or texts.gettext("Default server")


Titles = Mapping[str, Mapping[str, str]]
"""Of profiles by name: their titles by language."""


def profile_title(texts: Texts, launch: Launch, titles: Titles) -> str:
    """Return the title of the profile a launch was admitted with."""
    name = launch.spec.get("profile", {}).get("name", "")
    return texts.choose(titles.get(name, {}), fallback=name)


def clock_limit(launch: Launch, settings: SpawnerSettings | None) -> float | None:
    """Return the limit in seconds of the clock that ended a launch; None if no clock did."""
    reason = launch.end.reason if launch.end else ""
    if settings is None or not reason.endswith("-clock"):
        return None
    return {
        f"{Clock.SUBMIT}-clock": settings.submit_limit,
        f"{Clock.QUEUE}-clock": queue_limit(launch.spec.get("limits", {}), settings.queue_limit),
        f"{Clock.START}-clock": settings.start_limit,
        f"{Clock.CONNECT}-clock": settings.connect_limit,
    }.get(reason)


@dataclass(frozen=True, slots=True)
class Links:
    """Where the pages of one server are."""

    base_path: str
    user: str
    server: str

    @property
    def _tail(self) -> str:
        tail = quote_name(self.user)
        return f"{tail}/{quote_name(self.server)}" if self.server else tail

    @property
    def open(self) -> str:
        """The server itself."""
        return server_prefix(self.base_path, self.user, self.server)

    @property
    def wait(self) -> str:
        """How a start goes, or how it ended."""
        return f"{self.base_path}hub/spawn-pending/{self._tail}"

    @property
    def spawn(self) -> str:
        """The options."""
        return f"{self.base_path}hub/spawn/{self._tail}"

    def act(self, verb: str) -> str:
        """Return where a form for `verb` goes: stop, restart, delete."""
        return f"{self.base_path}hub/server/{verb}/{self._tail}"


_MOST_OFFSET: Final = 1_000_000


def offset_of(query: Mapping[str, str]) -> int:
    """Return where in a long list a page begins; the address says so as ``from``."""
    text = query.get("from", "0")
    is_number = text.isascii() and text.isdigit() and len(text) < 8
    return min(int(text), _MOST_OFFSET) if is_number else 0


def with_query(url: str, **query: str) -> str:
    """Return a URL with those parameters that are not empty."""
    return with_all(url, {name: value for name, value in query.items() if value})


def with_all(url: str, query: Mapping[str, str]) -> str:
    """Return a URL with these parameters, empty ones too."""
    pairs = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
    return f"{url}?{pairs}" if pairs else url
