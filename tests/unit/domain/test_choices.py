"""Images by name, and choices inside a profile with what they set."""

from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.domain.faults import Fault, InvalidOptions, RefusedOptions
from perijove.domain.forms import parse_form, write_form
from perijove.domain.images import FreeText, is_reference
from perijove.domain.menus import merged
from perijove.domain.options import Choice, apply, schema, still_valid
from perijove.domain.picks import unavailable
from perijove.domain.policy import Limits, Policy, evaluate
from perijove.domain.profile import Profile
from perijove.services.choices import ImageSection
from perijove.services.offers import ProfileSection

GIB = 2**30
CATALOGUE = {
    name: ImageSection.model_validate(each)
    for name, each in {
        "datascience": {"image": "quay.io/site/datascience:1", "packages": ["Astropy"]},
        "r": {"image": "quay.io/site/r:4", "title": {"en": "R", "fr": "Le R"}},
        "gpu": {"image": "quay.io/site/gpu:2", "groups": ["gpu-users"]},
    }.items()
}
SIZES = {
    "options": {
        "small": {"title": "Small", "set": {"cpu": 1, "memory": "4 GiB"}},
        "medium": {"set": {"cpu": 2, "memory": "8 GiB"}},
        "large": {"default": True, "set": {"cpu": 4, "memory": "16 GiB"}},
    }
}


def profile(**values: Any) -> Profile:
    """Return a profile as it would be stored with the catalogue above."""
    section = ProfileSection.model_validate({"name": "study", **values})
    return Profile.from_body("study", section.body("memory", CATALOGUE), revision=1)


def limits(groups: tuple[str, ...] = (), **values: object) -> Limits:
    """Return the limits of one policy, by configuration key."""
    policy = Policy.from_body("students", values, id=1, revision=1)
    return evaluate([policy], user="ann", groups=groups)


FREE = limits()


def faults_of(offered: Profile, allowed: Limits, asked: dict[str, object]) -> list[Fault]:
    """Return what is wrong with options; nothing when they are accepted."""
    try:
        apply(offered, allowed, asked)
    except (InvalidOptions, RefusedOptions) as error:
        return list(error.faults)
    return []


def enum_of(found: dict[str, Any]) -> list[str]:
    """Return what a property's schema has to choose from."""
    names = found["enum"] if "enum" in found else found["examples"]
    return list(names)


# --- images ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("quay.io/jupyter/base-notebook:2026-11-16", True),
        ("localhost:5000/x", True),
        ("python:3.13", True),
        ("Registry.example.org/a__b/c:V1", True),
        ("x@sha256:" + "0" * 64, True),
        ("python", False),
        ("quay.io/Upper/x:1", False),
        ("quay.io/x:1 --privileged", False),
        ("-x/y", False),
        ("quay.io/x:1\n", False),
        ("../x", False),
        ("", False),
        ("a/" + "b" * 600, False),
    ],
)
def test_a_reference_is_told_from_other_texts(text: str, right: bool) -> None:
    """What is no reference never reaches a platform, and a name alone is a name."""
    assert is_reference(text) is right


def test_a_fixed_image_is_frozen_by_its_reference() -> None:
    """The launch keeps the name that was meant and the reference it meant then."""
    choice = apply(profile(image="datascience"), FREE, {})
    assert (choice.image, choice.options["image"]) == ("quay.io/site/datascience:1", "datascience")


def test_without_an_image_the_spawner_has_its_own() -> None:
    """A profile that says nothing leaves the image to the section of its spawner."""
    choice = apply(profile(), FREE, {})
    assert choice.image == ""
    assert "image" not in choice.options


def test_images_are_chosen_by_name_or_by_their_reference() -> None:
    """A client that knows only references says the same thing with one."""
    offered = profile(fields={"image": {}})
    assert apply(offered, FREE, {}).image == "quay.io/site/datascience:1"
    assert apply(offered, FREE, {"image": "r"}).image == "quay.io/site/r:4"
    assert apply(offered, FREE, {"image": "quay.io/site/r:4"}).asked == {"image": "r"}
    [fault] = faults_of(offered, FREE, {"image": "quay.io/evil/x:1"})
    assert (fault.field, fault.code) == ("image", "option-choice")


