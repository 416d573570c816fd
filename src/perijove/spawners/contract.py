"""
What a spawner promises (design decision 5).

The contract is small on purpose. A spawner reports what it sees; what *absent* means for a
launch is decided once, in the core (`reconcile/observe.py`). Abilities beyond it are further
small protocols that a spawner may also implement; callers ask with `isinstance`.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

from perijove.domain.launch import End, Reason, Resources
from perijove.domain.offer import Objection, Offer
from perijove.kit.config import Section


class Phase(StrEnum):
    """What the platform says about one thing that carries our installation id."""

    PENDING = "pending"
    HELD = "held"
    RUNNING = "running"
    SUSPENDED = "suspended"
    GONE = "gone"  #: With evidence: exit status, accounting, a final state.


Handle = Mapping[str, Any]
"""A spawner's own name for what it started: JSON, opaque to everyone else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """One thing on the platform, as seen at one moment."""

    name: str
    """The platform name it carries."""
    phase: Phase
    handle: Handle | None = None
    owner: str = ""
    """
    Under which user name it runs, where the platform shows names to others: one of another
    person that carries a launch's name is a forgery and not believed. Empty: cannot be forged.
    """
    url: str = ""
    """``http://host:port`` or ``unix:/path`` where it listens, once known."""
    node: str = ""
    reason: Reason | None = None
    """Why it waits; only while pending, held or suspended."""
    expected_start: datetime | None = None
    """When the platform thinks it will start, as of this answer; only while it waits."""
    ends_at: datetime | None = None
    """When the platform will end it at the latest; only while it runs."""
    end: End | None = None
    """How it ended: the evidence. Always there when gone."""
    since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """One answer of the platform about everything of ours."""

    complete: bool
    """False: what is missing here may still exist."""
    sightings: Sequence[Sighting]


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeSpec:
    """A volume that a launch has, made at its first use and kept when the launch ends."""

    name: str
    """Platform name, `pj-<installation>-<16 characters>`: stored, never recomputed (5.16)."""
    path: str
    """Where the server sees it, an absolute path."""
    size_bytes: int | None = None
    """What it may hold; None where nobody limits it."""
    storage_class: str = ""
    """The platform's kind of storage; empty: its default."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Readable parts for people who look at the platform."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """All a spawner needs to start one launch. Holds the server's token: never log it."""

    launch_id: str
    name: str
    """Platform name; a second `start` with it finds the first one's work."""
    installation: str
    user_name: str
    server_name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    """Complete for the server but for ``JUPYTERHUB_SERVICE_URL``, see `prefix`."""
    prefix: str
    """URL path of the server, ``B user/:n/[:s/]``; the spawner knows host and port and sets
    ``JUPYTERHUB_SERVICE_URL`` to ``http://host:port<prefix>``."""
    resources: Resources = Resources()
    options: Mapping[str, Any] = field(default_factory=dict)
    """What was chosen besides `resources`, by field name: account, partition, …"""
    image: str = ""
    """The container image, as admitted; empty: the spawner's own."""
    volumes: Sequence[VolumeSpec] = ()
    """What it keeps its data on; `start` makes those that are not there yet."""
    platform: Mapping[str, Any] = field(default_factory=dict)
    """What its profile says to this kind of spawner alone: checked by its class `Overrides`."""
    code: str = field(default="", repr=False)
    """With it what was started may register itself at the hub, see `services/registration.py`."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Readable parts for people who look at the platform."""


Checkpoint = Callable[[Handle], Awaitable[None]]
"""Awaited as soon as anything exists that must be removed later; durable when it returns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnels:
    """Where jobs dial to that nobody can connect to, and where their servers are found then."""

    url: str
    sockets: Path
    """The directory with a socket for each launch, ``<name>.sock``."""
    ca: str = ""
    """PEM of the only authority that jobs are to believe; empty: those that the node knows."""

    def url_of(self, name: str) -> str:
        """Return where the server of the launch called `name` is reached."""
        return f"unix:{self.sockets / name}.sock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a spawner may know of the hub it serves."""

    name: str
    """The instance's name in the configuration, ``[spawners.NAME]``."""
    installation: str
    data_dir: Path
    """A directory of its own, mode 0700."""
    system_accounts: bool = False
    """People's names are those of system accounts of this machine: all sign in by it."""
    tunnels: Tunnels | None = None
    """Set where the site has tunnels."""
    api_is_local: bool = False
    """The address that servers call the hub at leads nowhere from other machines."""


