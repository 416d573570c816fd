"""What the contract of spawners and that of submissions say, on real schedulers."""

import json
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp

import anyio
import pytest

from perijove.domain.errors import SpawnerRejected, SpawnerTransient
from perijove.domain.launch import Cause, Resources
from perijove.kit.loops import until
from perijove.spawners.batch.spawner import BatchSpawner
from perijove.spawners.contract import Claim, Handle, Phase, Place, Sighting
from tests.contract.spawners.batch_sites import CODE, BatchSite, seen_by
from tests.contract.spawners.sites import SECRET, find, phase, recorded

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

SCHEDULERS = [
    pytest.param(kind, marks=pytest.mark.needs("root", "users", kind))
    for kind in ("slurm", "gridengine")
]


@pytest.fixture(params=SCHEDULERS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BatchSite]:
    """Give each scheduler in turn; afterwards nothing of the test is left there."""
    found = BatchSite(request.param, tmp_path)
    yield found
    found.clear()


@pytest.fixture
async def spawner(site: BatchSite) -> AsyncIterator[BatchSpawner]:
    """Give an entered spawner on the scheduler."""
    async with site.spawner() as found:
        yield found


PROGRAMS = {
    "slurm": ("sbatch", "scancel", "squeue", "scontrol", "sacct", "sacctmgr"),
    "gridengine": ("qsub", "qdel", "qrls", "qstat", "qhost", "qconf", "qacct"),
}


@pytest.fixture
def programs(site: BatchSite) -> Iterator[Path]:
    """Give a directory with the scheduler's programs, each of which writes down who calls it."""
    folder = Path(mkdtemp(dir="/opt", prefix="perijove-test-"))  # root alone can change it
    folder.chmod(0o755)
    calls = folder / "calls"
    calls.touch()
    calls.chmod(0o666)
    for name in PROGRAMS[site.kind]:
        program = folder / name
        real = shutil.which(name)
        program.write_text(f'#!/bin/sh\necho "$(id -un) {name}" >> {calls}\nexec {real} "$@"\n')
        program.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


async def start(spawner: BatchSpawner, site: BatchSite) -> Handle:
    """Start the site's launch and return the handle of its job, which runs."""
    await spawner.start(site.spec(), recorded)
    running = await phase(spawner, site.name, Phase.RUNNING)
    assert running.handle is not None
    return running.handle


async def test_life(site: BatchSite) -> None:
    """Starts at the same time are one job; every hub sees it; stopped, it never starts again."""
    handles: list[Handle] = []

    async def note(handle: Handle) -> None:
        handles.append(handle)

    async with site.spawner() as one, site.spawner() as other, site.spawner("strange") as strange:

        async def begin(spawner: BatchSpawner) -> None:
            await spawner.start(site.spec(), note)

        async with anyio.create_task_group() as tasks:
            for spawner in (one, other, one, other):
                tasks.start_soon(begin, spawner)
        running = await phase(one, site.name, Phase.RUNNING)
        assert (running.owner, bool(running.node)) == ("alice", True)
        assert running.handle == {"user": "alice", "job_id": site.live()[0]}
        assert {json.dumps(each) for each in handles} == {
            json.dumps({"user": "alice"}),
            json.dumps(running.handle),
        }
        assert len(site.live()) == 1
        seen = await find(other, site.name)
        assert seen is not None
        assert (seen.owner, seen.phase, seen.handle) == ("alice", Phase.RUNNING, running.handle)
        assert await find(strange, site.name) is None

        await has_begun(site)  # else it may never write the log that is to stay
        gone = await one.stop(site.name, running.handle, grace=5)
        assert gone is not None
        assert (gone.name, gone.phase) == (site.name, Phase.GONE)
        assert not site.live()
        late = await other.start(site.spec(), note)
        assert late.phase is Phase.GONE
        assert await find(one, site.name) is None
        await other.stop(site.name, running.handle, grace=5)
        assert not site.live()
    left = {path.name for path in site.folder().iterdir()}
    assert left - {"end.json"} == {".mutex", "cancelled", "job.log", "removed"}


