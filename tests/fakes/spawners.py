"""
Spawners that fail on purpose, around one that does not.

`MemorySpawner` passes the contract suite (`tests/contract/spawners`). The others wrap any spawner
that passes it, and each breaks one promise in one chosen way for as long as `active` is true.
"""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, ClassVar, Self

import anyio
import anyio.lowlevel

from perijove.domain.errors import SpawnerError, SpawnerRejected, SpawnerTransient
from perijove.domain.launch import Cause, End, Reason, Resources
from perijove.domain.offer import Objection, Offer
from perijove.spawners.contract import (
    Checkpoint,
    Claim,
    Handle,
    LaunchSpec,
    Phase,
    Place,
    Sighting,
    Spawner,
    SpawnerSettings,
    Surroundings,
    Survey,
    VolumeSighting,
    VolumeSurvey,
)


class MemorySettings(SpawnerSettings):
    """Settings of the platform in memory."""

    kind: str = "memory"


@dataclass(slots=True)
class MemoryPlatform:
    """
    The platform itself: it outlives the spawners that talk to it, as a real one does.

    The test moves what is on it by hand: `end`, `lose`, `show`.
    """

    url: str = "http://127.0.0.1:9"
    """Where everything on it is said to listen."""
    present: dict[str, Sighting] = field(default_factory=dict)
    installations: dict[str, str] = field(default_factory=dict)
    over: dict[str, End] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    """Every name ever started, in order: a name that is here twice was started twice."""
    accepted: set[str] = field(default_factory=set)
    """What is on its way to running: it gets there at the next survey, or before."""
    stopped: list[str] = field(default_factory=list)
    """Every name whose removal was asked for."""
    volumes: dict[str, "MemoryVolume"] = field(default_factory=dict)
    mounted: dict[str, Sequence[str]] = field(default_factory=dict)
    """The volumes of each launch."""
    enforces_size: bool = True
    measures_use: bool = True

    def show(
        self, name: str, phase: Phase, *, reason: Reason | None = None, url: str | None = None
    ) -> None:
        """Put what carries `name` into another phase."""
        address = self.url if phase is Phase.RUNNING else ""
        shown = url if url is not None else address
        self.present[name] = replace(self.present[name], phase=phase, reason=reason, url=shown)

    def end(self, name: str, end: End) -> None:
        """Let what carries `name` end, with evidence."""
        self.present[name] = replace(self.present[name], phase=Phase.GONE, end=end, url="")

    def lose(self, name: str) -> None:
        """Let what carries `name` vanish without a trace."""
        del self.present[name]


@dataclass(slots=True)
class MemoryVolume:
    """A volume of the platform in memory."""

    installation: str
    size_bytes: int | None
    labels: Mapping[str, str]
    files: dict[str, bytes] = field(default_factory=dict)
    made_for: str = ""
    """The launch at whose start it was made."""
    stuck: bool = False
    """Something that is no launch has it: it cannot be removed."""

    @property
    def used_bytes(self) -> int:
        """What is in its files."""
        return sum(map(len, self.files.values()))