class Spawner(Protocol):
    """Starts, surveys and stops what runs on one platform. An async context manager."""

    async def __aenter__(self) -> Self:
        """Connect; raise `SpawnerTransient` when the platform is away (the hub goes on)."""
        ...

    async def __aexit__(self, *exc: object) -> None:
        """Let go; what was started runs on."""
        ...

    async def start(self, spec: LaunchSpec, checkpoint: Checkpoint) -> Sighting:
        """
        Start `spec` and return what is known at once, without waiting for readiness.

        Idempotent by `spec.name`: a second call finds the first one's work, also after a
        crash anywhere in the first. What ended is never started again: its end is returned.
        Raises `SpawnerRejected` when trying again is useless, and `SpawnerPending` when the
        platform is still preparing what it needs and nothing of the launch exists yet: the core
        shows the reason and calls again, for as long as the spawner says so. Anything else
        raised leaves the outcome unknown, and the core surveys before it repeats.
        """
        ...

    async def survey(self) -> Survey:
        """
        Return all that is ours on the platform, in one call.

        What ended stays in the answer, with its evidence, until `stop` has removed it.
        Raises `SpawnerTransient` when the platform is silent.
        """
        ...

    async def stop(self, name: str, handle: Handle | None, *, grace: float) -> Sighting | None:
        """
        End what carries `name` and remove its traces from the platform.

        Gives it `grace` seconds to end by itself. Returns the evidence of its end; or None
        when nothing carries the name (any more). After it returns, a `start` of the same name
        that was under way elsewhere starts nothing. Raises when it cannot tell.
        """
        ...


class SpawnerSettings(Section):
    """What every ``[spawners.NAME]`` section has."""

    kind: str
    """Which driver: an entry point of the group ``perijove.spawners``."""
    command: list[str] = ["jupyterhub-singleuser"]
    """What is started for the person; no hub-specific arguments are added."""
    api_url: str = ""
    """Where what is started here reaches the hub's API, such as
    `"http://172.17.0.1:8081/hub/api"`; by default at `hub.api_bind`."""
    home_storage: str = ""
    """A name for the storage that people's homes are on, where they outlive a session: persistent
    environments lie there. Spawners with the same homes say the same. Empty: nothing is kept."""
    max_starting: int = 100
    """How many launches may be on their way at once; further ones wait in line."""
    submit_limit: float = 30
    """Seconds the platform has to take a request."""
    queue_limit: float | None = None
    """Seconds a request may wait in the platform's queue; none by default."""
    start_limit: float = 300
    """Seconds from running to saying where it listens."""
    connect_limit: float = 60
    """Seconds from saying where it listens to answering there."""
    stop_grace: float = 15
    """Seconds a server has to end by itself before it is killed."""
    survey_period: float = 10
    """Seconds between two surveys while nothing is on its way."""
    survey_busy_period: float = 1
    """Seconds between two surveys while something is on its way."""

    def for_examination(self) -> Self:
        """Return them as they are for one examination that somebody waits for."""
        return self


@runtime_checkable
class HasLogs(Protocol):
    """A spawner that can show what a launch has written."""

    async def log_tail(self, name: str, handle: Handle | None, *, lines: int) -> str:
        """Return the last lines of output, decoded leniently; empty when there is none."""
        ...


@runtime_checkable
class ChecksListener(Protocol):
    """A spawner whose servers share an address with strangers: a port may be somebody else's."""

    async def owns_listener(self, name: str, handle: Handle | None, url: str) -> bool | None:
        """
        Tell whether who listens at `url` belongs to the launch.

        None: nobody listens there yet.
        """
        ...


@runtime_checkable
class Warns(Protocol):
    """A spawner that an administrator must know something about; said at start and on a page."""

    def warnings(self, *, public: bool) -> Sequence[str]:
        """Return message codes; raise `ConfigError` when it refuses to serve a public address."""
        ...


@runtime_checkable
class Remembers(Protocol):
    """A platform that can still say how something ended which its list shows no more."""

    async def find_ends(self, handles: Mapping[str, Handle]) -> Mapping[str, End]:
        """
        Return the evidence of those of `handles`, by platform name, that are over for certain.

        One call for all. What is not in the answer is unknown. Raises `SpawnerTransient` when
        the platform is silent.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a wrapper says of itself when it registers (anchors 4.4.4)."""

    job_id: str
    host: str
    """Name or address under which it says the hub and the proxy reach it; "" with a tunnel."""
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where what registered is, by the platform's word."""

    url: str
    """The address that the claim comes to: ``http://host:port``."""
    node: str
    """As in `Sighting.node`."""


