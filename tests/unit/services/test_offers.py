"""The sections of profiles and policies."""

import tomllib
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from perijove.domain.policy import Policy, Rule
from perijove.domain.profile import Profile
from perijove.services.offers import PolicySection, ProfileSection, policy_names

SKETCH = """
[[profiles]]
name = "small"
spawner = "k8s"
title = { en = "Small", fr = "Petit", es = "Pequeño" }
cpu = 1
memory = "4 GiB"

[[profiles]]
name = "interactive"
spawner = "narval"
[profiles.fields]
time = { default = "1 h", max = "8 h", step = "15 min" }
memory = { max = "64 GiB" }
gpu = {}
ui = { default = "lab", locked = true }

[[policies]]
groups = ["*"]
named_servers = 5
server_name_length = 20
idle_timeout = "2 h"
"""


def test_the_designs_sketch_is_read() -> None:
    """The file that the design shows is a configuration, and says what it seems to."""
    file = tomllib.loads(SKETCH)
    small, interactive = (ProfileSection(**each) for each in file["profiles"])
    assert small.body("local") == {
        "spawner": "k8s",
        "title": {"en": "Small", "fr": "Petit", "es": "Pequeño"},
        "description": {},
        "groups": ["*"],
        "environment": {},
        "fields": {
            "cpu": {"default": 1, "locked": True},
            "memory": {"default": 4 * 2**30, "locked": True},
        },
    }
    assert interactive.body("local")["fields"]["time"] == {
        "default": 3600,
        "max": 28800,
        "step": 900,
        "locked": False,
    }
    policy = PolicySection(**file["policies"][0])
    assert Policy.from_body("everyone", policy.body(), id=1, revision=1).values == {
        Rule.NAMED_SERVERS: 5,
        Rule.SERVER_NAME_LENGTH: 20,
        Rule.IDLE_TIMEOUT: 7200,
    }


def test_a_value_beside_its_field_is_the_default() -> None:
    """`cpu = 2` with a field `cpu` begins at 2 and may be changed."""
    section = ProfileSection.model_validate({"name": "a", "cpu": 2, "fields": {"cpu": {"max": 4}}})
    assert section.body("x")["fields"]["cpu"] == {"default": 2, "max": 4, "locked": False}


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"name": "a b"}, "letters, digits"),
        ({"name": "x" * 65}, "at most 64"),
        ({"cpu": True}, "must be a number"),
        ({"cpu": "inf"}, "finite"),
        ({"cpu": 0}, "cpu: 0 is not between"),
        ({"memory": "4 gibibytes"}, "TiB"),
        ({"memory": "1 KiB"}, "memory: 1 KiB is not between"),
        ({"time": "1 s"}, "time: 1 s is not between"),
        ({"gpu": -1}, "greater than or equal"),
        ({"fields": {"disk": {}}}, "Extra inputs"),
        ({"fields": {"memory": {"min": "2 GiB", "max": "1 GiB"}}}, "min is more than max"),
        ({"fields": {"ui": {"choices": ["vi"]}}}, "lab"),
        ({"environment": {"JUPYTERHUB_API_TOKEN": "x"}}, "the hub's own"),
        ({"environment": {"A=B": "x"}}, "cannot be"),
        ({"environment": {"A": "x\0"}}, "cannot be"),
        ({"title": {"tlh": "mach"}}, "no such language"),
        ({"colour": "x"}, "Extra inputs"),
        ({"image": "not an image"}, "no reference of an image"),
        ({"image": "quay.io/UPPER/x:1"}, "no reference of an image"),
        ({"platform": {"at": datetime(2026, 1, 1, tzinfo=UTC)}}, "made of texts"),
        ({"choices": {"a b": {"options": {"x": {}}}}}, "letters, digits"),
        ({"choices": {"a": {"options": {"x y": {}}}}}, "letters, digits"),
        ({"choices": {"a": {}}}, "one option at least"),
        ({"choices": {"partition": {"options": {"x": {}}}}}, "means something else"),
        (
            {"choices": {"a": {"options": {"x": {"default": True}, "y": {"default": True}}}}},
            "only one option",
        ),
        ({"choices": {"a": {"options": {"x": {"set": {"cpu": 0}}}}}}, "cpu: 0 is not between"),
        ({"choices": {"a": {"options": {"x": {"set": {"cpu": "{value}"}}}}}}, "only in what"),
        (
            {
                "fields": {"cpu": {"max": 4}},
                "choices": {"a": {"options": {"x": {"set": {"cpu": 1}}}}},
            },
            "cpu is also a field",
        ),
        (
            {"choices": {"a": {"options": {"x": {}}, "other": {"pattern": "(a+)+"}}}},
            "must not repeat a repetition",
        ),
    ],
)
def test_slips_in_a_profile_are_named(section: dict[str, Any], words: str) -> None:
    """An administrator learns of a slip when the file is read."""
    with pytest.raises(ValidationError, match=words):
        ProfileSection.model_validate({"name": "a", **section})


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"name": "built in"}, "letters, digits"),
        ({"cpu": 0}, "greater than or equal"),
        ({"memory": -1}, "greater than or equal"),
        ({"named_servers": -1}, "greater than or equal"),
        ({"named_servers": True}, "must be a number"),
        ({"named_servers": "many"}, "unlimited"),
        ({"server_name_length": 4}, "greater than or equal to 10"),
        ({"server_name_length": 31}, "less than or equal to 30"),
        ({"server_name_pattern": "("}, "not a regular expression"),
        ({"server_name_pattern": "(a+)+"}, "must not repeat a repetition"),
        ({"idle_timeout": "1 s"}, "greater than or equal"),
        ({"colour": "2 GiB"}, "Extra inputs"),
    ],
)
def test_slips_in_a_policy_are_named(section: dict[str, Any], words: str) -> None:
    """A policy that cannot be meant is an error, not a limit of nothing."""
    with pytest.raises(ValidationError, match=words):
        PolicySection.model_validate(section)


