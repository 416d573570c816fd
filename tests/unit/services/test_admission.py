"""The one decision on every path to a launch."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, func, select

from perijove.db.core import Database, bound, sync_engine
from perijove.db.tables import launches, metadata
from perijove.domain.errors import Forbidden, HubError, Invalid, NotFound, Refused, Throttled
from perijove.domain.policy import queue_limit
from perijove.services.admission import Admission, admit, admit_server, explain
from tests.unit.services.offered import (
    GIB,
    NOW,
    load,
    make_launch,
    make_server,
    make_user,
    new_database,
)

pytestmark = pytest.mark.anyio

PROFILES: list[dict[str, Any]] = [
    {
        "name": "small",
        "environment": {"OMP_NUM_THREADS": "1"},
        "memory": "4 GiB",
        "fields": {"cpu": {"default": 1, "max": 4}, "time": {"default": "1 h", "max": "8 h"}},
    },
    {"name": "gpu-large", "gpu": 1},
]


@pytest.fixture(
    params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs("postgresql"))]
)
def closed_database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """Give an empty database of either kind, made before there is a loop to block."""
    if request.param == "sqlite":
        return new_database(f"sqlite:///{tmp_path}/hub.db")
    return new_database(request.getfixturevalue("postgresql_url"))


@pytest.fixture
async def database(closed_database: Database) -> AsyncIterator[Database]:
    """Open the database."""
    async with closed_database:
        yield closed_database


def start(connection: Connection, user_id: int, name: str, **asked: Any) -> Admission:
    """Admit and insert, as one unit of work does it."""
    admission = admitted(connection, user_id, name, **asked)
    server_id = make_server(connection, user_id, name, admission.remembered())
    make_launch(connection, user_id, server_id, admission)
    return admission


def admitted(connection: Connection, user_id: int, name: str = "", **asked: Any) -> Admission:
    """Admit with what was asked; nothing if nothing is said."""
    wish: dict[str, Any] = {"profile": None, "options": None, **asked}
    return admit(connection, user_id=user_id, server_name=name, now=NOW, **wish)


# --- counting under load ----------------------------------------------------------------------


async def _start_at_once(
    database: Database, people: list[int], *, count: int = 50
) -> list[HubError]:
    """Start `count` servers of these people at once; returns the refusals."""
    refusals: list[HubError] = []

    async def one(number: int) -> None:
        user_id = people[number % len(people)]
        try:
            await database.write(bound(start, user_id, f"s{number}"))
        except (Refused, Throttled) as error:
            refusals.append(error)

    async with anyio.create_task_group() as group:
        for number in range(count):
            group.start_soon(one, number)
    return refusals


@pytest.mark.parametrize("rule", ["active_servers", "group_active_servers", "total_active_servers"])
async def test_fifty_parallel_starts_against_a_limit_of_five(database: Database, rule: str) -> None:
    """However many ask at the same time, exactly five are admitted."""
    unlimited = {"named_servers": "unlimited"}
    policy = {"name": "pool", "groups": ["students"], rule: 5, **unlimited}
    await database.write(bound(load, policies=[policy]))
    how_many = 1 if rule == "active_servers" else 10
    people = [
        await database.write(bound(make_user, f"u{number}", of=["students"]))
        for number in range(how_many)
    ]
    refusals = await _start_at_once(database, people)
    live = await database.read(bound(_count_launches))
    assert (live, len(refusals)) == (5, 45)
    assert {error.params["rule"] for error in refusals} == {rule.replace("_", "-")}
    assert {error.params["policy"] for error in refusals} == {"pool"}


async def test_fifty_parallel_new_names_against_a_limit_of_five(database: Database) -> None:
    """Named servers are counted with the person's row held as well."""
    await database.write(bound(load, policies=[{"named_servers": 5}]))
    ann = await database.write(bound(make_user, "ann"))
    refusals = await _start_at_once(database, [ann])
    assert await database.read(bound(_count_launches)) == 5
    assert {error.code for error in refusals} == {"refused-named-servers"}


async def test_parallel_loads_of_the_configuration_are_one(database: Database) -> None:
    """Several hubs that start at once load the same profiles without a conflict."""
    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(database.write, bound(load, profiles=PROFILES))
    ann = await database.write(bound(make_user, "ann"))
    admission = await database.write(bound(admitted, ann))
    assert admission.spec()["profile"] == {"name": "small", "revision": 1}


def _count_launches(connection: Connection) -> int:
    return connection.scalar(select(func.count()).select_from(launches)) or 0


