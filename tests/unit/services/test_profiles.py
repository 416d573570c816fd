"""What is offered to whom."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, func, insert, select

from perijove.db.core import sync_engine
from perijove.db.offers import list_policies, list_profiles
from perijove.db.tables import metadata, policies, profile_revisions, profiles
from perijove.domain.errors import ConfigError, Invalid, NotFound
from perijove.services.offers import PolicySection, ProfileSection
from perijove.services.profiles import (
    check,
    offered,
    options_schema,
    read_user_options,
)
from tests.unit.services.offered import GIB, load, make_server, make_user

SMALL: dict[str, Any] = {
    "name": "small",
    "memory": "4 GiB",
    "fields": {"cpu": {"default": 1, "max": 4}},
}
GPU: dict[str, Any] = {"name": "gpu-large", "gpu": 1}


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    """Give a connection to an empty SQLite database."""
    engine = sync_engine(f"sqlite:///{tmp_path}/hub.db")
    metadata.create_all(engine)
    with engine.connect() as opened:
        yield opened
    engine.dispose()


def names(connection: Connection) -> list[tuple[str, int]]:
    """Return what is in use, with revisions."""
    return [(each.name, each.revision) for each in list_profiles(connection)]


def test_one_profile_is_built_in(connection: Connection) -> None:
    """Without a word of configuration there is something to start, in four languages."""
    load(connection, spawners=["cluster", "local"])
    [profile] = list_profiles(connection)
    assert (profile.name, profile.spawner) == ("default", "cluster")
    assert set(profile.title) == {"en", "fr", "es", "pt"}


def test_first_own_profile_replaces_the_built_in_one(connection: Connection) -> None:
    """The built-in profile is only there while nothing else is, and comes back."""
    load(connection)
    load(connection, profiles=[SMALL])
    assert names(connection) == [("small", 1)]
    load(connection)
    assert names(connection) == [("default", 1)]


def test_only_a_change_is_a_new_revision(connection: Connection) -> None:
    """Loading the same again changes nothing; a change keeps what launches were admitted with."""
    load(connection, profiles=[SMALL, GPU])
    load(connection, profiles=[SMALL, GPU])
    assert names(connection) == [("small", 1), ("gpu-large", 1)]
    load(connection, profiles=[GPU, {**SMALL, "memory": "8 GiB"}])
    assert names(connection) == [("gpu-large", 1), ("small", 2)]
    stored = connection.scalar(select(func.count()).select_from(profile_revisions))
    assert stored == 3


def test_what_leaves_the_file_is_retired_and_can_return(connection: Connection) -> None:
    """A profile that is gone from the file is offered no more; its history goes on with it."""
    load(connection, profiles=[SMALL, GPU])
    load(connection, profiles=[SMALL])
    assert names(connection) == [("small", 1)]
    load(connection, profiles=[SMALL, {**GPU, "gpu": 2}])
    assert names(connection) == [("small", 1), ("gpu-large", 2)]


def test_rows_of_the_browser_are_not_touched(connection: Connection) -> None:
    """What was made in the browser stays, and its name cannot be taken by the file."""
    load(connection, policies=[{"name": "file", "cpu": 1}])
    connection.execute(
        insert(policies).values(name="mine", position=9, revision=1, source="browser")
    )
    load(connection)
    assert connection.scalar(select(policies.c.retired_at).where(policies.c.name == "mine")) is None
    with pytest.raises(ConfigError, match="'mine' was made in the browser"):
        load(connection, policies=[{"name": "mine"}])


def test_a_profile_of_the_browser_replaces_the_built_in_one(connection: Connection) -> None:
    """Where an administrator has made profiles, nothing is added to them."""
    connection.execute(
        insert(profiles).values(name="mine", position=0, revision=1, source="browser")
    )
    load(connection)
    assert list(connection.scalars(select(profiles.c.name))) == ["mine"]


@pytest.mark.parametrize(
    ("sections", "spawners", "words"),
    [
        ([SMALL, SMALL], ["local"], "'small' is given twice"),
        ([SMALL], ["a", "b"], "must name its spawner: there are a, b"),
        ([{**SMALL, "spawner": "c"}], ["a", "b"], "no spawner 'c', only a, b"),
        ([{**SMALL, "spawner": "c"}], [], "no spawner 'c'"),
    ],
)
def test_faults_between_sections_are_found(
    connection: Connection, sections: list[dict[str, Any]], spawners: list[str], words: str
) -> None:
    """What one section alone cannot know is found at start, and by the check before it."""
    with pytest.raises(ConfigError, match=words):
        load(connection, profiles=sections, spawners=spawners)
    with pytest.raises(ConfigError, match=words):
        check([ProfileSection.model_validate(each) for each in sections], [], spawners=spawners)


def test_a_policy_given_twice_is_an_error(connection: Connection) -> None:
    """Two policies of one name would make a refusal ambiguous."""
    with pytest.raises(ConfigError, match="policy 'a' is given twice"):
        load(connection, policies=[{"name": "a"}, {"name": "a"}])
    with pytest.raises(ConfigError, match="policy 'a' is given twice"):
        check([], [PolicySection(name="a"), PolicySection(name="a")], spawners=["local"])


def test_policies_keep_their_order(connection: Connection) -> None:
    """Top-down is the order of the file, also after it was changed."""
    load(connection, policies=[{"name": "a"}, {"name": "b"}])
    load(connection, policies=[{"name": "c"}, {"name": "b"}, {"name": "a"}])
    assert [policy.name for policy in list_policies(connection)] == ["c", "b", "a"]


def test_profiles_are_hidden_from_other_groups_and_refused_by_policy(
    connection: Connection,
) -> None:
    """What is for another group is not seen; what a policy forbids is seen with the reason."""
    load(
        connection,
        profiles=[SMALL, GPU, {"name": "secret", "groups": ["staff"]}],
        policies=[{"name": "students", "groups": ["students"], "gpu": 0, "profiles": "unlimited"}],
    )
    ann = make_user(connection, "ann", of=["students"])
    offers = offered(connection, ann)
    assert [offer.profile.name for offer in offers] == ["small", "gpu-large"]
    assert [offer.refusal and str(offer.refusal) for offer in offers] == [
        None,
        "GPUs: profile gpu-large needs 1, policy students allows 0",
    ]
    shown = offers[1].as_json()["refused"]
    assert (shown["rule"], shown["policy"], shown["limit"], shown["asked"]) == (
        "gpu",
        "students",
        0,
        1,
    )


def test_form_begins_with_the_last_choice(connection: Connection) -> None:
    """What was chosen last time is chosen again, as far as it is still possible."""
    load(connection, profiles=[GPU, SMALL])
    ann = make_user(connection, "ann")
    make_server(connection, ann, "", {"profile": "small", "options": {"cpu": 99}, "image": "x"})
    form = options_schema(connection, ann)
    assert (form.profile, dict(form.options)) == ("small", {})
    make_server(connection, ann, "two", {"profile": "small", "options": {"cpu": 3}})
    assert options_schema(connection, ann, "two").options == {"cpu": 3}


def test_form_begins_with_the_first_profile_that_can_be_had(connection: Connection) -> None:
    """A remembered profile that is gone, or refused, gives way."""
    load(connection, profiles=[GPU, SMALL], policies=[{"gpu": 0}])
    ann = make_user(connection, "ann")
    make_server(connection, ann, "", {"profile": "gpu-large", "options": {}})
    assert options_schema(connection, ann).profile == "small"
    shown = options_schema(connection, ann, "new").as_json()
    assert shown["chosen"] == {"profile": "small", "options": {}, "dropped": []}
    assert shown["profiles"][1]["schema"]["properties"]["memory"]["default"] == 4 * GIB


def test_unreadable_memory_counts_as_none(connection: Connection) -> None:
    """What an old client left behind does not break the form."""
    load(connection, profiles=[SMALL])
    ann = make_user(connection, "ann")
    make_server(connection, ann, "", {"profile": ["x"], "options": 7})
    assert options_schema(connection, ann).profile == "small"


def test_nobody_is_offered_nothing(connection: Connection) -> None:
    """A user that does not exist is not found."""
    load(connection)
    with pytest.raises(NotFound):
        offered(connection, 4711)


def test_user_options_of_both_forms_are_read() -> None:
    """Options stand below `options`, or beside the profile; what else came is kept apart."""
    wish = read_user_options({"profile": "a", "options": {"cpu": 1, "x": 2}, "image": "i"})
    assert (wish.profile, wish.options, wish.extra) == ("a", {"cpu": 1, "x": 2}, {"image": "i"})
    wish = read_user_options({"cpu": 1, "image": "i"})
    assert (wish.profile, wish.options, wish.extra) == (None, {"cpu": 1}, {"image": "i"})


@pytest.mark.parametrize("body", [{"profile": 1}, {"profile": []}, {"options": 1}, {"options": []}])
def test_user_options_of_wrong_types_are_invalid(body: dict[str, Any]) -> None:
    """The field of the wrong type is named."""
    with pytest.raises(Invalid) as caught:
        read_user_options(body)
    assert caught.value.field in body
