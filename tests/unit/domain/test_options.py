"""What may be asked of a profile, and what was."""

import contextlib
import json
from fractions import Fraction
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from perijove.domain.bounds import unavailable
from perijove.domain.faults import Fault, InvalidOptions, RefusedOptions
from perijove.domain.options import apply, schema, still_valid
from perijove.domain.policy import Limits, Policy, Rule, evaluate
from perijove.domain.profile import QUANTITIES, Profile

GIB = 2**30


def profile(**fields: dict[str, Any]) -> Profile:
    """Return a profile of these fields, as it would be stored."""
    return Profile.from_body("study", {"spawner": "local", "fields": fields}, revision=1)


def limits(**values: object) -> Limits:
    """Return the limits of one policy, by configuration key."""
    return evaluate([Policy.from_body("students", values, id=1, revision=1)], user="ann", groups=())


def faults_of(offered: Profile, allowed: Limits, given_options: dict[str, object]) -> list[Fault]:
    """Return what is wrong with options; nothing when they are accepted."""
    try:
        apply(offered, allowed, given_options)
    except (InvalidOptions, RefusedOptions) as error:
        return list(error.faults)
    return []


FREE = limits()
OPEN = profile(
    cpu={"default": 1, "min": 0.5, "max": 8, "step": 0.5},
    memory={"default": 4 * GIB, "max": 64 * GIB},
    time={"default": 3600, "min": 900, "max": 28800, "step": 900},
    gpu={"max": 2},
    ui={"default": "lab"},
)


def test_nothing_asked_gives_the_defaults() -> None:
    """A start without options is what the profile's author meant."""
    choice = apply(OPEN, FREE, {})
    assert choice.options == {
        "cpu": 1,
        "memory": 4 * GIB,
        "time": 3600,
        "gpu": 0,
        "ui": "lab",
    }
    assert choice.asked == {}
    assert choice.resources.memory_bytes == 4 * GIB
    assert choice.resources.time_seconds == 3600
    assert choice.default_url == "/lab"