# --- the decision -----------------------------------------------------------------------------


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    """Give a connection to an empty SQLite database."""
    engine = sync_engine(f"sqlite:///{tmp_path}/hub.db")
    metadata.create_all(engine)
    with engine.connect() as opened:
        yield opened
    engine.dispose()


def test_admission_freezes_the_whole_decision(connection: Connection) -> None:
    """The launch keeps profile revision, options, resources, limits, and who decided them."""
    load(
        connection,
        profiles=PROFILES,
        policies=[{"name": "all", "cpu": 2, "idle_timeout": "2 h", "max_age": "1 d"}],
    )
    ann = make_user(connection, "ann")
    admission = admitted(connection, ann, options={"cpu": 2})
    assert admission.spawner == "local"
    assert admission.remembered() == {"profile": "small", "options": {"cpu": 2}}
    assert admission.spec() == {
        "version": 1,
        "profile": {"name": "small", "revision": 1},
        "options": {"cpu": 2, "memory": 4 * GIB, "time": 3600, "gpu": 0, "ui": "lab"},
        "resources": {"cpu": 2.0, "memory_bytes": 4 * GIB, "gpu": 0, "time_seconds": 3600},
        "default_url": "/lab",
        "environment": {"OMP_NUM_THREADS": "1"},
        "environments": True,
        "image": "",
        "platform": {},
        "limits": {
            "idle_seconds": 7200,
            "max_age_seconds": 86400,
            "queue_seconds": None,
            "queue_wish": None,
            "queue_unanswered": None,
        },
        "decision": [
            {"rule": "cpu", "policy": "all", "limit": 2},
            {"rule": "idle-timeout", "policy": "all", "limit": 7200},
            {"rule": "max-age", "policy": "all", "limit": 86400},
        ],
    }


def test_a_policy_can_lift_the_limit_of_the_queue(connection: Connection) -> None:
    """What a policy says is kept, also that there is no limit: else the spawner's would hold."""
    load(
        connection,
        profiles=PROFILES,
        policies=[
            {"groups": ["patient"], "queue_limit": "unlimited"},
            {"groups": ["hasty"], "queue_limit": "1 h"},
        ],
    )
    kept = {
        name: admitted(connection, make_user(connection, name, of=[name])).spec()["limits"]
        for name in ("patient", "hasty", "anybody")
    }
    said = {name: limits["queue_seconds"] for name, limits in kept.items()}
    assert said == {"patient": "unlimited", "hasty": 3600, "anybody": None}
    assert [queue_limit(kept[name], 60) for name in said] == [None, 3600, 60]


def test_refusals_name_rule_policy_limit_and_asked(connection: Connection) -> None:
    """A person told no learns by which rule of whom, and what would have passed."""
    load(
        connection,
        profiles=PROFILES,
        policies=[{"groups": ["students"], "gpu": 0, "cpu": 2, "default_server": False}],
    )
    ann = make_user(connection, "ann", of=["students"])
    with pytest.raises(Refused, match="profile gpu-large needs 1, policy students allows 0"):
        admitted(connection, ann, "a", profile="gpu-large")
    with pytest.raises(Refused) as caught:
        admitted(connection, ann, "a", options={"cpu": 4})
    error = caught.value
    assert (error.rule, error.params["policy"], error.limit, error.asked, error.field) == (
        "cpu",
        "students",
        2,
        4,
        "cpu",
    )
    with pytest.raises(Refused, match="allows no server without a name") as caught:
        admitted(connection, ann)
    assert caught.value.rule == "default-server"


def test_policy_can_keep_profiles_from_people(connection: Connection) -> None:
    """`profiles` lists what may be started; the first of it is the default."""
    load(connection, profiles=PROFILES, policies=[{"profiles": ["gpu-large"]}])
    ann = make_user(connection, "ann")
    assert admitted(connection, ann).profile.name == "gpu-large"
    with pytest.raises(Refused, match="allows only gpu-large") as caught:
        admitted(connection, ann, profile="small")
    assert (caught.value.rule, caught.value.field) == ("profile", "profile")


@pytest.mark.parametrize("name", ["", "nope", "secret", "SMALL", "\ud800\0", "x" * 10**6])
def test_unknown_and_hidden_profiles_are_the_same(connection: Connection, name: str) -> None:
    """A profile for others cannot be told from one that does not exist."""
    load(connection, profiles=[*PROFILES, {"name": "secret", "groups": ["staff"]}])
    ann = make_user(connection, "ann")
    with pytest.raises(Invalid, match="there are small, gpu-large") as caught:
        admitted(connection, ann, profile=name)
    assert caught.value.code == "profile-unknown"
    assert len(str(caught.value)) < 200