def test_images_of_other_groups_are_not_there() -> None:
    """Neither offered nor accepted, by name or reference; for members they are."""
    offered, member = profile(fields={"image": {}}), limits(("gpu-users",))
    assert schema(offered, FREE)["properties"]["image"]["enum"] == ["datascience", "r"]
    assert faults_of(offered, FREE, {"image": "gpu"}) != []
    assert faults_of(offered, FREE, {"image": "quay.io/site/gpu:2"}) != []
    assert apply(offered, member, {"image": "gpu"}).image == "quay.io/site/gpu:2"
    refusal = unavailable(profile(image="gpu"), FREE)
    assert refusal is not None
    assert str(refusal) == "Image: gpu is only for members of gpu-users"


def test_a_policy_bounds_images_by_name_and_by_reference() -> None:
    """Patterns of a policy hold for what is fixed, chosen and written."""
    free = {"free": {"pattern": r"quay\.io/.+"}}
    some = limits(images=["r", "quay.io/teaching/*"])
    offered = profile(fields={"image": free})
    found = schema(offered, some)["properties"]["image"]
    assert (enum_of(found), found["default"], found["x-policy"]) == (["r"], "r", "students")
    assert apply(offered, some, {"image": "quay.io/teaching/x:1"}).image == "quay.io/teaching/x:1"
    [fault] = faults_of(offered, some, {"image": "quay.io/other/x:1"})
    assert (fault.code, fault.rule, fault.params["policy"]) == (
        "refused-image",
        "image",
        "students",
    )
    assert unavailable(profile(image="datascience"), some) is not None


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("docker.io/x/y:1", "option-text"),
        ("quay.io/x/y:1 docker.io/x", "option-text"),
        ("quay.io/x/y:1\nz", "option-text"),
        ("xquay.io/x/y:1", "option-text"),
        ("quay.io/X Y", "option-text"),
        ("quay.io/UPPER", "option-image"),
        ("quay.io/" + "x" * 500, "option-text"),
    ],
)
def test_what_is_written_must_match_from_end_to_end(text: str, code: str) -> None:
    """A pattern without anchors means the whole text, and what matches must be a reference."""
    rule = {"pattern": r"quay\.io/\S+", "message": {"en": "Only quay.io.", "fr": "Seul quay.io."}}
    [fault] = faults_of(profile(fields={"image": {"free": rule}}), FREE, {"image": text})
    assert (fault.field, fault.code) == ("image", code)
    if code == "option-text":
        assert str(fault) == "Image: Only quay.io."


def test_only_written_images_leave_the_spawners_own_as_the_default() -> None:
    """Where nothing is offered by name, nothing written means what the site has."""
    section = ProfileSection.model_validate(
        {"name": "study", "fields": {"image": {"free": {"pattern": ".+"}}}}
    )
    offered = Profile.from_body("study", section.body("memory"), revision=1)
    assert apply(offered, FREE, {}).image == ""
    assert apply(offered, FREE, {"image": ""}).image == ""
    assert apply(offered, FREE, {"image": "a/b"}).image == "a/b"


@given(st.text(max_size=80))
def test_free_text_is_one_printable_line(text: str) -> None:
    """Whatever the pattern lets pass, nothing that ends a line or hides does."""
    if FreeText(pattern=r"(?s).*").accepts(text):
        assert text.isprintable()
        assert text


# --- choices -----------------------------------------------------------------------------------


def test_a_choice_sets_what_it_says() -> None:
    """The default where nothing is said; what was chosen is kept beside what it meant."""
    offered = profile(choices={"size": SIZES}, environment={"A": "1"})
    first = apply(offered, FREE, {})
    assert (first.resources.cpu, first.resources.memory_bytes) == (4, 16 * GIB)
    assert first.asked == {}
    small = apply(offered, FREE, {"size": "small"})
    assert (small.resources.cpu, small.resources.memory_bytes) == (1, 4 * GIB)
    assert (small.asked, small.options["size"]) == ({"size": "small"}, "small")
    assert small.environment == {"A": "1"}