def test_policies_without_names_get_different_ones() -> None:
    """A refusal can always name its policy."""
    sections = [
        PolicySection(groups=["students", "guests"]),
        PolicySection(),
        PolicySection(),
        PolicySection(name="everyone-2"),
        PolicySection(groups=[], users=["ann"]),
        PolicySection(groups=["ünï cödé"]),
        PolicySection(groups=[]),
        PolicySection(groups=["built-in"]),
        PolicySection(groups=["x" * 300]),
    ]
    names = policy_names(sections)
    assert names[:5] == ["students+guests", "everyone", "everyone-3", "everyone-2", "ann"]
    assert len(set(names)) == len(names)
    assert "built-in" not in names
    assert max(map(len, names)) <= 64


FIELD = st.fixed_dictionaries(
    {},
    optional={
        key: st.integers(-10, 100) | st.floats() | st.text(max_size=5) | st.booleans()
        for key in ("default", "min", "max", "step", "locked")
    },
)


@given(
    st.dictionaries(st.sampled_from(["cpu", "memory", "time", "gpu", "ui"]), FIELD),
    st.dictionaries(
        st.sampled_from(["cpu", "memory", "time", "gpu", "ui", "title"]),
        st.integers() | st.floats() | st.text(max_size=8) | st.booleans(),
    ),
)
def test_any_profile_is_valid_or_an_error_of_the_configuration(
    fields: dict[str, Any], values: dict[str, Any]
) -> None:
    """No text or number in a profile ends the program in another way than with a message."""
    try:
        section = ProfileSection.model_validate({"name": "a", **values, "fields": fields})
    except ValidationError:
        return
    Profile.from_body("a", section.body("x"), revision=1)


def test_every_rule_has_its_key_in_the_section() -> None:
    """What can be decided can be configured, under the key that is stored, and nothing else."""
    about = {"name", "groups", "users"}
    assert set(PolicySection.model_fields) - about == {rule.key for rule in Rule}
