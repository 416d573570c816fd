"""A hub full of things to look at: every state a server can be in, long names, many servers."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio.to_thread
import msgspec
from sqlalchemy import Connection, insert, select, update

from perijove.auth.contract import Authenticator
from perijove.db import environments, schema
from perijove.db.core import open_database
from perijove.db.events import record
from perijove.db.installation import beat, ensure_installation
from perijove.db.launches import append_handle
from perijove.db.servers import Server, ensure_server
from perijove.db.tables import discoveries, group_members, groups, launches, servers, spawner_states
from perijove.db.volumes import UnknownVolume, Volume, insert_volume, note_unknown
from perijove.domain.asking import HUB, Asking
from perijove.domain.environments import Maker, State
from perijove.domain.launch import Status
from perijove.domain.offer import Account, Free, Offer, OwnJob, Partition, Shape
from perijove.domain.storage import Kept
from perijove.kit.clock import SystemClock
from perijove.kit.keyring import Keyring
from perijove.services import profiles, roles
from perijove.services.access import caller_of_user
from perijove.services.choices import ImageSection
from perijove.services.hub import Hub, PlacedSpawner
from perijove.services.offers import PolicySection, ProfileSection
from perijove.services.people import StoredPasswords, ensure_user, store_password
from perijove.services.sections import HubSection, LifecycleSection
from perijove.services.senders import NotifySection
from perijove.services.sessions import SigningIn, Visitor, open_session
from perijove.services.tokens import NewToken, create_token
from perijove.spawners.contract import Handle, Surroundings
from tests.doors import CHEAP, demo, native
from tests.fakes.offers import cluster_offer
from tests.fakes.spawners import MemorySettings, MemorySpawner, Tells

GIB = 2**30
PASSWORD = "correct horse battery"
LOG = """\
[I 2026-11-20 12:00:01.204 ServerApp] jupyterlab | extension was successfully linked.
[I 2026-11-20 12:00:01.390 ServerApp] Serving notebooks from local directory: /home/ann
[W 2026-11-20 12:00:01.402 ServerApp] <script>alert("a log is not a page")</script>
[C 2026-11-20 12:00:01.533 ServerApp] ModuleNotFoundError: No module named 'tensorflow'
"""
LONG = "Spectroscopie-infrarouge-à-transformée-de-Fourier-Donaudampfschifffahrtsgesellschaft"

PROFILES = [
    ProfileSection.model_validate(each)
    for each in (
        {
            "name": "small",
            "title": {"en": "Small", "fr": "Petit", "es": "Pequeño", "pt": "Pequeno"},
            "description": {
                "en": "For reading, teaching and light analysis.",
                "fr": "Pour lire, enseigner et faire des analyses légères.",
            },
            "cpu": 1,
            "memory": "4 GiB",
        },
        {
            "name": "interactive",
            "title": {"en": "Interactive", "fr": "Interactif"},
            "description": "You choose cores, memory and time.",
            "cpu": 2,
            "memory": "8 GiB",
            "fields": {
                "cpu": {"default": 2, "min": 1, "max": 16, "step": 1},
                "memory": {"default": "8 GiB", "min": "1 GiB", "max": "64 GiB", "step": "1 GiB"},
                "time": {"default": "2 h", "max": "8 h", "min": "15 min", "step": "15 min"},
                "ui": {"default": "lab"},
            },
        },
        {
            "name": "gpu",
            "title": {"en": "With a GPU", "fr": "Avec un GPU"},
            "description": "One or two accelerators for training and simulation.",
            "cpu": 8,
            "memory": "64 GiB",
            "time": "4 h",
            "fields": {"gpu": {"default": 1, "choices": [1, 2]}},
        },
        {
            "name": "huge",
            "title": "Huge",
            "description": "For the whole collaboration.",
            "cpu": 128,
            "memory": "1 TiB",
        },
    )
]
BATCH = ProfileSection.model_validate(
    {
        "name": "batch",
        "title": {"en": "Batch session", "fr": "Session en file d’attente"},
        "description": {
            "en": "As a job on the cluster, with what it has for you.",
            "fr": "Une tâche sur la grappe, avec ce qu’elle a pour vous.",
        },
        "groups": ["researchers"],
        "spawner": "slurm",
        "fields": {
            "account": {},
            "partition": {"choices": ["cpu", "gpu"]},
            "qos": {"default": "normal", "locked": True},
            "reservation": {},
            "cpu": {"default": 2, "min": 1, "max": 128, "step": 1},
            "memory": {"default": "8 GiB", "min": "1 GiB", "max": "2 TiB", "step": "1 GiB"},
            "time": {"default": "2 h", "min": "15 min", "max": "7 d", "step": "15 min"},
            "gpu": {},
            "gpu_type": {},
            "features": {},
            "ui": {"default": "lab"},
        },
    }
)
"""On a platform that tells what it has; for some people only."""
QUEUES = ProfileSection.model_validate(
    {
        "name": "queues",
        "title": {"en": "Interactive job", "fr": "Tâche interactive"},
        "description": {"en": "In a queue of the old cluster.", "fr": "Sur l’ancienne grappe."},
        "groups": ["chemists"],
        "spawner": "grid",
        "fields": {
            "account": {},
            "partition": {},
            "memory": {"default": "4 GiB", "min": "1 GiB", "max": "64 GiB", "step": "1 GiB"},
            "cpu": {"default": 1, "min": 1, "max": 16, "step": 1},
            "gpu": {},
        },
    }
)
"""On a platform of another kind, which is silent."""
IMAGES = {
    name: ImageSection.model_validate(each)
    for name, each in {
        "astro": {
            "image": "registry.example.org/site/astronomy:2026-11",
            "title": {"en": "Astronomy", "fr": "Astronomie"},
            "description": {
                "en": "Python and R with the site’s database library.",
                "fr": "Python et R avec la bibliothèque de la base de données du site.",
            },
            "packages": ["Python 3.13", "R 4.5", "Astropy 7", "NumPy", "Matplotlib"],
        },
        "minimal": {
            "image": "registry.example.org/site/minimal:2026-11",
            "title": {"en": "Minimal", "fr": "Minimale"},
            "description": {
                "en": "Python alone: install what you need.",
                "fr": "Python seul : installez ce dont vous avez besoin.",
            },
            "packages": ["Python 3.13"],
        },
    }.items()
}
CONTAINERS = ProfileSection.model_validate(
    {
        "name": "workspace",
        "title": {"en": "Workspace", "fr": "Espace de travail"},
        "description": {"en": "In a container on the cloud.", "fr": "Dans un conteneur."},
        "groups": ["astronomers"],
        "spawner": "cluster",
        "fields": {
            "image": {
                "free": {
                    "pattern": r"(quay\.io|registry\.example\.org)/\S+",
                    "title": {"en": "Another image", "fr": "Une autre image"},
                    "message": {
                        "en": "Only images of quay.io and registry.example.org can be used.",
                        "fr": "Seules les images de quay.io et de registry.example.org"
                        " sont utilisables.",
                    },
                }
            }
        },
        "choices": {
            "size": {
                "title": {"en": "Size", "fr": "Taille"},
                "options": {
                    "small": {
                        "title": {"en": "Small", "fr": "Petite"},
                        "set": {"cpu": 1, "memory": "4 GiB"},
                    },
                    "medium": {
                        "title": {"en": "Medium", "fr": "Moyenne"},
                        "set": {"cpu": 2, "memory": "8 GiB"},
                    },
                    "large": {
                        "title": {"en": "Large", "fr": "Grande"},
                        "set": {"cpu": 4, "memory": "16 GiB"},
                    },
                },
            },
            "catalogue": {
                "title": {"en": "Catalogue", "fr": "Catalogue"},
                "options": {
                    f"release-{number}": {"title": f"Data release {number}"}
                    for number in range(1, 11)
                },
                "other": {
                    "pattern": "[a-z0-9-]{1,40}",
                    "set": {"environment": {"CATALOGUE": "{value}"}},
                },
            },
        },
    }
)
"""In containers: images, sizes, a long list of choices, and texts of one's own."""
POLICIES = [
    PolicySection.model_validate(
        {"name": "everyone", "named_servers": 25, "cpu": 64, "idle_timeout": "2 h"}
    )
]