def test_nobody_and_the_blocked_are_not_admitted(connection: Connection) -> None:
    """A user must exist and not be blocked, whatever the policies say."""
    load(connection)
    with pytest.raises(NotFound):
        admitted(connection, 4711)
    with pytest.raises(Forbidden, match="blocked"):
        admitted(connection, make_user(connection, "eve", blocked=True))


def test_person_whom_nothing_is_offered_is_told_so(connection: Connection) -> None:
    """No profile for any of one's groups is an answer, not an accident."""
    load(connection, profiles=[{"name": "a", "groups": ["staff"]}])
    with pytest.raises(Invalid, match="no profile is offered"):
        admitted(connection, make_user(connection, "ann"))


def test_named_servers_can_be_turned_off(connection: Connection) -> None:
    """With none allowed, also one that exists cannot be started, in the wire's words."""
    load(connection, policies=[{"named_servers": 0}])
    ann = make_user(connection, "ann")
    make_server(connection, ann, "old")
    for name in ("old", "new"):
        with pytest.raises(Refused, match=r"^Named servers are not enabled\.$"):
            admit_server(connection, user_id=ann, server_name=name)
    assert admitted(connection, ann).spawner == "local"


def test_server_names_obey_wire_and_policy(connection: Connection) -> None:
    """The wire's rule is invalid for everybody, the policy's a refusal that names it."""
    load(connection, policies=[{"server_name_length": 12, "server_name_pattern": "ws-[a-z]+"}])
    ann = make_user(connection, "ann")
    admit_server(connection, user_id=ann, server_name="ws-maps")
    for name in ("Maps", "..", "a/b", "\0", "\ud800", "x" * 31):
        with pytest.raises(Invalid, match="Invalid server_name"):
            admit_server(connection, user_id=ann, server_name=name)
    for name, rule in (("ws-cartography", "server-name-length"), ("maps", "server-name")):
        with pytest.raises(Refused) as caught:
            admit_server(connection, user_id=ann, server_name=name)
        assert caught.value.rule == rule


def test_a_server_that_exists_is_not_counted_or_renamed(connection: Connection) -> None:
    """Sinking limits stop new servers; those there are go on."""
    load(connection, policies=[{"named_servers": 1, "server_name_length": 10}])
    ann = make_user(connection, "ann")
    make_server(connection, ann, "an-older-longer-name")
    assert admitted(connection, ann, "an-older-longer-name").spawner == "local"
    with pytest.raises(Refused, match=r"already has the maximum of 1 named servers\.  One"):
        admitted(connection, ann, "b")


def test_only_live_wanted_servers_of_others_count(connection: Connection) -> None:
    """An ending launch, a finished one, a job, and the server's own launch take no place."""
    load(connection, policies=[{"active_servers": 1}])
    ann = make_user(connection, "ann")
    mine = make_server(connection, ann, "")
    make_launch(connection, ann, make_server(connection, ann, "a"), wanted="end")
    make_launch(
        connection,
        ann,
        make_server(connection, ann, "b"),
        status="ended",
        ended_at=NOW,
        end_cause="user",
    )
    make_launch(connection, ann, None, kind="job")
    make_launch(connection, ann, mine)
    assert admitted(connection, ann).spawner == "local"
    with pytest.raises(Refused, match="has 1 servers running") as caught:
        admitted(connection, ann, "c")
    assert (caught.value.limit, caught.value.asked) == (1, 2)


def test_a_pool_counts_the_people_of_its_policy(connection: Connection) -> None:
    """Others' servers take no place in it; members' do, also when named one by one."""
    policy = {"name": "pool", "groups": ["g"], "users": ["bob"], "group_active_servers": 1}
    load(connection, policies=[policy])
    ann = make_user(connection, "ann", of=["g"])
    bob = make_user(connection, "bob")
    eve = make_user(connection, "eve")
    start(connection, eve, "")
    start(connection, bob, "")
    with pytest.raises(Refused) as caught:
        admitted(connection, ann)
    assert (caught.value.rule, caught.value.asked) == ("group-active-servers", 2)
    assert admitted(connection, eve, "two").spawner == "local"


def test_total_is_a_limit_that_passes(connection: Connection) -> None:
    """When the hub is full the same request may succeed later, in the wire's words."""
    load(connection, policies=[{"total_active_servers": 0}])
    with pytest.raises(Throttled, match="Active user limit exceeded") as caught:
        admitted(connection, make_user(connection, "ann"))
    assert caught.value.code == "refused-total-active-servers"
    assert caught.value.retry_after > 0