async def test_what_is_in_the_directory_and_nowhere_else(
    site: BatchSite, spawner: BatchSpawner
) -> None:
    """Nobody but the job and its person gets at a secret; the token is not even there."""
    handle = await start(spawner, site)
    folder = site.folder()
    await has_begun(site)
    modes = {path.name: path.stat().st_mode & 0o077 for path in [folder, *folder.iterdir()]}
    assert modes.pop("job.log") & 0o022 == 0  # of the scheduler's making, in a folder of 0700
    assert set(modes.values()) == {0}
    assert folder.parent.stat().st_mode & 0o077 == 0
    texts = {path.name: path.read_text() for path in folder.iterdir()}
    assert {name for name, text in texts.items() if CODE in text or SECRET in text} == {"spec.json"}
    assert "JUPYTERHUB_API_TOKEN" not in json.loads(texts["spec.json"])["environment"]
    for user in ("alice", "bob"):
        told = site.cluster.told(user, handle["job_id"])
        assert site.name in told
        told += seen_by(user)
        assert CODE not in told
        assert SECRET not in told


async def test_a_hub_that_was_killed_has_submitted_once(site: BatchSite) -> None:
    """Killed before it recorded the job, the next hub finds it by its name, in all ways it can."""
    await site.crash()
    (job_id,) = site.live()
    async with site.spawner() as after:
        seen = await after.start(site.spec(), recorded)
        assert seen.handle == {"user": "alice", "job_id": job_id}
    # The launcher was killed as well: it did not write down that the scheduler said yes.
    (site.folder() / "submitted").unlink()
    async with site.spawner() as after:
        seen = await after.start(site.spec(), recorded)
        assert seen.handle == {"user": "alice", "job_id": job_id}
        assert list(site.live()) == [job_id]
        await after.stop(site.name, None, grace=5)
    assert not site.live()


async def test_a_doubtful_submission_is_made_again_when_it_cannot_come_any_more(
    site: BatchSite, spawner: BatchSpawner
) -> None:
    """While a job may still appear nothing is submitted; after that it is, once."""
    await spawner.start(site.spec(), recorded)
    (first,) = site.live()
    site.cluster.cancel(first)
    await is_over(site)
    (site.folder() / "submitted").unlink()
    if site.kind == "slurm":
        # Slurm remembers what is over: it is the launch's job all the same.
        assert (await spawner.start(site.spec(), recorded)).handle == {
            "user": "alice",
            "job_id": first,
        }
        return
    with pytest.raises(SpawnerTransient):
        await spawner.start(site.spec(), recorded)
    assert not site.live()
    (site.folder() / "submitting").write_text('{"at": 1}')
    seen = await spawner.start(site.spec(), recorded)
    assert [{"user": "alice", "job_id": each} for each in site.live()] == [seen.handle]


async def is_over(site: BatchSite) -> None:
    """Wait until the scheduler shows no live job of the launch."""

    async def nothing_lives() -> bool:
        return not site.live()

    assert await until(nothing_lives, seconds=30)


async def test_cancelled_before_it_was_submitted(site: BatchSite) -> None:
    """A stop that comes first, or in between, is obeyed: nothing is submitted."""
    async with site.spawner() as starting, site.spawner() as stopping:

        async def overtake(handle: Handle) -> None:
            await stopping.stop(site.name, handle, grace=5)

        late = await starting.start(site.spec(), overtake)
        assert late.phase is Phase.GONE
        assert late.end is not None
        assert late.end.cause is Cause.NEVER_STARTED
        site.name = site.new_name()
        assert await stopping.stop(site.name, {"user": "alice"}, grace=5) is None
        late = await starting.start(site.spec(), recorded)
        assert late.phase is Phase.GONE
        assert not site.live()