@pytest.mark.parametrize(
    ("name", "raw", "value"),
    [
        ("cpu", 2, 2),
        ("cpu", 2.5, 2.5),
        ("cpu", None, 1),
        ("memory", "16 GiB", 16 * GIB),
        ("memory", "1.5GiB", 3 * GIB // 2),
        ("memory", 10**9, 10**9),
        ("memory", 1073741824.0, GIB),
        ("time", "90 min", 5400),
        ("time", "1.5 h", 5400),
        ("time", 5400, 5400),
        ("gpu", 2, 2),
        ("ui", "terminal", "terminal"),
    ],
)
def test_values_are_read_exactly(name: str, raw: object, value: object) -> None:
    """JSON numbers are cores, bytes and seconds; texts carry their unit."""
    assert apply(OPEN, FREE, {name: raw}).options[name] == value


@pytest.mark.parametrize(
    ("name", "raw", "code"),
    [
        ("cpu", True, "option-type"),
        ("cpu", "2", "option-type"),
        ("cpu", float("nan"), "option-type"),
        ("cpu", float("inf"), "option-type"),
        ("cpu", [1], "option-type"),
        ("cpu", {}, "option-type"),
        ("cpu", 0.25, "option-too-small"),
        ("cpu", -1, "option-too-small"),
        ("cpu", 9, "option-too-large"),
        pytest.param("cpu", 10**5000, "option-too-large", id="huge"),
        pytest.param("cpu", -(10**5000), "option-too-small", id="hugely negative"),
        ("cpu", 1.7e308, "option-too-large"),
        ("cpu", 1.2, "option-step"),
        ("memory", "4", "option-type"),
        ("memory", "4 h", "option-type"),
        ("memory", "٤ GiB", "option-type"),
        ("memory", "4 GiB\n", None),
        ("memory", 4 * GIB + 0.5, "option-step"),
        ("memory", "1e400 GiB", "option-type"),
        ("memory", "9" * 5000, "option-type"),
        ("memory", "65 GiB", "option-too-large"),
        ("time", "10 min", "option-too-small"),
        ("time", "16 min", "option-step"),
        ("time", "1 d", "option-too-large"),
        ("gpu", 0.5, "option-step"),
        ("gpu", False, "option-type"),
        ("ui", "Lab", "option-choice"),
        ("ui", "../lab", "option-choice"),
        ("ui", 1, "option-choice"),
        ("ui", ["lab"], "option-choice"),
        ("account", "def-ann", "option-unknown"),
        ("a\x00\ud800" * 100, 1, "option-unknown"),
    ],
)
def test_wrong_values_are_named(name: str, raw: object, code: str | None) -> None:
    """Each kind of wrong value has its code, and a message that is one short line."""
    faults = faults_of(OPEN, FREE, {name: raw})
    assert [fault.code for fault in faults] == ([code] if code else [])
    for fault in faults:
        assert str(fault).isprintable()
        assert len(str(fault)) < 200
        msgspec.json.encode([fault.limit, fault.asked, dict(fault.params)])


def test_all_faults_are_found_at_once() -> None:
    """A form that is wrong in five places says so in five places."""
    faults = faults_of(OPEN, FREE, {"cpu": 99, "memory": "x", "time": 1, "ui": "vi", "disk": 1})
    assert {fault.field for fault in faults} == {"cpu", "memory", "time", "ui", "disk"}


def test_endless_unknown_options_give_a_bounded_answer() -> None:
    """The answer to ten thousand unknown options is short."""
    assert len(faults_of(OPEN, FREE, {f"x{i}": i for i in range(10_000)})) == 20


@pytest.mark.parametrize("steps", range(1, 11))
def test_decimal_steps_have_no_binary_traps(steps: int) -> None:
    """Three times 0.1 is on the grid, also as 0.30000000000000004, and is 0.3 afterwards."""
    tenth = profile(cpu={"min": 0.1, "max": 1, "step": 0.1})
    assert apply(tenth, FREE, {"cpu": steps / 10}).options["cpu"] == steps / 10
    assert apply(tenth, FREE, {"cpu": sum([0.1] * steps)}).options["cpu"] == steps / 10
    assert faults_of(tenth, FREE, {"cpu": steps / 10 + 0.01})


def test_fixed_value_cannot_be_changed() -> None:
    """A locked field takes its own value and no other."""
    fixed = profile(
        memory={"default": 4 * GIB, "locked": True}, ui={"default": "notebook", "locked": True}
    )
    assert apply(fixed, FREE, {"memory": "4 GiB", "ui": "notebook"}).default_url == "/tree"
    faults = faults_of(fixed, FREE, {"memory": "2 GiB", "ui": "lab"})
    assert [(fault.field, fault.code) for fault in faults] == [
        ("memory", "option-locked"),
        ("ui", "option-locked"),
    ]


def test_what_a_profile_does_not_mention_is_not_for_the_person() -> None:
    """Left to the platform means that nobody can ask for it; GPUs are then none."""
    faults = faults_of(profile(), FREE, {"memory": GIB, "gpu": 1})
    assert [(fault.field, fault.code) for fault in faults] == [
        ("memory", "option-unknown"),
        ("gpu", "option-locked"),
    ]
    assert apply(profile(), FREE, {}).resources.memory_bytes is None


def test_policy_refusal_names_policy_rule_limit_and_asked() -> None:
    """Above a policy's cap the answer says whose cap it is and what was asked."""
    with pytest.raises(RefusedOptions) as caught:
        apply(OPEN, limits(memory=8 * GIB), {"memory": "16 GiB"})
    error = caught.value
    assert (error.rule, error.limit, error.asked, error.field) == (
        "memory",
        8 * GIB,
        16 * GIB,
        "memory",
    )
    assert error.code == "refused-memory"
    assert str(error) == "Memory: 16 GiB asked, policy students allows at most 8 GiB"


def test_profile_that_needs_more_than_a_policy_allows_is_refused() -> None:
    """A fixed GPU for somebody who may have none names profile and policy."""
    needs = profile(gpu={"default": 1, "locked": True})
    with pytest.raises(RefusedOptions, match="profile study needs 1, policy students allows 0"):
        apply(needs, limits(gpu=0), {})
    refusal = unavailable(needs, limits(gpu=0))
    assert refusal is not None
    assert refusal.rule == "gpu"


def test_caps_lower_defaults_and_what_is_left_to_the_platform() -> None:
    """A cap holds also where nothing was asked."""
    capped = limits(memory=2 * GIB, time=1000, cpu=1.9)
    assert apply(OPEN, capped, {}).options == {
        "cpu": 1,
        "memory": 2 * GIB,
        "time": 900,
        "gpu": 0,
        "ui": "lab",
    }
    silent = apply(profile(), capped, {}).resources
    assert (silent.memory_bytes, silent.time_seconds, silent.cpu) == (2 * GIB, 1000, 1.9)


def test_choices_above_a_cap_are_gone() -> None:
    """Of three sizes those that a policy forbids are not offered; none left is a refusal."""
    sizes = profile(cpu={"choices": [1, 2, 4], "default": 4})
    assert schema(sizes, limits(cpu=2))["properties"]["cpu"]["enum"] == [1, 2]
    assert apply(sizes, limits(cpu=2), {}).options["cpu"] == 2
    assert [fault.code for fault in faults_of(sizes, limits(cpu=2), {"cpu": 4})] == [
        "refused-option"
    ]
    assert [fault.code for fault in faults_of(sizes, FREE, {"cpu": 3})] == ["option-choice"]
    assert unavailable(sizes, limits(cpu=0.5)) is not None


def test_a_default_of_zero_among_choices_stands() -> None:
    """Zero is a choice like any other."""
    gpus = profile(gpu={"choices": [2, 0], "default": 0})
    assert apply(gpus, FREE, {}).options["gpu"] == 0


def test_invalid_comes_before_refused() -> None:
    """A request that no policy could make valid is invalid, and both faults are told."""
    with pytest.raises(InvalidOptions) as caught:
        apply(OPEN, limits(memory=GIB), {"memory": "2 GiB", "ui": "vi"})
    assert [fault.field for fault in caught.value.faults] == ["ui", "memory"]


def test_remembered_choice_keeps_what_is_still_possible() -> None:
    """A bound that sank since last time does not make the next start fail."""
    remembered = {"cpu": 8, "memory": 16 * GIB, "old": 1, "ui": "terminal"}
    kept = still_valid(OPEN, limits(memory=8 * GIB), remembered)
    assert kept == {"cpu": 8, "ui": "terminal"}
    assert apply(OPEN, limits(memory=8 * GIB), kept).options["memory"] == 4 * GIB


@pytest.mark.parametrize(
    ("name", "field", "words"),
    [
        ("memory", {"min": 2 * GIB, "max": GIB}, "min is more than max"),
        ("memory", {"default": 2 * GIB, "max": GIB}, "default is not between"),
        ("memory", {"default": 1}, "is not between"),
        ("cpu", {"min": 0.25, "step": 0.5}, "multiple of"),
        ("cpu", {"step": 0.0005}, "step is not a multiple"),
        ("cpu", {"step": -1}, "step is not a multiple"),
        ("cpu", {"min": 2.5, "max": 2.5, "step": 1}, "multiple of"),
        ("cpu", {"choices": [1, 2], "max": 2}, "either choices or"),
        ("cpu", {"choices": [1, 2], "default": 3}, "not one of the choices"),
        ("cpu", {"default": "lab"}, "not a number"),
        ("gpu", {"default": 0.5}, "multiple of"),
        ("time", {"max": 60, "step": 900}, "multiple of"),
        ("ui", {"default": "vi"}, "none of"),
        ("ui", {"min": 1}, "for numbers"),
    ],
)
def test_contradictory_fields_are_refused(name: str, field: dict[str, Any], words: str) -> None:
    """An administrator's slip is found when the profile is made, not when somebody starts."""
    with pytest.raises(ValueError, match=words):
        profile(**{name: field})


def test_schema_is_a_json_schema_with_the_live_bounds() -> None:
    """The description is valid draft 2020-12 and says who made a bound tighter."""
    described = schema(OPEN, limits(memory=8 * GIB))
    jsonschema.Draft202012Validator.check_schema(described)
    assert described["properties"]["memory"] == {
        "type": "integer",
        "title": "Memory",
        "unit": "bytes",
        "minimum": 2**20,
        "maximum": 8 * GIB,
        "default": 4 * GIB,
        "x-form": {"unit": "GiB", "factor": GIB},
        "x-policy": "students",
    }
    assert described["properties"]["time"]["multipleOf"] == 900
    assert described["properties"]["time"]["x-form"] == {"unit": "h", "factor": 3600}
    assert described["properties"]["ui"]["x-labels"] == [
        "JupyterLab",
        "Jupyter Notebook",
        "Terminal",
    ]
    assert json.loads(json.dumps(described)) == described


def test_schema_shows_fixed_values_and_hides_what_is_open() -> None:
    """Fixed fields are read-only; what is left to the platform is not there unless capped."""
    fixed = profile(memory={"default": GIB, "locked": True})
    assert list(schema(fixed, FREE)["properties"]) == ["memory"]
    assert schema(fixed, FREE)["properties"]["memory"]["readOnly"] is True
    assert schema(profile(), limits(cpu=2))["properties"]["cpu"]["default"] == 2


# --- attacks ----------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.integers(),
    st.integers(-100, 100),
    st.integers(10**300, 10**310),
    st.floats(),
    st.floats(0, 10),
    st.sampled_from([GIB, 4 * GIB, 64 * GIB, 65 * GIB, 900, 3600, 28800]),
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
TEXTS = st.one_of(
    st.text(),
    st.sampled_from(
        ["$(reboot)", "`id`", "-rf", "'; DROP TABLE users; --", "a\n#SBATCH", "\ud800"]
    ),
    st.builds("{}{}{}".format, st.floats(), st.sampled_from(["", " ", "\t"]), st.text(max_size=3)),
    st.builds(
        "{} {}".format,
        st.integers(0, 10**6) | st.decimals(0, 10**4, places=3),
        st.sampled_from(["GiB", "MB", "h", "min", "s", "gib", "B"]),
    ),
)
NAMES = st.sampled_from([*QUANTITIES, "ui"])
CAPS = st.fixed_dictionaries(
    {},
    optional={
        "cpu": st.sampled_from([0.001, 0.3, 1, 2.75, 100]),
        "memory": st.sampled_from([2**20, GIB, 5 * GIB + 1, 2**45]),
        "time": st.sampled_from([60, 1000, 86400]),
        "gpu": st.integers(0, 3),
    },
)


def numbers_of(name: str, least: int, most: int, parts: int) -> st.SearchStrategy[dict[str, Any]]:
    """Return fields that are sometimes contradictory, as an administrator could write them."""
    number = st.integers(least, most).map(lambda value: value / parts if parts > 1 else value)
    return st.fixed_dictionaries(
        {},
        optional={
            "default": number,
            "min": number,
            "max": number,
            "step": number,
            "locked": st.booleans(),
            "choices": st.lists(number, max_size=4),
        },
    )


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "cpu": numbers_of("cpu", 1, 64, 4),
        "memory": numbers_of("memory", 1, 64, 1).map(
            lambda field: {
                key: value * GIB if isinstance(value, int) and key != "locked" else value
                for key, value in field.items()
                if key != "choices"
            }
        ),
        "time": numbers_of("time", 60, 90000, 1),
        "gpu": numbers_of("gpu", 0, 4, 1),
        "ui": st.fixed_dictionaries(
            {}, optional={"default": st.sampled_from(["lab", "terminal"]), "locked": st.booleans()}
        ),
    },
)


