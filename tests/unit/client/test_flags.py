"""Options as flags: what is read, and what is said of what cannot be."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.client import flags
from perijove.client.errors import BadValue
from perijove.client.models import Chosen, Form, Profile

PROFILE = Profile(
    name="gpu",
    schema={
        "properties": {
            "cpu": {"type": "number", "minimum": 0.5, "maximum": 16, "default": 1},
            "memory": {
                "type": "integer",
                "unit": "bytes",
                "minimum": 2**30,
                "maximum": 2**35,
                "multipleOf": 2**29,
                "x-form": {"unit": "GiB", "factor": 2**30},
                "default": 2**31,
            },
            "time": {
                "type": "integer",
                "unit": "seconds",
                "maximum": 86400,
                "x-form": {"unit": "h", "factor": 3600},
            },
            "gpu_type": {"type": "string", "enum": ["a100", "l40s"]},
            "ui": {"type": "string", "default": "lab", "readOnly": True},
            "features": {"type": "array", "items": {"type": "string", "enum": ["ib", "ssd"]}},
            "exclusive": {"type": "boolean"},
            "account": {"type": "string", "maxLength": 8, "pattern": "^[a-z]+$"},
            "image": {
                "type": "string",
                "anyOf": [{"enum": ["r", "astro"]}, {"pattern": "^(?:quay\\.io/.+)$"}],
                "examples": ["r", "astro"],
                "x-other": {"title": {"en": "your own"}, "message": {"en": "only quay.io"}},
            },
        }
    },
)


@pytest.mark.parametrize(
    ("flag", "text", "value"),
    [
        ("cpu", "2", 2),
        ("cpu", "0.5", 0.5),
        ("memory", "4 GiB", 4 * 2**30),
        ("memory", "4", 4 * 2**30),
        ("memory", "1.5gib", 3 * 2**29),
        ("time", "90 min", 5400),
        ("time", "2", 7200),
        ("time", "02:00:30", 7230),
        ("time", "0-12:00:00", 43200),
        ("gpu-type", "a100", "a100"),
        ("GPU_type", "a100", "a100"),
        ("ui", "lab", "lab"),
        ("features", "ib, ssd", ["ib", "ssd"]),
        ("exclusive", "yes", True),
        ("account", "physics", "physics"),
        ("image", "astro", "astro"),
        ("image", "quay.io/a/b:1", "quay.io/a/b:1"),
    ],
)
def test_a_value_is_read_as_the_form_reads_it(flag: str, text: str, value: object) -> None:
    """Units, the form's own unit without one, and the schedulers' way to write time."""
    (read,) = flags.read(PROFILE, {flag: text}).values()
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(
    ("flag", "text", "said"),
    [
        ("cpu", "99", "at most 16"),
        ("cpu", "0.1", "at least 0.5"),
        ("cpu", "many", "'many' is not a number"),
        ("cpu", "-1", "'-1' is not a number"),
        ("memory", "33 GiB", "at most 32 GiB"),
        ("memory", "1.3 GiB", "only multiples of 512 MiB"),
        ("memory", "much", "is not a number with one of the units"),
        ("time", "25 h", "at most 1 d"),
        ("gpu-type", "h100", "not one of the choices"),
        ("ui", "notebook", "this is fixed"),
        ("features", "ib,gold", "not one of the choices"),
        ("exclusive", "perhaps", "neither true nor false"),
        ("account", "astronomy", "at most 8 characters"),
        ("account", "a b", "not written as it must be"),
        ("image", "docker.io/a/b", "only quay.io"),
    ],
)
def test_a_bad_value_is_said_with_its_bound(flag: str, text: str, said: str) -> None:
    """The message has the fault, the hint all that is possible, and the field is named."""
    with pytest.raises(BadValue, match=said) as fault:
        flags.read(PROFILE, {flag: text})
    assert fault.value.field == flag.replace("-", "_")
    assert "In profile gpu: " in fault.value.hint


def test_an_unknown_flag_is_said_with_those_there_are() -> None:
    """And with the nearest one."""
    with pytest.raises(BadValue, match="profile gpu has no option --memroy") as fault:
        flags.read(PROFILE, {"memroy": "4"})
    assert "--cpu, --memory, --time, --gpu-type" in fault.value.hint
    assert "Did you mean --memory?" in fault.value.hint


@pytest.mark.parametrize(
    ("arguments", "words", "given"),
    [
        ([], [], {}),
        (["work", "--cpu", "2"], ["work"], {"cpu": "2"}),
        (["--cpu=2", "work"], ["work"], {"cpu": "2"}),
        (["--memory", "4 GiB"], [], {"memory": "4 GiB"}),
        (["--account", "-x"], [], {"account": "-x"}),
        (["--account="], [], {"account": ""}),
        (["a", "b"], ["a", "b"], {}),
    ],
)
def test_words_and_flags_are_told_apart(
    arguments: list[str], words: list[str], given: dict[str, str]
) -> None:
    """Before, after, and with an equals sign."""
    assert flags.split(arguments) == (words, given)


@pytest.mark.parametrize(
    "arguments", [["--cpu"], ["--cpu", "--memory"], ["-c", "2"], ["--"], ["--cpu=1", "--cpu=2"]]
)
def test_half_a_flag_is_refused(arguments: list[str]) -> None:
    """What may be meant in two ways is asked back."""
    with pytest.raises(BadValue):
        flags.split(arguments)


@given(st.lists(st.text(max_size=8), max_size=5))
def test_no_command_line_is_a_traceback(arguments: list[str]) -> None:
    """Whatever is typed is read, or refused in words."""
    with suppress(BadValue):
        words, found = flags.split(arguments)
        assert len(words) + len(found) <= len(arguments)
        flags.read(PROFILE, found)


@pytest.mark.parametrize(
    ("wanted", "chosen", "name"),
    [(None, "gpu", "gpu"), (None, "", "small"), ("small", "gpu", "small")],
)
def test_the_profile_is_the_named_one_or_the_last(
    wanted: str | None, chosen: str, name: str
) -> None:
    """Without either, the first that is offered."""
    form = Form(profiles=[Profile(name="small"), PROFILE], chosen=Chosen(profile=chosen))
    assert flags.choose(form, wanted).name == name


def test_a_profile_that_is_not_offered_is_said() -> None:
    """With those that are; and one that a policy closes with the policy's words."""
    refused: dict[str, Any] = {"message": "profile huge: policy students allows only small"}
    form = Form(profiles=[PROFILE, Profile(name="huge", refused=refused)])
    with pytest.raises(BadValue, match="no profile 'gpus'") as fault:
        flags.choose(form, "gpus")
    assert "gpu, huge" in fault.value.hint
    with pytest.raises(BadValue, match="policy students allows only small"):
        flags.choose(form, "huge")
    with pytest.raises(BadValue, match="no profile is offered"):
        flags.choose(Form(), None)


def test_the_list_of_flags_says_bounds_and_defaults() -> None:
    """In the units people use."""
    shown = {flag.name: (flag.allowed, flag.default) for flag in flags.describe(PROFILE)}
    assert shown["--memory"] == ("from 1 GiB up to 32 GiB", "2 GiB")
    assert shown["--time"] == ("up to 1 d", "")
    assert shown["--gpu-type"] == ("a100 | l40s", "")
    assert shown["--ui"] == ("only lab", "lab")
    assert shown["--features"] == ("any of ib | ssd", "")