class MemorySpawner:
    """A spawner of the platform in memory; keeps the whole contract, and volumes."""

    Settings: ClassVar[type[SpawnerSettings]] = MemorySettings

    def __init__(
        self,
        settings: MemorySettings,
        surroundings: Surroundings,
        platform: MemoryPlatform | None = None,
    ) -> None:
        self._installation = surroundings.installation
        self.platform = platform or MemoryPlatform()
        self._being_started: set[str] = set()

    async def __aenter__(self) -> Self:
        """Connect to nothing."""
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Let go of nothing."""

    async def start(self, spec: LaunchSpec, checkpoint: Checkpoint) -> Sighting:
        """Put the launch on the platform, where it is pending until its handle is recorded."""
        platform = self.platform
        if spec.name in platform.over:
            return Sighting(name=spec.name, phase=Phase.GONE, end=platform.over[spec.name])
        if spec.name not in platform.present:
            self._accept(spec)
        self._being_started.add(spec.name)
        try:
            await checkpoint({"name": spec.name})
        finally:
            self._being_started.discard(spec.name)
        self._run_accepted()
        if spec.name in platform.present:
            return platform.present[spec.name]
        end = platform.over.get(spec.name, End(cause=Cause.UNKNOWN))
        return Sighting(name=spec.name, phase=Phase.GONE, end=end)

    async def survey(self) -> Survey:
        """Return all that is on the platform and of this installation."""
        await anyio.lowlevel.checkpoint()
        self._run_accepted()
        own = [
            sighting
            for name, sighting in self.platform.present.items()
            if self.platform.installations[name] == self._installation
        ]
        return Survey(complete=True, sightings=own)

    def enforces_size(self) -> bool:
        """Say what the test wishes."""
        return self.platform.enforces_size

    def measures_use(self) -> bool:
        """Say what the test wishes."""
        return self.platform.measures_use

    async def survey_volumes(self) -> VolumeSurvey:
        """Return the volumes of this installation."""
        await anyio.lowlevel.checkpoint()
        return VolumeSurvey(
            complete=True,
            volumes=[
                VolumeSighting(
                    name=name,
                    size_bytes=volume.size_bytes if self.enforces_size() else None,
                    used_bytes=volume.used_bytes if self.measures_use() else None,
                    held_by=self._holders(name),
                    labels=volume.labels,
                )
                for name, volume in self.platform.volumes.items()
                if volume.installation == self._installation
            ],
        )

    async def remove_volume(self, name: str) -> bool:
        """Remove a volume that nobody has."""
        await anyio.lowlevel.checkpoint()
        volume = self.platform.volumes.get(name)
        if volume is None or volume.installation != self._installation:
            return True
        if volume.stuck or self._holders(name):
            return False
        del self.platform.volumes[name]
        return True

    def _holders(self, volume: str) -> list[str]:
        """Return the launches that are there and have a volume."""
        return [
            name
            for name, sighting in self.platform.present.items()
            if sighting.phase is not Phase.GONE and volume in self.platform.mounted.get(name, ())
        ]

    def _accept(self, spec: LaunchSpec) -> None:
        platform = self.platform
        platform.started.append(spec.name)
        platform.accepted.add(spec.name)
        platform.mounted[spec.name] = [volume.name for volume in spec.volumes]
        for volume in spec.volumes:
            platform.volumes.setdefault(
                volume.name,
                MemoryVolume(
                    spec.installation, volume.size_bytes, volume.labels, made_for=spec.name
                ),
            )
        platform.installations[spec.name] = spec.installation
        platform.present[spec.name] = Sighting(
            name=spec.name,
            phase=Phase.PENDING,
            handle={"name": spec.name},
            owner=spec.user_name,
        )

    def _run_accepted(self) -> None:
        for name in self.platform.accepted - self._being_started:
            self.platform.accepted.discard(name)
            seen = self.platform.present.get(name)
            if seen is not None and seen.phase is not Phase.GONE:  # it may have ended meanwhile
                self.platform.show(name, Phase.RUNNING)

    async def stop(self, name: str, handle: Handle | None, *, grace: float) -> Sighting | None:
        """Take it off the platform, and refuse its name from now on."""
        await anyio.lowlevel.checkpoint()
        platform = self.platform
        if platform.installations.get(name, self._installation) != self._installation:
            return None
        platform.stopped.append(name)
        found = platform.present.pop(name, None)
        if found is None:
            platform.over.setdefault(name, End(cause=Cause.NEVER_STARTED, reason="cancelled"))
            return None
        end = found.end or End(cause=Cause.SIGNAL, code=15)
        platform.over[name] = end
        return replace(found, phase=Phase.GONE, end=end, url="", reason=None)


class Wrapper:
    """Passes everything on to the spawner within; its subclasses break one thing each."""

    def __init__(self, inner: Spawner) -> None:
        self.inner = inner
        self.active = True
        """Whether it fails; set it to False and the spawner is healthy."""

    async def __aenter__(self) -> Self:
        """Enter the spawner within."""
        await self.inner.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Leave the spawner within."""
        await self.inner.__aexit__(*exc)

    async def start(self, spec: LaunchSpec, checkpoint: Checkpoint) -> Sighting:
        """Start within."""
        return await self.inner.start(spec, checkpoint)

    async def survey(self) -> Survey:
        """Survey within."""
        return await self.inner.survey()

    async def stop(self, name: str, handle: Handle | None, *, grace: float) -> Sighting | None:
        """Stop within."""
        return await self.inner.stop(name, handle, grace=grace)


class SlowToStart(Wrapper):
    """Shows what runs as pending until it was surveyed `surveys` times."""

    def __init__(self, inner: Spawner, *, surveys: int = 3, reason: Reason | None = None) -> None:
        super().__init__(inner)
        self._surveys = surveys
        self._reason = reason
        self._seen: dict[str, int] = {}

    async def start(self, spec: LaunchSpec, checkpoint: Checkpoint) -> Sighting:
        """Start within, and say it has to wait."""
        return self._delay(await super().start(spec, checkpoint))

    async def survey(self) -> Survey:
        """Let each launch come one survey nearer."""
        survey = await super().survey()
        for sighting in survey.sightings:
            self._seen[sighting.name] = self._seen.get(sighting.name, 0) + 1
        return replace(survey, sightings=[self._delay(one) for one in survey.sightings])

    def _delay(self, sighting: Sighting) -> Sighting:
        arrived = self._seen.get(sighting.name, 0) >= self._surveys
        if not self.active or arrived or sighting.phase is not Phase.RUNNING:
            return sighting
        return replace(sighting, phase=Phase.PENDING, url="", reason=self._reason)