def test_later_choices_lie_over_earlier_ones_and_the_profile() -> None:
    """In the order of definition; tables are merged, lists and values replaced."""
    offered = profile(
        cpu=1,
        environment={"A": "0", "B": "0"},
        platform={"labels": {"x": "0", "y": "0"}, "list": [1]},
        choices={
            "first": {
                "options": {
                    "on": {
                        "set": {
                            "cpu": 2,
                            "environment": {"A": "1"},
                            "platform": {"labels": {"x": "1"}, "list": [2, 3]},
                        }
                    }
                }
            },
            "second": {"options": {"on": {"set": {"cpu": 3, "platform": {"labels": {"z": "2"}}}}}},
        },
    )
    choice = apply(offered, FREE, {})
    assert choice.resources.cpu == 3
    assert choice.environment == {"A": "1", "B": "0"}
    assert choice.platform == {"labels": {"x": "1", "y": "0", "z": "2"}, "list": [2, 3]}


def test_the_order_survives_a_database_that_sorts_keys() -> None:
    """Stored bodies hold choices and options as lists."""
    body = ProfileSection.model_validate(
        {
            "name": "x",
            "choices": {"z": {"options": {"b": {}, "a": {}}}, "a": {"options": {"c": {}}}},
        }
    ).body("memory")
    assert [menu["name"] for menu in body["menus"]] == ["z", "a"]
    assert [entry["key"] for entry in body["menus"][0]["entries"]] == ["b", "a"]


@pytest.mark.parametrize("wrong", ["huge", "", 3, ["small"], True, "small "])
def test_an_unknown_choice_is_refused_by_name(wrong: object) -> None:
    """With the name of the choice and what there is; never a start with something else."""
    [fault] = faults_of(profile(choices={"size": SIZES}), FREE, {"size": wrong})
    assert (fault.field, fault.code) == ("size", "option-choice")
    assert "small, medium, large" in str(fault)


def test_what_a_choice_has_set_is_fixed() -> None:
    """Who asks for something else besides is refused by the field that was asked for."""
    offered = profile(choices={"size": SIZES})
    assert apply(offered, FREE, {"size": "small", "cpu": 1}).resources.cpu == 1
    [fault] = faults_of(offered, FREE, {"size": "small", "cpu": 7})
    assert (fault.field, fault.code, fault.limit) == ("cpu", "option-locked", 1)


def test_a_policy_takes_away_choices_that_set_too_much() -> None:
    """They are not offered, the default is one that is, and asking is refused by name."""
    offered, few = profile(choices={"size": SIZES}), limits(cpu=2)
    found = schema(offered, few)["properties"]["size"]
    assert (found["enum"], found["default"]) == (["small", "medium"], "small")
    assert apply(offered, few, {}).resources.cpu == 1
    [fault] = faults_of(offered, few, {"size": "large"})
    assert (fault.field, fault.code, fault.rule, fault.limit) == (
        "size",
        "refused-choice",
        "cpu",
        2,
    )
    assert str(fault) == "large: CPU cores 4 is needed, policy students allows 2"


def test_a_profile_without_a_possible_choice_is_refused() -> None:
    """It says what the least choice needs; with something to write it stays open."""
    refusal = unavailable(profile(choices={"size": SIZES}), limits(cpu=0.5))
    assert refusal is not None
    assert refusal.rule == "cpu"
    other = {"pattern": r"\d+", "set": {"cpu": "{value}"}}
    assert (
        unavailable(profile(choices={"size": {**SIZES, "other": other}}), limits(cpu=0.5)) is None
    )


def test_what_is_written_is_set_where_the_value_stands() -> None:
    """In images, variables, platform and numbers; the whole of it is judged like any other."""
    offered = profile(
        choices={
            "version": {
                "options": {"1": {"set": {"image": "quay.io/site/x:1"}}},
                "other": {
                    "pattern": r"[0-9.]+",
                    "set": {
                        "image": "quay.io/site/x:{value}",
                        "environment": {"V": "v{value}"},
                        "platform": {"labels": {"version": ["{value}"]}},
                    },
                },
            },
            "ram": {
                "options": {"a": {"set": {"memory": "1 GiB"}}},
                "other": {"pattern": r"\d+ ?[MG]iB", "set": {"memory": "{value}"}},
            },
        }
    )
    choice = apply(offered, FREE, {"version": "2.7", "ram": "3 GiB"})
    assert choice.image == "quay.io/site/x:2.7"
    assert choice.environment == {"V": "v2.7"}
    assert choice.platform == {"labels": {"version": ["2.7"]}}
    assert choice.resources.memory_bytes == 3 * GIB
    [fault] = faults_of(offered, limits(memory=2 * GIB), {"ram": "3 GiB"})
    assert (fault.field, fault.rule) == ("ram", "memory")
    [fault] = faults_of(offered, FREE, {"version": "2.7; rm"})
    assert (fault.field, fault.code) == ("version", "option-text")
    [fault] = faults_of(offered, FREE, {"ram": "999999999999999 GiB"})
    assert (fault.field, fault.code) == ("ram", "option-text")