class TalkingSpawner(MemorySpawner):
    """The spawner in memory, with a log to show and a warning to give."""

    async def log_tail(self, name: str, handle: Handle | None, *, lines: int) -> str:
        """Return the same last lines for everything."""
        return LOG

    def warnings(self, *, public: bool) -> list[str]:
        """Warn of what the local spawner warns of."""
        return ["local-shared-account"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A launch to insert, told by its age: so many minutes ago it was asked for."""

    server: str
    display_name: str = ""
    status: Status = Status.READY
    ago: float = 60
    profile: str = "interactive"
    resources: Mapping[str, Any] = field(
        default_factory=lambda: {"cpu": 4, "memory_bytes": 16 * GIB, "time_seconds": 3 * 3600}
    )
    idle_minutes: float = 0
    reason: Mapping[str, Any] | None = None
    end: Mapping[str, Any] | None = None
    node: str = "node-042"
    unknown: bool = False
    spawner: str = "cluster"
    forecast: float | None = None
    """In so many minutes it is expected to start."""
    asked: bool = False
    """Its owner was asked whether to go on waiting."""


ANNS = [
    Scene(server="", ago=95, idle_minutes=25),
    Scene(
        server="climate",
        display_name="Climate model",
        status=Status.QUEUED,
        ago=12,
        node="",
        reason={"code": "priority", "params": {}, "words": "(Priority) QOSMaxCpuPerUserLimit"},
    ),
    Scene(server="starting", display_name="Course PHY 201", status=Status.STARTING, ago=0.4),
    Scene(server="line", display_name="Waiting in line", status=Status.REQUESTED, ago=0.5, node=""),
    Scene(
        server="memory",
        display_name="Genome assembly",
        status=Status.ENDED,
        ago=400,
        end={"cause": "out-of-memory", "code": None, "reason": "", "detail": ""},
    ),
    Scene(
        server="late",
        display_name="Never came up",
        status=Status.ENDED,
        ago=30,
        end={
            "cause": "never-started",
            "code": None,
            "reason": "start-clock",
            "detail": "Spawn failed: Timeout. The start clock ran out after 300 s.",
        },
    ),
    Scene(
        server="low",
        display_name="Nearly over",
        ago=175,
        unknown=True,
        resources={"cpu": 8, "memory_bytes": 64 * GIB, "gpu": 2, "time_seconds": 3 * 3600},
    ),
    Scene(server="long", display_name=LONG, ago=20, node="a-node-with-a-very-long-name.cluster"),
]


PEOPLE = ("admin", "ann", "bea", "gus", "ida", "kim", "zoe", "max", "vera", "o.brien@example.org")
VERAS = [
    Scene(server="", ago=95),
    *(
        Scene(
            server=server,
            display_name=display_name,
            status=Status.ENDED,
            ago=4000,
            end={"cause": "idle", "code": None, "reason": "", "detail": ""},
        )
        for server, display_name in (
            ("spectra", "Infrared spectra"),
            ("rescue", "Sequencing run 17"),
            ("lost", "Old survey"),
        )
    ),
]
_SMALL = {"cpu": 2, "memory_bytes": 8 * GIB, "time_seconds": 2 * 3600}
KIMS = [
    Scene(
        server="limit",
        display_name="Protein folding",
        status=Status.QUEUED,
        ago=26,
        node="",
        forecast=38,
        resources=_SMALL,
        reason={"code": "max-jobs-user", "params": {}, "words": "(QOSMaxJobsPerUserLimit)"},
    ),
    Scene(
        server="asked",
        display_name="Over the week-end",
        status=Status.QUEUED,
        ago=26 * 60,
        node="",
        asked=True,
        resources={**_SMALL, "gpu": 1},
        reason={"code": "resources", "params": {}, "words": "(Resources)"},
    ),
    Scene(
        server="silent",
        display_name="On the old cluster",
        status=Status.QUEUED,
        ago=90,
        node="",
        spawner="grid",
        unknown=True,
        reason={"code": "no-slots", "params": {}, "words": 'cannot run in PE "smp"'},
    ),
    Scene(
        server="never",
        display_name="Far too long",
        status=Status.ENDED,
        ago=31,
        resources={**_SMALL, "time_seconds": 200 * 3600},
        end={
            "cause": "never-started",
            "code": None,
            "reason": "over-time-limit",
            "detail": "(PartitionTimeLimit)",
        },
    ),
    Scene(
        server="time",
        display_name="Time was over",
        status=Status.ENDED,
        ago=31,
        resources=_SMALL,
        end={"cause": "walltime", "code": None, "reason": "", "detail": "TIMEOUT"},
    ),
    Scene(server="short", display_name="Nearly over", ago=112, resources=_SMALL),
    *(
        Scene(
            server=f"before{number}",
            status=Status.ENDED,
            ago=60 * 24 * number,
            resources=_SMALL,
            end={"cause": "user", "code": None, "reason": "", "detail": ""},
        )
        for number in range(1, 6)
    ),
]
IDAS = [
    Scene(
        server="survey",
        display_name="Sky survey",
        status=Status.SUBMITTED,
        ago=2,
        node="",
        profile="workspace",
        resources={"cpu": 2, "memory_bytes": 8 * GIB},
        reason={"code": "pulling-image", "params": {"percent": 42}, "words": "Extracting 3 of 7"},
    ),
    Scene(
        server="held",
        display_name="For tonight",
        status=Status.HELD,
        ago=240,
        node="",
        profile="workspace",
        resources=_SMALL,
        reason={"code": "held-by-user", "params": {}, "words": "(JobHeldUser)"},
    ),
]
OFFER = Offer(
    as_of=datetime(2026, 1, 1, tzinfo=UTC),
    accounts=(Account(name="chem", is_default=True), Account(name="teaching")),
    partitions=(
        Partition(name="main", is_default=True, max_seconds=86400),
        Partition(name="long", max_seconds=7 * 86400),
    ),
    shapes=(
        Shape(
            nodes=("node-1", "node-2", "node-3"),
            partitions=("main",),
            cpus=32,
            memory_bytes=128 * GIB,
            gpus={"a100": 2},
            free=(
                Free(cpus=12, memory_bytes=64 * GIB, gpus={"a100": 1}),
                Free(cpus=4, memory_bytes=8 * GIB),
            ),
        ),
    ),
    own_jobs=(
        OwnJob(id="4711", name="train.sh", state="running", cpus=8, gpus=1),
        OwnJob(id="4720", name="sweep_<b>", state="queued", cpus=32),
    ),
)
"""What the cluster last said that kim can have."""
NOTIFY = NotifySection.model_validate(
    {
        "email": {
            "host": "localhost",
            "sender": "hub@example.org",
            "to": "{name}@example.org",
        },
        "webhook": {"url": "https://example.org/hook", "secret": "of no importance"},
    }
)


@asynccontextmanager
async def gallery_hub(
    database_url: str,
    directory: Path,
    *,
    settings: Mapping[str, Any] | None = None,
    doors: tuple[str, ...] = ("native",),
) -> AsyncIterator[Hub]:
    """Open a hub with all scenes; no loops, so that nothing moves."""
    clock = SystemClock()
    section = HubSection.model_validate(
        {
            "title": "Rivière Computing",
            "footer": "A service of the Rivière laboratory",
            "links": {
                "account": "https://example.org/account",
                "status": "https://status.example.org",
                "help": "https://docs.example.org",
            },
            "data_dir": directory,
            **(settings or {}),
        }
    )
    await anyio.to_thread.run_sync(schema.ensure, database_url)
    async with open_database(database_url) as database:
        passwords = StoredPasswords(database, clock)
        authenticators: dict[str, Authenticator] = {
            name: native(passwords) if name == "native" else demo(passwords, password="any")
            for name in doors
        }

        def first_rows(connection: Connection) -> str:
            now = clock.now()
            name = ensure_installation(connection, now=now)
            beat(connection, now=now)
            roles.load(connection, section, now=now)
            profiles.load_offers(
                connection,
                profiles=[
                    *(each.model_copy(update={"spawner": "cluster"}) for each in PROFILES),
                    BATCH,
                    CONTAINERS,
                    QUEUES,
                ],
                images=IMAGES,
                policies=POLICIES,
                spawners=["cluster", "slurm", "grid"],
                now=now,
            )
            return name

        installation = await database.write(first_rows)
        surroundings = Surroundings(name="cluster", installation=installation, data_dir=directory)
        spawner = TalkingSpawner(MemorySettings(), surroundings)
        hub = Hub(
            database=database,
            clock=clock,
            keyring=Keyring({"test": b"k" * 32}),
            installation=installation,
            settings=section,
            lifecycle=LifecycleSection(),
            notify=NOTIFY,
            api_url="http://127.0.0.1:8081/hub/api",
            spawners={
                "cluster": PlacedSpawner(spawner=spawner, settings=MemorySettings()),
                "grid": PlacedSpawner(
                    spawner=Tells(
                        spawner, replace(OFFER, as_of=clock.now() - timedelta(minutes=7))
                    ),
                    settings=MemorySettings(kind="gridengine"),
                ),
                "slurm": PlacedSpawner(
                    spawner=Tells(spawner, cluster_offer(clock.now())),
                    settings=MemorySettings(kind="slurm"),
                ),
            },
            authenticators=authenticators,
        )
        hash_ = CHEAP.hash(PASSWORD)
        await database.write(lambda connection: _insert_all(connection, hub, hash_))
        yield hub


async def cookie_of(hub: Hub, name: str) -> str:
    """Sign a person in; returns the login cookie."""

    def unit(connection: Connection) -> str:
        now = hub.clock.now()
        signing_in = SigningIn(
            user_id=ensure_user(connection, name, now=now).id,
            user_name=name,
            authenticator="native",
            visitor=Visitor(address="192.0.2.7", device="Mozilla/5.0 (X11; Linux) Firefox/140.0"),
        )
        lifetime = timedelta(days=1)
        return open_session(connection, signing_in, now=now, lifetime=lifetime).cookie

    return await hub.database.write(unit)


def _insert_all(connection: Connection, hub: Hub, hash_: str) -> None:
    now = hub.clock.now()
    people = {
        name: ensure_user(connection, name, now=now, admin=name == "admin").id for name in PEOPLE
    }
    for group, member in (("researchers", "bea"), ("astronomers", "ida"), ("chemists", "gus")):
        made = insert(groups).values(name=group, created_at=now).returning(groups.c.id)
        group_id = connection.scalar(made)
        connection.execute(insert(group_members).values(group_id=group_id, user_id=people[member]))
    for user_id in people.values():
        store_password(connection, user_id, hash_, now=now)
    for scene in ANNS:
        _insert(connection, people["ann"], "ann", scene, now)
    for scene in KIMS:
        _insert(connection, people["kim"], "kim", scene, now)
    for scene in IDAS:
        _insert(connection, people["ida"], "ida", scene, now)
    body = msgspec.to_builtins(replace(OFFER, as_of=now - timedelta(seconds=50)), enc_hook=dict)
    connection.execute(
        insert(discoveries).values(
            spawner="cluster", user_id=people["kim"], body=body, as_of=now, asked_at=now
        )
    )
    for number in range(20):
        ended = number % 3 == 2
        scene = Scene(
            server=f"project{number}" if number else "",
            display_name=f"Project {number}" if number else "",
            ago=30 * (number + 1),
            status=Status.ENDED if ended else Status.READY,
            end={"cause": "idle", "code": None, "reason": "", "detail": ""} if ended else None,
            resources={"cpu": 2, "memory_bytes": 8 * GIB},
        )
        _insert(connection, people["max"], "max", scene, now)
    _insert_token(connection, people["ann"], now)
    _insert_volumes(connection, people["vera"], now)
    _insert_environments(connection, people["vera"], people["ida"], now)
    connection.execute(
        insert(spawner_states).values(
            name="cluster", answered_at=now, complete_at=now - timedelta(seconds=8)
        )
    )
    connection.execute(
        insert(spawner_states).values(
            name="grid",
            complete_at=now - timedelta(minutes=7),
            failing_since=now - timedelta(minutes=7),
            error="commlib error: can't connect",
        )
    )


def _insert_volumes(connection: Connection, user_id: int, now: datetime) -> None:
    """Let vera keep something in every state."""
    for number, scene in enumerate(VERAS):
        _insert(connection, user_id, "vera", scene, now)
        server = ensure_server(connection, user_id, scene.server, now=now)
        insert_volume(connection, _volume(f"pj-s4g2-{number:016}", user_id, server, now))
    spare = _volume("pj-s4g2-thesisthesis2025", user_id, None, now)
    until = now + timedelta(days=6)
    deleted = replace(spare, server_name="thesis", delete_after=until, attached=False)
    insert_volume(connection, deleted)
    note_unknown(
        connection,
        UnknownVolume(
            spawner="cluster",
            name="pj-s4g2-yesterday0yester",
            used_bytes=41 * GIB,
            labels={"user": "h.curien", "server": "spectra"},
            first_seen_at=now - timedelta(days=2),
        ),
    )


def _insert_environments(connection: Connection, user_id: int, other: int, now: datetime) -> None:
    """Let vera have environments in every state, and one that ida shares with her."""
    name = "pj-s4g2-0000000000000000"
    spec = {"version": 1, "environments": True, "volumes": [{"name": name, "path": "/home/jovyan"}]}
    connection.execute(update(launches).where(launches.c.id == "lch_veradefault").values(spec=spec))
    group_id = connection.scalar(select(groups.c.id).where(groups.c.name == "astronomers"))
    connection.execute(insert(group_members).values(group_id=group_id, user_id=user_id))
    given: dict[str, Any] = {"place": f"volume:{name}", "created_at": now, "changed_at": now}
    ready = {"lock": "numpy==2.3.1\n", "state": State.READY, "size_bytes": 700 * 2**20}
    many = ["astropy>=7", "photutils", "reproject", "numpy", "matplotlib", "ipympl", "specutils"]
    soon = now + timedelta(hours=1)
    words = "ERROR: Could not find a version that satisfies the requirement torch==9 " * 40
    for values in (
        {"name": "astro-2026", "packages": many, "is_locked": True, **ready},
        {"name": "building", "packages": ["pandas"], "state": State.BUILDING, "seen_at": soon},
        {"name": "torch", "packages": ["torch==9"], **ready, "state": State.FAILED, "error": words},
        {"name": "waiting", "packages": [], "state": State.WANTED},
        {"name": "going", "packages": ["dask"], "state": State.REMOVING, "is_wanted": False},
        {"name": "my-conda", "packages": [], "maker": Maker.HAND, "state": State.READY},
    ):
        environments.add(connection, **{"maker": Maker.HUB, "user_id": user_id, **given, **values})
    shared = {"name": "survey", "packages": many, "shared": ["astronomers"], **ready}
    environments.add(connection, maker=Maker.HUB, user_id=other, **given, **shared)


def _volume(name: str, user_id: int, server: Server | None, now: datetime) -> Volume:
    measured = {"": 0.95, "spectra": 1.4, "rescue": 2.0, "lost": None}
    used = measured.get(server.name) if server else 0.7
    is_lost = server is not None and server.name == "lost"
    return Volume(
        name=name,
        spawner="cluster",
        kind=Kept.SERVER,
        user_id=user_id,
        user_name="vera",
        server_id=server.id if server else None,
        server_name=server.name if server else "",
        path="/home/jovyan",
        size_bytes=2 * GIB,
        storage_class="",
        retention_seconds=7 * 86400,
        created_at=now - timedelta(days=90),
        last_used_at=now - timedelta(days=3),
        seen_at=now,
        missing_since=now - timedelta(hours=5) if is_lost else None,
        used_bytes=None if used is None else int(used * GIB),
        measured_at=None if used is None else now,
        enforced=server is None or server.name != "spectra",
        held_by="pj-lch" if server is not None and not server.name else "",
    )


def _insert_token(connection: Connection, user_id: int, now: datetime) -> None:
    ann = caller_of_user(connection, user_id)
    assert ann is not None
    for note, scopes, seconds in (
        ("Laptop", ["servers!user", "read:users!user"], 86400 * 30),
        ("A script that fetches results every night", ["inherit"], None),
    ):
        create_token(
            connection, ann, NewToken(note=note, scopes=scopes, expires_in=seconds), now=now
        )


def _insert(connection: Connection, user_id: int, user: str, scene: Scene, now: datetime) -> None:
    server = ensure_server(
        connection, user_id, scene.server, now=now, display_name=scene.display_name
    )
    asked = now - timedelta(minutes=scene.ago)
    launch_id = f"lch_{user}{scene.server or 'default'}"
    stamps = _stamps(scene, asked)
    connection.execute(
        insert(launches).values(
            id=launch_id,
            kind="server",
            wanted="run" if scene.end is None else "end",
            status=scene.status,
            name=f"pj-{launch_id}",
            spawner=scene.spawner,
            user_id=user_id,
            user_name=user,
            server_id=server.id,
            server_name=scene.server,
            generation=1,
            spec={
                "version": 1,
                "profile": {"name": scene.profile, "revision": 1},
                "options": {},
                "resources": dict(scene.resources),
                "limits": {"idle_seconds": 7200},
            },
            node=scene.node,
            reason=dict(scene.reason) if scene.reason else None,
            end_cause=scene.end["cause"] if scene.end else None,
            end=dict(scene.end) if scene.end else None,
            unknown_since=now - timedelta(minutes=3) if scene.unknown else None,
            last_activity=stamps.get("ending_at", now - timedelta(minutes=scene.idle_minutes)),
            expected_start=now + timedelta(minutes=scene.forecast) if scene.forecast else None,
            estimated_at=now - timedelta(minutes=1) if scene.forecast else None,
            queue_asked_at=now - timedelta(hours=2) if scene.asked else None,
            requested_at=asked,
            **stamps,
        )
    )
    connection.execute(update(servers).where(servers.c.id == server.id).values(launch_id=launch_id))
    append_handle(connection, launch_id, {"job": 4711}, now=now)
    _tell(connection, launch_id, user, scene, asked, stamps)


_ORDER = (
    (Status.SUBMITTED, "submitted_at"),
    (Status.QUEUED, "queued_at"),
    (Status.STARTING, "starting_at"),
    (Status.CONNECTING, "connecting_at"),
    (Status.READY, "ready_at"),
)


def _stamps(scene: Scene, asked: datetime) -> dict[str, datetime]:
    """Return when each status was entered: a second after the one before it."""
    reached = [status for status, _ in _ORDER]
    if scene.status in reached:
        reached = reached[: reached.index(scene.status) + 1]
    elif scene.status is Status.REQUESTED:
        reached = []
    elif scene.status is Status.HELD:
        reached = reached[:2]
    elif scene.end and scene.end["cause"] == "never-started":
        reached = reached[:3]
    stamps = {
        column: asked + timedelta(seconds=2 * number)
        for number, (status, column) in enumerate(_ORDER, 1)
        if status in reached
    }
    if scene.status is Status.ENDED:
        stamps |= {"ending_at": asked + timedelta(minutes=20)}
        stamps |= {"ended_at": asked + timedelta(minutes=20, seconds=4)}
    return stamps


def _tell(
    connection: Connection,
    launch_id: str,
    user: str,
    scene: Scene,
    asked: datetime,
    stamps: Mapping[str, datetime],
) -> None:
    person = Asking(actor=user)
    record(connection, launch_id, "requested", {}, asking=person, now=asked)
    for status, column in _ORDER:
        if column in stamps:
            params = {"node": scene.node} if status is Status.STARTING else {}
            record(connection, launch_id, status, params, asking=HUB, now=stamps[column])
    if scene.end:
        cause = {"cause": scene.end["cause"]}
        at = stamps["ending_at"]
        if scene.end["cause"] in ("idle", "never-started"):
            record(connection, launch_id, "end-wanted", cause, asking=HUB, now=at)
        record(connection, launch_id, "ending", cause, asking=HUB, now=at)
        record(connection, launch_id, "ended", dict(scene.end), asking=HUB, now=stamps["ended_at"])
