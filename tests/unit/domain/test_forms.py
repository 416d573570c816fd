"""Options as the texts of a form."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.domain.faults import InvalidOptions, RefusedOptions
from perijove.domain.forms import parse_form, write_form
from perijove.domain.options import apply, schema
from perijove.domain.policy import evaluate
from perijove.domain.profile import Profile

GIB = 2**30
FREE = evaluate([], user="ann", groups=())
PROFILE = Profile.from_body(
    "study",
    {
        "spawner": "local",
        "fields": {
            "cpu": {"default": 1, "min": 0.5, "max": 8},
            "memory": {"default": 4 * GIB, "max": 2048 * GIB},
            "time": {"default": 3600, "min": 900, "max": 28800, "step": 900},
            "gpu": {"max": 2},
            "ui": {},
        },
    },
    revision=1,
)
SCHEMA = schema(PROFILE, FREE)


@pytest.mark.parametrize(
    ("name", "text", "language", "value"),
    [
        ("time", "1.5", "en", 5400),
        ("time", "1,5", "fr", 5400),
        ("time", "1.5", "fr", 5400),
        ("time", "0,25", "pt", 900),
        ("time", " 90 min ", "es", 5400),
        ("time", "2\u00a0h", "fr", 7200),
        ("memory", "8", "en", 8 * GIB),
        ("memory", "8 Gio", "fr", 8 * GIB),
        ("memory", "1 Go", "fr", 10**9),
        ("memory", "512 mib", "en", GIB // 2),
        ("memory", "2048 MB", "en", 2048 * 10**6),
        ("memory", "0.1", "en", 107374182),
        ("cpu", "2", "en", 2),
        ("cpu", "2,5", "es", 2.5),
        ("cpu", "\uff12", "en", 2),
        ("gpu", "1", "en", 1),
        ("ui", "terminal", "en", "terminal"),
    ],
)
def test_texts_are_read_in_the_unit_and_language_of_the_form(
    name: str, text: str, language: str, value: object
) -> None:
    """Bare numbers are hours and GiB, and commas are decimal where people write them."""
    options = parse_form(SCHEMA, {name: text}, language)
    assert options == {name: value}
    assert apply(PROFILE, FREE, options).options[name] == value


@pytest.mark.parametrize(
    ("name", "text", "language"),
    [
        ("memory", "1,000", "en"),
        ("memory", "1.000,5", "es"),
        ("memory", "1,000.5", "fr"),
        ("memory", "many", "en"),
        ("memory", "9" * 1000, "en"),
        ("memory", "1e9", "en"),
        ("memory", "4 h", "en"),
        ("time", "-1", "en"),
        ("time", "1:30", "en"),
        ("cpu", "2 GiB", "en"),
        ("cpu", "nan", "en"),
        ("gpu", "0x1", "en"),
    ],
)
def test_unreadable_text_is_a_fault_of_its_field(name: str, text: str, language: str) -> None:
    """What is no number in the person's language is refused, and the message shows it."""
    with pytest.raises(InvalidOptions) as caught:
        apply(PROFILE, FREE, parse_form(SCHEMA, {name: text}, language))
    [fault] = caught.value.faults
    assert (fault.field, fault.code) == (name, "option-type")
    assert text[:20] in str(fault)


def test_empty_texts_are_not_given() -> None:
    """An empty field has its default, whatever it was before."""
    assert parse_form(SCHEMA, {"memory": "  ", "cpu": ""}) == {}


def test_unknown_fields_reach_the_check() -> None:
    """A misspelt query parameter is reported, not dropped."""
    options = parse_form(SCHEMA, {"memroy": "4"})
    with pytest.raises(InvalidOptions, match="has no option memroy"):
        apply(PROFILE, FREE, options)


def test_form_shows_defaults_and_choices_in_its_units() -> None:
    """A form begins with what would be asked for, in short numbers."""
    assert write_form(SCHEMA, {}) == {
        "cpu": "1",
        "memory": "4",
        "time": "1",
        "gpu": "0",
        "ui": "lab",
    }
    shown = write_form(SCHEMA, {"cpu": 0.75, "time": 5400, "memory": 10**9 + 1}, "fr")
    assert shown == {
        "cpu": "0,75",
        "memory": "1000000001 B",
        "time": "1,5",
        "gpu": "0",
        "ui": "lab",
    }


@given(
    st.fixed_dictionaries(
        {
            "cpu": st.integers(500, 8000).map(lambda value: value / 1000),
            "memory": st.integers(2**20, 2048 * GIB),
            "time": st.integers(1, 32).map(lambda value: value * 900),
            "gpu": st.integers(0, 2),
        }
    ),
    st.sampled_from(["en", "fr", "es", "pt"]),
)
def test_what_a_form_shows_it_reads_back(options: dict[str, Any], language: str) -> None:
    """No value changes by being shown and sent back, in any language."""
    shown = write_form(SCHEMA, options, language)
    assert apply(PROFILE, FREE, parse_form(SCHEMA, shown, language)).asked == {
        **options,
        "ui": "lab",
    }


@given(
    st.dictionaries(
        st.sampled_from(["cpu", "memory", "time", "gpu", "ui"]) | st.text(max_size=10),
        st.text(max_size=100) | st.text("0123456789.,- GiBhmins", max_size=12),
    ),
    st.sampled_from(["en", "fr", "xx", ""]),
)
def test_any_texts_are_options_or_faults(form: dict[str, str], language: str) -> None:
    """Whatever a browser sends, the answer is a choice or the list of what is wrong."""
    options = parse_form(SCHEMA, form, language)
    try:
        choice = apply(PROFILE, FREE, options)
    except (InvalidOptions, RefusedOptions):
        return
    assert 0.5 <= choice.options["cpu"] <= 8
    assert choice.options["time"] % 900 == 0
    assert 2**20 <= choice.options["memory"] <= 2048 * GIB
