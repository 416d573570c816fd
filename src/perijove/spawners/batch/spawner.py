"""
Sessions as jobs: the spawner contract on top of a scheduler.

The person owns the job: it is submitted and cancelled under their account, through the launcher.
What is true of a launch is in the scheduler and in the job's directory, never in this object.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_network
from typing import Any, ClassVar, Final, Self

import anyio
import structlog

from perijove.agent import job_files
from perijove.domain.errors import ConfigError, SpawnerRejected, SpawnerTransient
from perijove.domain.launch import Cause, End, Reason, Resources
from perijove.domain.offer import Objection, Offer
from perijove.kit.clock import monotonic
from perijove.spawners.archive import Archive
from perijove.spawners.batch.address import claimed_url
from perijove.spawners.batch.commands import Allowance, Commands
from perijove.spawners.batch.queue import Queue
from perijove.spawners.batch.scheduler import Command, Job, JobRequest, Result, Scheduler
from perijove.spawners.batch.sections import BatchSettings
from perijove.spawners.contract import (
    Checkpoint,
    Claim,
    Handle,
    LaunchSpec,
    Phase,
    Place,
    Sighting,
    SpawnerSettings,
    Surroundings,
    Survey,
)
from perijove.spawners.launcher.client import Launcher
from perijove.spawners.names import check_platform_name

log = structlog.get_logger()

_KILL_SECONDS: Final = 45.0
"""How long after the grace a scheduler may take to say that a job is gone (Slurm's KillWait)."""
_LATE_SECONDS: Final = 90.0
"""How long after an unclear submission its job may still appear in the queue."""
_CANCELLED: Final = End(cause=Cause.NEVER_STARTED, reason="cancelled")
_LOOK_AGAIN_SECONDS: Final = 1.0


class BatchSpawner:
    """Starts servers as jobs of one cluster. A driver gives settings and scheduler."""

    Settings: ClassVar[type[SpawnerSettings]] = BatchSettings

    def __init__(
        self, settings: BatchSettings, surroundings: Surroundings, scheduler: Scheduler
    ) -> None:
        if settings.accounts == "checked" and not surroundings.system_accounts:
            section = f"spawners.{surroundings.name}"
            raise ConfigError(
                f"{section} submits jobs under the system account of a person's name, but people "
                f"do not sign in with this machine's accounts: use [auth.pam], or say {section}"
                ".accounts = 'trusted' if another way to sign in gives the same names to the same "
                "people",
                code="batch-accounts-unknown",
                key=f"{section}.accounts",
            )
        if settings.tunnel and surroundings.tunnels is None:
            raise ConfigError(f"spawners.{surroundings.name}.tunnel: it needs [tunnel] url")
        self._tunnels = surroundings.tunnels if settings.tunnel else None
        self._settings = settings
        self._api_is_local = surroundings.api_is_local
        self.installation = surroundings.installation
        self.command = settings.command
        self._site = settings.site()
        self._scheduler = scheduler
        self._launcher = Launcher()
        self._commands = Commands(self._site, Allowance(settings.minimum_period))
        self._prefix = f"pj-{surroundings.installation}-"
        self._as_people: Counter[str] = Counter()
        self._queue = Queue(scheduler, self._commands.run, self._prefix)
        self._archive = Archive(surroundings.data_dir)

    async def __aenter__(self) -> Self:
        """Tidy up; there is nothing to connect to, every command is a connection of its own."""
        self._archive.prepare()
        self._archive.prune()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Let go; jobs run and wait on."""

    def warnings(self, *, public: bool) -> Sequence[str]:
        """Say that jobs on other machines cannot reach the hub where it listens for them."""
        networks = [ip_network(network) for network in self._settings.networks]
        is_one_machine = bool(networks) and all(network.is_loopback for network in networks)
        return ["api-loopback"] if self._api_is_local and not is_one_machine else []

    def calls(self) -> Mapping[str, int]:
        """Return how often each program of the scheduler was called for everybody."""
        return self._commands.counts

    def calls_as_people(self) -> Mapping[str, int]:
        """Return how often each was called for one person, as themselves."""
        return self._as_people

    @property
    def patience(self) -> float:
        """How many seconds a question about jobs may have to wait for its turn."""
        return self._commands.longest

    @property
    def pace(self) -> float:
        """
        How many seconds there have to be between two surveys.

        Faster ones would use all turns up at once, and then be blind for the rest of the time.
        """
        return self._commands.pace

    # --- start ----------------------------------------------------------------------------

    async def start(self, spec: LaunchSpec, checkpoint: Checkpoint) -> Sighting:
        """Submit the launch's job as its owner, or find the one that was."""
        check_platform_name(spec.name)
        command = self._scheduler.submission(self._request(spec))
        if end := self._archive.find_end(spec.name):
            return Sighting(name=spec.name, phase=Phase.GONE, end=end, owner=spec.user_name)
        await checkpoint({"user": spec.user_name})
        job_id = await self._submit(spec, command)
        if job_id is None:
            end = self._archive.find_end(spec.name) or _CANCELLED
            return Sighting(name=spec.name, phase=Phase.GONE, end=end, owner=spec.user_name)
        handle = {"user": spec.user_name, "job_id": job_id}
        await checkpoint(handle)
        return Sighting(
            name=spec.name,
            phase=Phase.PENDING,
            handle=handle,
            owner=spec.user_name,
            reason=Reason(code="just-submitted"),
        )

    async def _submit(self, spec: LaunchSpec, command: Command) -> str | None:
        """Return the id of the launch's one job; None when it was cancelled before."""
        answer = await self._ask_to_submit(spec, command)
        if answer["state"] == "unclear":
            # A submission was cut off: it may have reached the scheduler all the same, and may
            # still do so. Its job's name is unique, so the queue can tell.
            ids = self._scheduler.read_ids(_result(answer["listing"]), spec.user_name)
            if ids:
                await self.act_as(spec.user_name, "adopt", name=spec.name, job_id=ids[0])
                return ids[0]
            if answer["age"] < _LATE_SECONDS:
                raise SpawnerTransient("a submission was cut off; its job may still appear")
            answer = await self._ask_to_submit(spec, command, again=True)
        match answer["state"]:
            case "cancelled":
                return None
            case "known":
                return str(answer["job_id"])
        return self._scheduler.read_submission(_result(answer))

    async def _ask_to_submit(
        self, spec: LaunchSpec, command: Command, *, again: bool = False
    ) -> Mapping[str, Any]:
        listing = self._scheduler.listing_by_name(spec.name)
        answer: Mapping[str, Any] = {}
        try:
            answer = await self.act_as(
                spec.user_name,
                "submit",
                name=spec.name,
                files=self._files(spec),
                command=list(command),
                listing=list(listing),
                again=again,
                **self._cluster,
            )
        finally:
            if "listing" in answer:
                self._count(listing)
            elif answer.get("state") not in ("known", "cancelled"):
                self._count(command)
        return answer

    def _request(self, spec: LaunchSpec) -> JobRequest:
        readable = f"perijove {spec.user_name} {spec.server_name}".strip()
        return JobRequest(
            name=spec.name,
            comment=_printable(readable),
            resources=spec.resources,
            options=spec.options,
            extra=self._settings.submit_arguments,
        )

    def _files(self, spec: LaunchSpec) -> Mapping[str, str]:
        """Return what the job's directory gets; of it the scheduler sees the script."""
        settings, tunnels = self._settings, self._tunnels
        environment = {**spec.environment, **settings.environment}
        api = environment["JUPYTERHUB_API_URL"]
        environment.pop("JUPYTERHUB_API_TOKEN", None)  # given to who proves to be the job
        resources = spec.resources
        delivered = {
            "version": 1,
            "name": spec.name,
            "launch_id": spec.launch_id,
            "hub_api": api,
            "register_url": f"{api}/perijove/registrations",
            "code": spec.code,
            "environment": environment,
            "command": list(spec.command),
            "prefix": spec.prefix,
            "networks": settings.networks,
            "ports": list(settings.ports) if settings.ports else None,
            "tunnel": {"url": tunnels.url, "ca": tunnels.ca} if tunnels else None,
            "software": settings.software.model_dump(mode="json"),
            "resources": {
                "cpu": resources.cpu,
                "memory_bytes": resources.memory_bytes,
                "gpu": resources.gpu,
                "time_seconds": resources.time_seconds,
            },
            "examine": bool(spec.options.get("examine")),
            "safe_mode": bool(spec.options.get("safe_mode")),
            "log_limit": settings.log_limit,
            "grace": settings.stop_grace,
            "start_limit": settings.start_limit,
        }
        return {
            "spec.json": json.dumps(delivered),
            **job_files(),
        }

    # --- survey ---------------------------------------------------------------------------

    async def survey(self) -> Survey:
        """Return all jobs of ours by one question to the scheduler."""
        jobs = await self._queue.jobs(since=monotonic())
        # Names can be read and copied by everybody: whose job it is belongs to what is seen.
        same: dict[tuple[str, str], list[Job]] = {}
        for job in jobs:
            same.setdefault((job.name, job.user), []).append(job)
        seen = [_the_one(jobs) for jobs in same.values()]
        # The scheduler shows what ended for a while after it was removed here.
        shown = [job for job in seen if job.is_live or self._archive.find_end(job.name) is None]
        return Survey(complete=True, sightings=[_sighting(job) for job in shown])

    async def find_ends(self, handles: Mapping[str, Handle]) -> Mapping[str, End]:
        """Return the ends that accounting knows, by platform name."""
        names = {str(each["job_id"]): name for name, each in handles.items() if "job_id" in each}
        if not names:
            return {}
        ends = await self._scheduler.ends(self._commands.run, list(names))
        return {names[job_id]: end for job_id, end in ends.items() if job_id in names}

    async def find_record(self, job_id: str) -> End | None:
        """Return the end of a job that accounting itself has; None while it has none."""
        return await self._scheduler.find_record(self._commands.run, job_id)

    # --- stop -----------------------------------------------------------------------------

    async def stop(self, name: str, handle: Handle | None, *, grace: float) -> Sighting | None:
        """Cancel the job as its owner, wait until the scheduler says it is gone, and say how."""
        check_platform_name(name)
        began = monotonic()
        self._archive.close(name)
        job_id = str(handle.get("job_id", "")) if handle else ""
        user = str(handle.get("user", "")) if handle else ""
        if not user:
            owners = {job.user for job in await self._queue.jobs(since=began) if job.name == name}
            if not owners:
                return None
            if len(owners) > 1:
                raise SpawnerTransient(f"several people have jobs with the name {name}")
            user = owners.pop()
        end = await self._end_jobs(user, name, job_id, seconds=grace + _KILL_SECONDS)
        if end is None:
            return None
        self._archive.close(name, end)
        return Sighting(name=name, phase=Phase.GONE, end=end, owner=user)

    async def _end_jobs(self, user: str, name: str, job_id: str, *, seconds: float) -> End | None:
        """
        Cancel every job of the name until the queue shows none alive; return the evidence.

        The queue is looked at after the launcher was called: from then on nothing is submitted.
        """
        cancelled: set[str] = set()
        if not job_id:
            await self.act_as(user, "cancel", name=name)
        elif await self._cancel(user, name, job_id):
            cancelled.add(job_id)
        since = monotonic()
        latest = since + seconds
        while since < latest:
            jobs = [
                job
                for job in await self._queue.jobs(since=since)
                if (job.name, job.user) == (name, user)
            ]
            live = [job for job in jobs if job.is_live]
            if not live:
                return _the_one(jobs).end if jobs else await self._remembered(job_id)
            for job in live:
                if job.id not in cancelled and await self._cancel(user, name, job.id):
                    cancelled.add(job.id)
            await anyio.sleep(_LOOK_AGAIN_SECONDS)
            since = monotonic()
        raise SpawnerTransient(f"job {job_id} is still ending")

    async def _cancel(self, user: str, name: str, job_id: str) -> bool:
        """Cancel a job; tells whether the scheduler was there to hear it."""
        command = self._scheduler.cancellation(job_id)
        answer = await self._act_on(user, "cancel", name, job_id, command)
        said = _result(answer.get("check", answer))
        if said.status == 0:
            return True
        # The queue tells whether it helped all the same: many a job is gone by now.
        log.info("cancel_answered", job=job_id, words=(said.stderr or said.stdout)[:200])
        return False

    async def _act_on(
        self, user: str, verb: str, name: str, job_id: str, command: Command
    ) -> Mapping[str, Any]:
        """Return the launcher's answer to a verb that checks the job's name, and then acts."""
        check = self._scheduler.listing_by_name(name)
        self._count(check)
        answer: Mapping[str, Any] = {}
        try:
            answer = await self.act_as(
                user,
                verb,
                name=name,
                job_id=job_id,
                command=list(command),
                check=list(check),
                **self._cluster,
            )
        finally:
            if "check" not in answer:
                self._count(command)
        return answer

    def _count(self, command: Command) -> None:
        """Count a call as a person; of what the launcher did not tell it may have been made."""
        self._as_people[command[0]] += 1

    async def _remembered(self, job_id: str) -> End | None:
        if not job_id:
            return None
        return (await self._scheduler.ends(self._commands.run, [job_id])).get(job_id)

    # --- abilities ------------------------------------------------------------------------

    async def release(self, name: str, handles: Sequence[Handle]) -> None:
        """Release the launch's job as its owner, who alone can take off what they put on."""
        check_platform_name(name)
        handle = next((each for each in handles if "job_id" in each), None)
        if handle is None:
            raise SpawnerTransient("the launch has no job yet")
        user, job_id = str(handle["user"]), str(handle["job_id"])
        command = self._scheduler.release(job_id)
        answer = await self._act_on(user, "release", name, job_id, command)
        if "check" in answer:
            raise SpawnerTransient(f"the queue does not show job {job_id} under this name")
        said = _result(answer)
        if said.status != 0:
            words = (said.stderr or said.stdout).strip()[:200]
            raise SpawnerRejected(words, code="not-released", words=words)

    async def check_claim(self, name: str, handles: Sequence[Handle], claim: Claim) -> Place:
        """Return where a job listens that says so, if it is the launch's and runs there."""
        recorded = {str(each["job_id"]) for each in handles if "job_id" in each}
        if recorded and claim.job_id not in recorded:
            raise SpawnerRejected(
                f"job {claim.job_id[:40]} is not the one of this launch", code="job-mismatch"
            )
        users = {str(each["user"]) for each in handles if "user" in each}
        job = await self._queue.find(claim.job_id)
        if job.name != name or job.user not in users:
            raise SpawnerRejected(
                f"job {claim.job_id[:40]} is not of this launch", code="job-mismatch"
            )
        if not job.nodes:
            job = await self._queue.find(claim.job_id, age=0)
        if job.phase is not Phase.RUNNING:
            raise SpawnerTransient(f"the queue does not show job {job.id} as running")
        if self._tunnels is not None:
            return Place(url=self._tunnels.url_of(name), node=job.node)
        known = await self._scheduler.addresses(self._commands.run, job.nodes)
        url = await claimed_url(
            claim,
            nodes={node: known.get(node, node) for node in job.nodes},
            networks=self._settings.networks,
            ports=self._settings.ports,
        )
        return Place(url=url, node=job.node)

    async def log_tail(self, name: str, handle: Handle | None, *, lines: int) -> str:
        """Return the end of what the job has printed, read as its owner."""
        if handle is None or "user" not in handle:
            return ""
        answer = await self.act_as(str(handle["user"]), "log", name=name, lines=lines)
        return str(answer.get("text", ""))

    async def discover(self, user_name: str) -> Offer:
        """Return what there is for this person."""
        offer = await self._scheduler.discover(
            self._commands.run,
            self._run_as,
            user_name,
            for_form=self._commands.for_form,
        )
        others = [job for job in offer.own_jobs if not job.name.startswith(self._prefix)]
        return replace(offer, own_jobs=tuple(others))

    async def validate(
        self, user_name: str, resources: Resources, options: Mapping[str, Any]
    ) -> Sequence[Objection]:
        """Return what the scheduler's own dry run has against a request."""
        if not self._settings.dry_run:
            return []
        request = JobRequest(
            name=f"pj-{self.installation}-dry-run",
            comment="perijove dry run",
            resources=resources,
            options=options,
            extra=self._settings.submit_arguments,
        )
        return await self._scheduler.dry_run(self._run_as, user_name, request)

    # --- as the person --------------------------------------------------------------------

    async def _run_as(self, user_name: str, commands: Sequence[Command]) -> Sequence[Result]:
        for command in commands:
            self._count(command)
        answer = await self.act_as(
            user_name,
            "discover",
            commands=[list(command) for command in commands],
            **self._cluster,
        )
        return [_result(each) for each in answer["results"]]

    async def act_as(self, user_name: str, verb: str, **request: Any) -> Mapping[str, Any]:
        """Return the launcher's answer to a verb."""
        return await self._launcher.call(user_name, verb, timeout=self._site.timeout * 2, **request)

    @property
    def _cluster(self) -> Mapping[str, Any]:
        """What the launcher needs to run the scheduler's programs."""
        bin_dir = self._site.bin_dir
        return {
            "environment": {
                name: value
                for name, value in self._site.environment.items()
                if name.startswith(("SLURM_", "SGE_"))
            },
            "bin_dir": str(bin_dir) if bin_dir else None,
        }


def _sighting(job: Job) -> Sighting:
    return Sighting(
        name=job.name,
        phase=job.phase,
        handle={"user": job.user, "job_id": job.id},
        owner=job.user,
        node=job.node,
        reason=job.reason,
        expected_start=job.expected_start,
        ends_at=job.ends_at,
        end=job.end,
        since=job.started_at or job.submitted_at,
    )


_ORDER = [Phase.RUNNING, Phase.SUSPENDED, Phase.PENDING, Phase.HELD, Phase.GONE]


def _the_one(same: Sequence[Job]) -> Job:
    """
    Return the job that stands for a launch.

    There is one, unless a submission that seemed lost came through after all: then the one that
    is further on, else the older. The other one's registration is refused, and it leaves.
    """
    return min(
        same, key=lambda job: (not job.is_live, _ORDER.index(job.phase), len(job.id), job.id)
    )


def _result(answer: Mapping[str, Any]) -> Result:
    return Result(
        status=int(answer["status"]), stdout=str(answer["stdout"]), stderr=str(answer["stderr"])
    )


def _printable(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9 ._@-]", "_", plain)[:100]