async def test_doubles_are_one_launch_and_end_together(
    site: BatchSite, spawner: BatchSpawner
) -> None:
    """A submission that came through after all is seen as the same launch, and removed with it."""
    handle = await start(spawner, site)
    second = site.copy("alice")
    seen = await find(spawner, site.name)
    assert seen is not None
    assert seen.handle == handle
    assert set(site.live()) == {handle["job_id"], second}
    assert await spawner.stop(site.name, handle, grace=5) is not None
    assert not site.live()


async def test_a_job_deleted_by_its_owner_is_told_from_one_that_failed(site: BatchSite) -> None:
    """Also by a hub that was away meanwhile, and has not seen it go."""
    async with site.spawner() as before:
        handle = await start(before, site)
    await has_begun(site)
    site.cluster.cancel(handle["job_id"])
    await is_over(site)
    async with site.spawner() as after:

        async def is_told() -> bool:
            ends = await after.find_ends({site.name: handle})
            return site.name in ends and ends[site.name].cause is Cause.CANCELLED_OUTSIDE

        assert await until(is_told, seconds=40)


async def test_a_job_that_never_reaches_the_hub_says_so_itself(site: BatchSite) -> None:
    """Before the limit for a start it is over: why, the scheduler tells, and its log in words."""
    async with site.spawner(start_limit=8) as spawner:
        handle = await start(spawner, site)
        reason = ""

        async def is_told() -> bool:
            nonlocal reason
            ends = await spawner.find_ends({site.name: handle})
            reason = ends[site.name].reason if site.name in ends else ""
            return bool(reason)

        assert await until(is_told, seconds=90)
        log = await spawner.log_tail(site.name, handle, lines=3)
    assert reason == "hub-unreachable"
    assert "hub-unreachable: http://127.0.0.1:9/hub/api/perijove/registrations" in log
    assert CODE not in log


async def test_every_call_is_counted(site: BatchSite, programs: Path) -> None:
    """What really ran, for everybody and as the person, the launcher's checks included."""
    async with site.spawner(bin_dir=programs) as spawner:
        handle = await start(spawner, site)
        await spawner.start(site.spec(), recorded)
        await spawner.discover("alice")
        await spawner.validate("alice", Resources(cpu=1, memory_bytes=2**25), {})
        with suppress(SpawnerRejected):  # It runs: there is nothing to release.
            await spawner.release(site.name, [handle])
        await spawner.stop(site.name, handle, grace=5)
        await spawner.find_ends({site.name: handle})
        told = {f"root {name}": count for name, count in spawner.calls().items()}
        told |= {f"alice {name}": count for name, count in spawner.calls_as_people().items()}
    assert told == Counter((programs / "calls").read_text().splitlines())


async def has_begun(site: BatchSite) -> None:
    """Wait until the job's wrapper has said its first words."""

    async def is_said() -> bool:
        log = site.folder() / "job.log"
        return log.exists() and "registering" in log.read_text()

    assert await until(is_said, seconds=60)


async def test_a_strangers_job_with_our_name_is_the_strangers(
    site: BatchSite, spawner: BatchSpawner
) -> None:
    """It is never taken for the person's, gets no token, and is not cancelled as hers."""
    handle = await start(spawner, site)
    forged = site.copy("bob")
    seen: Sequence[Sighting] = (await spawner.survey()).sightings
    assert {(each.owner, (each.handle or {}).get("job_id")) for each in seen} == {
        ("alice", handle["job_id"]),
        ("bob", forged),
    }
    claims: list[list[Handle]] = [[], [{"user": "alice"}], [{"user": "alice"}, handle]]
    for handles in claims:
        with pytest.raises(SpawnerRejected) as caught:
            await spawner.check_claim(
                site.name, handles, Claim(job_id=forged, host="127.0.0.1", port=40000)
            )
        assert caught.value.code == "job-mismatch"
    again = await spawner.start(site.spec(), recorded)
    assert again.handle == handle
    assert await spawner.stop(site.name, handle, grace=5) is not None
    assert list(site.live()) == [forged]