def test_start_without_a_word_repeats_the_last_choice(connection: Connection) -> None:
    """What a server remembers is asked again, as far as it can still be had."""
    load(connection, profiles=PROFILES)
    ann = make_user(connection, "ann")
    make_server(connection, ann, "", {"profile": "small", "options": {"cpu": 3, "time": 9e9}})
    admission = admitted(connection, ann)
    assert admission.choice.asked == {"cpu": 3}
    assert admitted(connection, ann, options={}).choice.asked == {}
    assert admitted(connection, ann, profile="gpu-large").choice.asked == {}
    make_server(connection, ann, "gone", {"profile": "gone", "options": {"cpu": 3}})
    assert admitted(connection, ann, "gone").spec()["options"]["cpu"] == 1


def test_explanation_says_what_holds_and_who_says_so(connection: Connection) -> None:
    """An administrator sees limits, authors, the overruled, use, and what is refused."""
    load(
        connection,
        profiles=PROFILES,
        policies=[
            {"groups": ["students"], "gpu": 0, "memory": "unlimited"},
            {"memory": "8 GiB", "active_servers": 3},
        ],
    )
    ann = make_user(connection, "ann", of=["students"])
    start(connection, ann, "a")
    told = explain(connection, ann)
    msgspec.json.encode(told)
    rules = {each["rule"]: each for each in told["limits"]}
    assert rules["memory"] == {
        "rule": "memory",
        "limit": None,
        "policy": "students",
        "used": None,
        "overruled": [{"policy": "everyone", "limit": 8 * GIB}],
    }
    assert (rules["active-servers"]["limit"], rules["active-servers"]["used"]) == (3, 1)
    assert (rules["named-servers"]["policy"], rules["named-servers"]["used"]) == ("built-in", 1)
    assert [(each["name"], bool(each["refused"])) for each in told["profiles"]] == [
        ("small", False),
        ("gpu-large", True),
    ]


# --- attacks ----------------------------------------------------------------------------------

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)
_ENGINE = create_engine("sqlite://")


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.text(max_size=40) | st.sampled_from(["", "a", "ws-1", "..", "a" * 31]),
    profile=st.none() | st.text(max_size=20) | st.sampled_from(["small", "gpu-large"]),
    options=st.none()
    | st.dictionaries(
        st.sampled_from(["cpu", "memory", "time", "gpu", "ui"]) | st.text(max_size=5),
        ANYTHING,
        max_size=4,
    ),
    caps=st.fixed_dictionaries(
        {},
        optional={
            "cpu": st.sampled_from([0.5, 1, 2.5]),
            "memory": st.sampled_from([GIB, 4 * GIB]),
            "time": st.sampled_from([60, 4000]),
            "gpu": st.integers(0, 1),
        },
    ),
)
def test_anything_is_admitted_within_limits_or_refused(
    name: str, profile: str | None, options: dict[str, Any] | None, caps: dict[str, Any]
) -> None:
    """No name, profile or option gets beyond a cap, or ends in another error than ours."""
    admission, said = None, []
    with _ENGINE.connect() as connection:
        metadata.create_all(connection)
        load(connection, profiles=PROFILES, policies=[caps])
        ann = make_user(connection, "ann")
        try:
            admission = admitted(connection, ann, name, profile=profile, options=options)
        except (Invalid, Refused) as error:
            said.append(str(error))
        connection.rollback()
    if admission is None:
        assert said[0].isprintable()
        return
    spec = admission.spec()
    msgspec.json.encode([spec, admission.remembered()])
    for key, cap in caps.items():
        assert spec["options"][key] <= cap


# --- safe mode --------------------------------------------------------------------------------


def test_safe_mode_is_for_one_start(connection: Connection) -> None:
    """It starts what was asked for last, is kept in the launch, and remembered by no server."""
    load(connection, profiles=PROFILES)
    ann = make_user(connection, "ann")
    kinds = {"local": "slurm"}
    make_server(connection, ann, "s", {"profile": "small", "options": {"cpu": 3}})
    for value in (True, "1"):
        found = admitted(connection, ann, "s", options={"safe_mode": value}, kinds=kinds)
        assert found.spec()["options"]["safe_mode"] is True
        assert found.spec()["options"]["cpu"] == 3
        assert found.remembered() == {"profile": "small", "options": {"cpu": 3}}


def test_safe_mode_is_refused_where_there_is_none(connection: Connection) -> None:
    """On a platform without jobs, or with another value, it is an unknown option."""
    load(connection, profiles=PROFILES)
    ann = make_user(connection, "ann")
    for kinds, value in (({}, True), ({"local": "slurm"}, "perhaps")):
        with pytest.raises(Invalid) as caught:
            admitted(connection, ann, options={"safe_mode": value}, kinds=kinds)
        assert "safe_mode" in str(caught.value)