class Stage(StrEnum):
    """Where an act can break off."""

    BEFORE_START = "before-start"  #: Nothing reached the platform.
    BEFORE_CHECKPOINT = "before-checkpoint"  #: It exists, and its handle was not recorded.
    AFTER_CHECKPOINT = "after-checkpoint"  #: It exists and is recorded; `start` went no further.
    AFTER_START = "after-start"  #: It was started, and the answer was lost.
    SURVEY = "survey"
    BEFORE_STOP = "before-stop"  #: Nothing reached the platform.
    AFTER_STOP = "after-stop"  #: It was stopped, and the answer was lost.


def _away() -> Exception:
    return SpawnerTransient("the platform went away, on purpose")


class FailsAtStage(Wrapper):
    """Raises at one stage, `times` times (None: every time)."""

    def __init__(
        self,
        inner: Spawner,
        stage: Stage,
        *,
        error: Callable[[], BaseException] = _away,
        times: int | None = None,
    ) -> None:
        super().__init__(inner)
        self._stage = stage
        self._error = error
        self._left = itertools.count() if times is None else iter(range(times))
        self.failed = 0

    async def start(self, spec: LaunchSpec, checkpoint: Checkpoint) -> Sighting:
        """Start within, unless this is where it breaks."""

        async def breaking(handle: Handle) -> None:
            self._break(Stage.BEFORE_CHECKPOINT)
            await checkpoint(handle)
            self._break(Stage.AFTER_CHECKPOINT)

        self._break(Stage.BEFORE_START)
        sighting = await super().start(spec, breaking)
        self._break(Stage.AFTER_START)
        return sighting

    async def survey(self) -> Survey:
        """Survey within, unless this is where it breaks."""
        self._break(Stage.SURVEY)
        return await super().survey()

    async def stop(self, name: str, handle: Handle | None, *, grace: float) -> Sighting | None:
        """Stop within, unless this is where it breaks."""
        self._break(Stage.BEFORE_STOP)
        sighting = await super().stop(name, handle, grace=grace)
        self._break(Stage.AFTER_STOP)
        return sighting

    def _break(self, stage: Stage) -> None:
        if self.active and stage is self._stage and next(self._left, None) is not None:
            self.failed += 1
            raise self._error()


class LiesAboutGone(Wrapper):
    """
    Says that nothing is missing, and leaves out what runs: `names`, or everything.

    A scheduler that has forgotten its jobs after a restart looks like this.
    """

    def __init__(self, inner: Spawner, names: Collection[str] | None = None) -> None:
        super().__init__(inner)
        self._names = names

    async def survey(self) -> Survey:
        """Return a complete answer that is not true."""
        survey = await super().survey()
        if not self.active:
            return survey
        hidden = [one.name for one in survey.sightings] if self._names is None else self._names
        return Survey(
            complete=True, sightings=[one for one in survey.sightings if one.name not in hidden]
        )


class ListsHalf(Wrapper):
    """Lists every other thing; says so if `honest`, else calls it complete."""

    def __init__(self, inner: Spawner, *, honest: bool) -> None:
        super().__init__(inner)
        self._honest = honest

    async def survey(self) -> Survey:
        """Return half of the truth."""
        survey = await super().survey()
        if not self.active:
            return survey
        half = sorted(survey.sightings, key=lambda one: one.name)[::2]
        return Survey(complete=not self._honest, sightings=half)


class NeverAnswers(Wrapper):
    """Hangs in the chosen acts until it is cancelled; what was asked for does not happen."""

    def __init__(self, inner: Spawner, acts: Collection[str] = ("start", "survey", "stop")) -> None:
        super().__init__(inner)
        self._acts = acts
        self.asked = 0
        """How often it was asked and did not answer."""

    async def start(self, spec: LaunchSpec, checkpoint: Checkpoint) -> Sighting:
        """Hang, or start within."""
        await self._hang("start")
        return await super().start(spec, checkpoint)

    async def survey(self) -> Survey:
        """Hang, or survey within."""
        await self._hang("survey")
        return await super().survey()

    async def stop(self, name: str, handle: Handle | None, *, grace: float) -> Sighting | None:
        """Hang, or stop within."""
        await self._hang("stop")
        return await super().stop(name, handle, grace=grace)

    async def _hang(self, act: str) -> None:
        if self.active and act in self._acts:
            self.asked += 1
            await anyio.sleep_forever()