async def test_a_job_on_its_node_is_believed_and_nothing_else(
    site: BatchSite, spawner: BatchSpawner
) -> None:
    """The node's name will do, another host will not, and a job of nobody is not the launch's."""
    handle = await start(spawner, site)
    running = await phase(spawner, site.name, Phase.RUNNING)

    async def claim(host: str, job_id: str = handle["job_id"]) -> Place:
        claimed = Claim(job_id=job_id, host=host, port=40000)
        return await spawner.check_claim(site.name, [{"user": "alice"}, handle], claimed)

    place = await claim(running.node)
    assert place.node == running.node
    assert place.url.endswith(":40000")
    for host, job_id, code in (
        ("203.0.113.7", handle["job_id"], "host-refused"),
        ("169.254.169.254", handle["job_id"], "host-refused"),
        (running.node, "999999999", "job-mismatch"),
    ):
        with pytest.raises(SpawnerRejected) as caught:
            await claim(host, job_id)
        assert caught.value.code == code


EVIL = [
    "#SBATCH --uid=0",
    "\n#SBATCH --uid=0\n",
    "a\n#$ -u root",
    "$(touch /tmp/perijove-pwned)",
    "`id`",
    "; id #",
    "--uid=0",
    "-h",
    "-",
    "a b",
    "it's",
    'a"b',
    "a,b",
    "a\x00b",
    "ünï🐍",
    "\ud800",
    "..",
    "*",
    "a" * 300,
]
FIELDS = ("account", "partition", "qos", "reservation", "gpu_type", "features")
IGNORED = {"slurm": set[str](), "gridengine": {"qos", "gpu_type", "features"}}
"""What a scheduler does not have is never asked of it."""


async def test_nothing_that_is_no_name_reaches_the_scheduler(
    site: BatchSite, spawner: BatchSpawner
) -> None:
    """Every text that could mean something to a shell or a scheduler is refused beforehand."""
    for text in EVIL:
        for field in set(FIELDS) - IGNORED[site.kind]:
            value: object = [text] if field == "features" else text
            spec = site.spec(resources=Resources(gpu=1), options={field: value})
            with pytest.raises(SpawnerRejected) as caught:
                await spawner.start(spec, recorded)
            assert (caught.value.code, caught.value.params["field"]) == ("bad-option", field)
    assert not site.folder().exists()
    assert not spawner.calls()
    assert not spawner.calls_as_people()


@pytest.mark.parametrize("user", ["root", "nobody-at-all", "-h", "alice\n", "Alice", "1001", ""])
async def test_only_an_account_of_that_very_name_submits(
    site: BatchSite, spawner: BatchSpawner, user: str
) -> None:
    """Root, a stranger and what only looks like an account get no job."""
    with pytest.raises(SpawnerRejected) as caught:
        await spawner.start(site.spec(user_name=user), recorded)
    assert caught.value.code in ("account-unknown", "account-refused")
    assert not site.live()


async def test_free_text_is_harmless(site: BatchSite, spawner: BatchSpawner) -> None:
    """What people call their servers, and what stands in its environment, changes no job."""
    name = "".join(each for each in EVIL if each.isprintable())
    spec = site.spec(server_name=name, options={"qos": ""})
    environment = {**spec.environment, "EVIL": "\n#SBATCH --uid=0\n$(id)'\"\n#$ -h\nünï"}
    await spawner.start(site.spec(server_name=name, environment=environment), recorded)
    running = await phase(spawner, site.name, Phase.RUNNING)
    assert running.owner == "alice"
    delivered = json.loads((site.folder() / "spec.json").read_text())
    assert delivered["environment"]["EVIL"] == environment["EVIL"]
    (script,) = site.folder().glob("job.sh")
    assert "#SBATCH" not in script.read_text()
    assert not Path("/tmp/perijove-pwned").exists()