def test_written_text_cannot_add_a_second_value() -> None:
    """What stands for a value in what somebody wrote is text like any other."""
    offered = profile(
        choices={
            "a": {
                "options": {"x": {}},
                "other": {"pattern": ".+", "set": {"environment": {"A": "{value}"}}},
            }
        }
    )
    assert apply(offered, FREE, {"a": "{value}{value}"}).environment == {"A": "{value}{value}"}


def test_a_remembered_choice_that_is_gone_is_forgotten() -> None:
    """The next start has the default instead of failing; the others stay."""
    offered = profile(choices={"size": SIZES}, fields={"image": {}})
    kept = still_valid(offered, limits(cpu=2), {"size": "large", "image": "r"})
    assert kept == {"image": "r"}


def test_a_choice_may_be_called_like_what_it_sets() -> None:
    """So scripts for other hubs go on: `image` is then the key of the choice."""
    offered = profile(
        choices={"image": {"options": {"a": {"set": {"image": "r"}}, "b": {}}}},
    )
    choice = apply(offered, FREE, {"image": "a"})
    assert (choice.image, choice.options["image"], choice.asked) == (
        "quay.io/site/r:4",
        "a",
        {"image": "a"},
    )


OPEN = profile(
    fields={"image": {"free": {"pattern": r"quay\.io/\S+", "title": "Your image"}}},
    choices={
        "size": SIZES,
        "data": {"options": {"none": {}, "sky": {}}, "other": {"pattern": "[a-z]{1,5}"}},
    },
)
ASKABLE = st.fixed_dictionaries(
    {},
    optional={
        "size": st.sampled_from(["small", "medium", "large", "huge"]),
        "data": st.sampled_from(["none", "sky", "moon", "SKY", "toolong"]),
        "image": st.sampled_from(
            [
                "r",
                "gpu",
                "datascience",
                "quay.io/a/b:1",
                "docker.io/x/y",
                "quay.io/UP",
                "quay.io/a b",
            ]
        ),
    },
)


@given(ASKABLE, st.sampled_from([FREE, limits(cpu=2), limits(images=["r"])]))
def test_what_is_accepted_is_what_the_schema_says(asked: dict[str, Any], allowed: Limits) -> None:
    """Whatever is accepted fits the schema; what is listed there is accepted."""
    described = schema(OPEN, allowed)
    if not faults_of(OPEN, allowed, asked):
        jsonschema.validate(asked, described)
    for name, found in described["properties"].items():
        for value in enum_of(found) if found["type"] == "string" else ():
            assert faults_of(OPEN, allowed, {name: value}) == []


@given(ASKABLE)
def test_a_form_says_what_the_options_say(asked: dict[str, Any]) -> None:
    """Options written as texts and read again are the same, also what was written freely."""
    if faults_of(OPEN, FREE, asked):
        return
    described = schema(OPEN, FREE)
    read = parse_form(described, write_form(described, asked))
    again: Choice = apply(OPEN, FREE, read)
    assert again.options == apply(OPEN, FREE, asked).options


def test_the_text_beside_a_list_counts_only_where_other_is_chosen() -> None:
    """As without a script both are sent."""
    described = schema(OPEN, FREE)
    typed = {"image": "r", "image--other": "quay.io/a/b"}
    assert parse_form(described, typed) == {"image": "r"}
    assert parse_form(described, {**typed, "image": "--other"}) == {"image": "quay.io/a/b"}
    assert parse_form(described, {"data--other": "moon"}) == {"data": "moon"}


def test_tables_are_merged_and_nothing_else() -> None:
    """A list is one value; neither side is changed."""
    below = {"a": {"b": 1, "c": [1]}, "d": 1}
    assert merged(below, {"a": {"c": [2]}, "d": {"e": 1}}) == {
        "a": {"b": 1, "c": [2]},
        "d": {"e": 1},
    }
    assert below == {"a": {"b": 1, "c": [1]}, "d": 1}