def coherent(fields: dict[str, Any]) -> Profile:
    """Return the profile of these fields, or tell hypothesis to try others."""
    with contextlib.suppress(ValueError):
        return profile(**fields)
    assume(False)
    raise AssertionError


@given(FIELDS, CAPS, st.dictionaries(NAMES | st.text(), JSON | TEXTS, max_size=5))
@example({"cpu": {}}, {}, {"cpu": 10**5000})
@example({"gpu": {}}, {"gpu": 0}, {"gpu": 1e400})
@example({"time": {"min": 60, "max": 60, "locked": True}}, {"time": 1000}, {})
def test_anything_asked_is_refused_or_within_every_limit(
    fields: dict[str, Any], caps: dict[str, Any], asked: dict[str, object]
) -> None:
    """No text, number or object gets past a bound, and none raises anything unexpected."""
    offered, allowed = coherent(fields), limits(**caps)
    if faults := faults_of(offered, allowed, asked):
        msgspec.json.encode([[each.limit, each.asked, dict(each.params)] for each in faults])
        assert all(str(fault).isprintable() for fault in faults)
        return
    choice = apply(offered, allowed, asked)
    msgspec.json.encode([choice.options, choice.asked])
    for name, cap in caps.items():
        assert Fraction(repr(choice.options[name])) <= Fraction(repr(cap))
    for name, field in fields.items():
        value = choice.options.get(name)
        if value is not None and name != "ui":
            assert value <= field.get("max", value)
            assert field.get("locked") or value >= field.get("min", value)
            assert (
                not field.get("step")
                or field.get("locked")
                or Fraction(repr(value)) % Fraction(repr(field["step"])) == 0
            )
    assert apply(offered, allowed, choice.asked) == choice


