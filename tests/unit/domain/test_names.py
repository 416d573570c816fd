"""Names of users and servers."""

import re
import unicodedata
from urllib.parse import quote, unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perijove.domain.errors import Invalid
from perijove.domain.names import (
    check_display_name,
    check_server_name,
    check_user_name,
    normalise_user_name,
    slug,
)

SERVER_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

LOOK_ALIKES = [
    ("Ana.Pérez@AD.Example", "ana.pérez@ad.example"),
    ("ana.pe\u0301rez", "ana.p\u00e9rez"),
    ("ﬁona", "fiona"),
    ("\uff21\uff4e\uff4e", "ann"),
    ("STRASSE", "straße"),
    ("\u1e9e", "ss"),
    ("ΣΊΣΥΦΟΣ", "σίσυφοσ"),
    ("\u212bngstrom", "\u00e5ngstrom"),
    ("\u0345\u0345", "\u03b9\u03b9"),
]


@pytest.mark.parametrize(("one", "other"), LOOK_ALIKES)
def test_spellings_built_to_collide_are_one_user(one: str, other: str) -> None:
    """Case, width, ligatures and composition never make a second account."""
    assert normalise_user_name(one) == normalise_user_name(other)


@given(st.text(max_size=400))
@example("\u0345\u0390")
@example("\u1e9e\u0307")
def test_normal_form_is_stable(name: str) -> None:
    """Normalising twice is normalising once, for any text, so a stored name finds itself."""
    normal = normalise_user_name(name)
    assert normalise_user_name(normal) == normal
    assert normalise_user_name(name.upper().lower()) == normalise_user_name(normal.upper().lower())


@pytest.mark.parametrize(
    "name",
    [
        "ann",
        "ana.pérez@ad.example",
        "x" * 64,
        "x" * 255,
        "api",
        "o'brien",
        "two words",
        "100%",
        "dom\\ann",
        "王",
    ],
)
def test_ordinary_user_names_are_allowed(name: str) -> None:
    """What directories call people is a name here."""
    assert check_user_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "...",
        "%2e%2E",
        "%252e%252e",
        "a/b",
        "a%2Fb",
        "a%252fb",
        "%00",
        " ann",
        "ann ",
        "an\nn",
        "an\x7fn",
        "an\u200bn",
        "an\u00adn",
        "an\u202en",
        "an\ufe0fn",
        "an\u034fn",
        "an\ud800n",
        "x" * 256,
        "é" * 128,
        "x" * 10_000_000,
    ],
)
def test_dangerous_user_names_are_refused(name: str) -> None:
    """Names that leave their path segment, are not seen, or are too long are invalid."""
    with pytest.raises(Invalid) as caught:
        check_user_name(name)
    assert caught.value.code == "user-name"
    assert len(str(caught.value)) < 120
    assert str(caught.value).isprintable()


@given(st.text(alphabet=st.characters() | st.sampled_from("%./2eEfF\\ "), max_size=300))
def test_any_text_is_a_safe_user_name_or_invalid(name: str) -> None:
    """Whatever passes is one visible path segment that survives a URL."""
    normal = normalise_user_name(name)
    try:
        check_user_name(normal)
    except Invalid:
        return
    assert unquote(quote(normal, safe="@~")) == normal
    for decoded in (normal, unquote(normal), unquote(unquote(normal))):
        assert "/" not in decoded
        assert decoded not in (".", "..")
        assert decoded.isprintable()


@pytest.mark.parametrize("name", ["a", "gpu", "b-k3x9q2mz", "a1-b2-c3", "x" * 30, "default", "api"])
def test_server_names_of_the_wire_are_allowed(name: str) -> None:
    """Lower-case letters, digits and single hyphens make a server name."""
    assert check_server_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "A", "1a", "-a", "a-", "a--b", "a_b", "a.b", "..", "a\n", "é", "x" * 31, "a b"]
)
def test_other_server_names_are_refused(name: str) -> None:
    """Everything else is invalid, in the wire's words."""
    with pytest.raises(Invalid, match=r"^Invalid server_name: ") as caught:
        check_server_name(name)
    assert caught.value.field == "server_name"


def test_server_name_length_can_be_less() -> None:
    """A policy's shorter limit is the one the message names."""
    assert check_server_name("x" * 20, max_length=20)
    with pytest.raises(Invalid, match="1 to 20"):
        check_server_name("x" * 21, max_length=20)


@pytest.mark.parametrize("name", ["My analysis", "Étude nº 4", "研究", "x" * 255])
def test_display_names_are_free_text(name: str) -> None:
    """Any printable words will do."""
    assert check_display_name(name) == unicodedata.normalize("NFC", name)


def test_display_name_is_composed() -> None:
    """One look, one text."""
    assert check_display_name("e\u0301tude") == "\u00e9tude"


@pytest.mark.parametrize(
    "name", ["", " a", "a ", "a  b", "a\tb", "a\nb", "a\u00a0b", "a\u202eb", "x" * 256, "\ud800"]
)
def test_unprintable_display_names_are_refused(name: str) -> None:
    """Control characters, odd spaces and endless texts are invalid."""
    with pytest.raises(Invalid, match=r"^Invalid display_name: "):
        check_display_name(name)


@given(st.text(max_size=80), st.integers(min_value=10, max_value=30))
@example("2024", 10)
@example("---", 10)
@example("a" * 40, 10)
@example("a -b", 11)
def test_slug_is_always_a_server_name(display_name: str, max_length: int) -> None:
    """Whatever a person calls a server, its name is valid and short enough."""
    name = slug(display_name, max_length=max_length)
    assert len(name) <= max_length
    assert SERVER_NAME.fullmatch(name)


COLLIDING = [
    "My Lab",
    "my lab",
    "my-lab",
    "My_Lab",
    "mylab",
    "my  lab",
    "MY LAB",
    "mÿ lab",
    "my lab!",
]


def test_slugs_of_texts_built_to_collide_differ() -> None:
    """Texts that look alike once folded are still different servers."""
    assert len({slug(text) for text in COLLIDING}) == len(COLLIDING)
    assert slug("mylab") == "mylab"
    assert re.fullmatch(r"my-lab-[0-9a-f]{8}", slug("My Lab"))


@given(st.text(max_size=60), st.text(max_size=60))
def test_a_plain_name_never_meets_a_hashed_one(plain: str, other: str) -> None:
    """Only the same text gives the same name, however a pair is chosen."""
    if plain != other:
        assert slug(plain) != slug(other)
        assert slug(slug(plain)) != slug(other) or slug(plain) == other