@runtime_checkable
class Registers(Protocol):
    """A spawner whose launches say themselves where they listen."""

    async def check_claim(self, name: str, handles: Sequence[Handle], claim: Claim) -> Place:
        """
        Return the place that a claim comes to.

        `handles` are those recorded of the launch; there may be none yet. After it returns, the
        handle of what registered is ``{"user": …, "job_id": claim.job_id}``.

        Raises `SpawnerRejected` with a code when it cannot be: the job is not the launch's
        (``job-mismatch``), the host is none of the job's nodes, is loopback, link-local or the
        hub's own (``host-refused``), the port is out of range (``port-refused``). Raises
        `SpawnerTransient` when the platform cannot tell now.
        """
        ...


@runtime_checkable
class TellsChanges(Protocol):
    """A platform that tells by itself when something has happened to what is ours."""

    async def changed(self) -> None:
        """
        Return when something may have changed since this last returned.

        It makes the next survey come sooner; nothing depends on it. A platform that has stopped
        telling costs the period between two surveys, and no more.
        """
        ...


@runtime_checkable
class Releases(Protocol):
    """A platform where people can put what is theirs on hold, and take it off again."""

    async def release(self, name: str, handles: Sequence[Handle]) -> None:
        """
        Take the owner's own hold off the launch called `name`; harmless where there is none.

        `handles` are those recorded of it. Raises `SpawnerRejected` with the platform's words
        (code ``not-released``) when it refuses, `SpawnerTransient` when it is silent.
        """
        ...


@runtime_checkable
class Discovers(Protocol):
    """A spawner that knows what each person can have of its platform."""

    async def discover(self, user_name: str) -> Offer:
        """
        Return what there is for this person, now.

        Raises `SpawnerTransient` when the platform is silent.
        """
        ...

    async def validate(
        self, user_name: str, resources: Resources, options: Mapping[str, Any]
    ) -> Sequence[Objection]:
        """
        Return what the platform itself has against a request, by its own dry run; often nothing.

        Raises `SpawnerTransient` when it does not answer: the request may be made all the same.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeSighting:
    """One volume of ours on a platform, as seen at one moment."""

    name: str
    size_bytes: int | None = None
    """What it may hold, where the platform enforces that; else None."""
    used_bytes: int | None = None
    """What it holds, where the platform can tell."""
    held_by: Sequence[str] = ()
    """Platform names of launches that have it now."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """As in `VolumeSpec`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeSurvey:
    """One answer of the platform about all volumes of ours."""

    complete: bool
    """False: what is missing here may still exist."""
    volumes: Sequence[VolumeSighting]


@runtime_checkable
class KeepsVolumes(Protocol):
    """A platform with volumes that outlive a launch (failure 5.17)."""

    def enforces_size(self) -> bool:
        """Tell whether a volume cannot hold more than its size; else it is only measured."""
        ...

    def measures_use(self) -> bool:
        """
        Tell whether surveys say what volumes hold.

        Where they do not, servers are asked to count what is on their own.
        """
        ...

    async def survey_volumes(self) -> VolumeSurvey:
        """
        Return all volumes that carry our installation id, in one call.

        Raises `SpawnerTransient` when the platform is silent.
        """
        ...

    async def remove_volume(self, name: str) -> bool:
        """
        Remove a volume and all that is on it; True when nothing of that name is left.

        False while somebody still has it: it is removed by a later call. Only what carries our
        installation id is ever touched. Raises `SpawnerTransient` when the platform is silent.
        """
        ...


@runtime_checkable
class CountsCalls(Protocol):
    """A spawner whose platform must not be asked too often: it says how often it was."""

    def calls(self) -> Mapping[str, int]:
        """Return how often each program of the platform was called since this object was made."""
        ...


@runtime_checkable
class AsksAsPeople(Protocol):
    """A spawner some of whose questions are one person's own, and asked as themselves."""

    def calls_as_people(self) -> Mapping[str, int]:
        """Return how often each program was called so; `CountsCalls.calls` is without them."""
        ...


@runtime_checkable
class TakesTurns(Protocol):
    """A spawner that asks so seldom that a question may have to wait before it is asked."""

    @property
    def patience(self) -> float:
        """How many seconds that may take; they are no silence of the platform."""
        ...

    @property
    def pace(self) -> float:
        """How many seconds there have to be between two surveys, for the turns to last."""
        ...