@given(FIELDS, CAPS)
def test_nothing_asked_never_fails_unless_the_profile_is_unavailable(
    fields: dict[str, Any], caps: dict[str, Any]
) -> None:
    """The defaults that a form shows can always be started, and are those that the schema says."""
    offered, allowed = coherent(fields), limits(**caps)
    if unavailable(offered, allowed):
        with pytest.raises(RefusedOptions):
            apply(offered, allowed, {})
        return
    properties = schema(offered, allowed)["properties"]
    choice = apply(offered, allowed, {})
    defaults = {name: each["default"] for name, each in properties.items() if "default" in each}
    assert {name: choice.options[name] for name in defaults} == defaults
    assert apply(offered, allowed, defaults).options == choice.options


@st.composite
def ranges(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """Return the name of a quantity and a range of it with a step."""
    name = draw(st.sampled_from(["cpu", "memory", "time", "gpu"]))
    step = {"cpu": 0.5, "memory": GIB, "time": 900, "gpu": 1}[name] * draw(st.integers(1, 3))
    low = draw(st.integers(1, 5))
    high = low + draw(st.integers(0, 20))
    return name, {"min": low * step, "max": high * step, "step": step}


@given(ranges(), CAPS, st.integers(-4, 100), st.sampled_from([0, 0, 1, 0.25]))
@example(("memory", {"min": GIB, "max": GIB, "step": GIB}), {}, 2, 1)
@example(("memory", {"min": GIB, "max": GIB, "step": GIB}), {}, 2, 0.25)
def test_schema_and_check_agree(
    offer: tuple[str, dict[str, Any]], caps: dict[str, Any], halves: int, off: float
) -> None:
    """What the published schema accepts the check accepts, and the reverse."""
    name, field = offer
    offered, allowed = profile(**{name: field}), limits(**caps)
    if unavailable(offered, allowed):
        return
    number = halves * field["step"] / 2 + off
    if name != "cpu" and number == int(number):
        number = int(number)
    theirs = jsonschema.Draft202012Validator(schema(offered, allowed)).is_valid({name: number})
    assert theirs == (not faults_of(offered, allowed, {name: number}))


def test_a_wish_to_be_asked_is_the_persons_own() -> None:
    """It is within what the profile says, no policy makes it smaller, and silence is no wish."""
    offered = profile(queue_limit={"max": 7200})
    assert apply(offered, FREE, {}).queue_seconds is None
    assert apply(offered, limits(queue_limit=600), {"queue_limit": "30 min"}).queue_seconds == 1800
    assert [fault.code for fault in faults_of(offered, FREE, {"queue_limit": "3 h"})] == [
        "option-too-large"
    ]
    assert [fault.code for fault in faults_of(profile(), FREE, {"queue_limit": "1 h"})] == [
        "option-unknown"
    ]


@pytest.mark.parametrize("rule", [Rule.CPU, Rule.MEMORY, Rule.TIME, Rule.GPU])
def test_every_quantity_has_its_rule(rule: Rule) -> None:
    """A cap that no quantity obeys would be no cap."""
    assert [quantity.rule for quantity in QUANTITIES.values()].count(rule) == 1