class Garbage(Wrapper):
    """
    Answers a survey with what no launch can be judged by, and says it is complete.

    Gone without evidence, names nobody gave, the same name twice with two phases, addresses that
    are none: of what runs, nothing may be ended by it.
    """

    async def survey(self) -> Survey:
        """Return nonsense about what is there."""
        survey = await super().survey()
        if not self.active:
            return survey
        return Survey(complete=True, sightings=self._nonsense(survey.sightings))

    def _nonsense(self, sightings: Sequence[Sighting]) -> list[Sighting]:
        nonsense = [
            Sighting(name="", phase=Phase.GONE),
            Sighting(name="../../etc/passwd\x00", phase=Phase.RUNNING, url="http://[::1"),
            Sighting(name="pj-\udcff", phase=Phase.PENDING, owner="\ud800"),
        ]
        for one in sightings:
            nonsense.append(replace(one, phase=Phase.GONE, end=None))
            nonsense.append(replace(one, phase=Phase.RUNNING, url="javascript:alert(1)", end=None))
            nonsense.append(replace(one, phase=Phase.SUSPENDED, handle=None, end=None))
        return nonsense


class Registering(Wrapper):
    """Lets launches say themselves where they listen, as jobs do; `jobs` says whose they are."""

    def __init__(self, inner: Spawner) -> None:
        super().__init__(inner)
        self.jobs: dict[str, str] = {}
        """The launch's name, by job id: what the scheduler knows."""
        self.hosts: Collection[str] = {"127.0.0.1"}
        self.node = "n1"
        """What the scheduler calls the node where they all run."""
        self.claims: list[Claim] = []

    async def check_claim(self, name: str, handles: Sequence[Handle], claim: Claim) -> Place:
        """Return the claimed address, if the job is the launch's and runs there."""
        if not self.active:
            raise _away()
        self.claims.append(claim)
        recorded = {each["job_id"] for each in handles if "job_id" in each}
        if self.jobs.get(claim.job_id) != name or (recorded and claim.job_id not in recorded):
            raise SpawnerRejected("that job is not of this launch", code="job-mismatch")
        if claim.host not in self.hosts:
            raise SpawnerRejected("no node of the job has that name", code="host-refused")
        return Place(url=f"http://{claim.host}:{claim.port}", node=self.node)


class Held(Wrapper):
    """Shows what runs as held by its owner, until that is released; or refuses, with `error`."""

    def __init__(self, inner: Spawner, error: SpawnerError | None = None) -> None:
        super().__init__(inner)
        self.error = error
        self.released: list[str] = []

    async def start(self, spec: LaunchSpec, checkpoint: Checkpoint) -> Sighting:
        """Start within, and say that its owner holds it."""
        return self._hold(await super().start(spec, checkpoint))

    async def survey(self) -> Survey:
        """Survey within, and show what was not released as held."""
        survey = await super().survey()
        return replace(survey, sightings=[self._hold(one) for one in survey.sightings])

    async def release(self, name: str, handles: Sequence[Handle]) -> None:
        """Let it go; a launch without a handle has nothing to let go of."""
        if self.error is not None:
            raise self.error
        assert all(each["name"] == name for each in handles)  # a survey may be faster
        self.released.append(name)

    def _hold(self, sighting: Sighting) -> Sighting:
        if sighting.phase is not Phase.RUNNING or sighting.name in self.released:
            return sighting
        reason = Reason(code="held-by-user", words="(JobHeldUser)")
        return replace(sighting, phase=Phase.HELD, url="", reason=reason)


class Tells(Wrapper):
    """Knows what each person can have: `offer`, unless it is silent."""

    def __init__(self, inner: Spawner, offer: Offer) -> None:
        super().__init__(inner)
        self.offer = offer
        self.objections: Sequence[Objection] = ()
        self.error: Exception | None = None
        """Raised instead of an answer."""
        self.gate: anyio.Event | None = None
        """Where there is one, every answer waits for it."""
        self.asked: list[str] = []
        """Who was asked about, in order."""
        self.validated: list[tuple[Resources, Mapping[str, Any]]] = []

    async def discover(self, user_name: str) -> Offer:
        """Return the offer, whoever it is about."""
        self.asked.append(user_name)
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.offer

    async def validate(
        self, user_name: str, resources: Resources, options: Mapping[str, Any]
    ) -> Sequence[Objection]:
        """Return the objections, whatever is asked."""
        self.validated.append((resources, options))
        if self.error is not None:
            raise self.error
        return self.objections
