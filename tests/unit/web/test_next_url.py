"""Where ``next`` may lead: a path on this origin, or nowhere (wire §4.3)."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perijove.web.next_url import MAX_LENGTH, safe_next

OWN = frozenset({"hub.example.org", "hub.example.org:8443"})


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("/hub/home", "/hub/home"),
        ("/user/ann/lab?a=1&b=2#cell", "/user/ann/lab?a=1&b=2#cell"),
        ("/user/a%40b%2Fc/", "/user/a%40b%2Fc/"),
        ("/", "/"),
        ("/a//b", "/a//b"),
        ("/a\\b", "/a%5Cb"),
        ("https://hub.example.org/user/ann/", "/user/ann/"),
        ("http://HUB.example.org/x?y=//z", "/x?y=//z"),
        ("https://hub.example.org:8443/x", "/x"),
        ("//hub.example.org/x", "/x"),
        ("////hub.example.org/x", "/x"),
        ("//hub.example.org//evil.org/", "/evil.org/"),
        ("https://hub.example.org", "/"),
        ("https://hub.example.org//evil.org", "/evil.org"),
        ("https://hub.example.org/\\evil.org", "/%5Cevil.org"),
        ("/hub/api/oauth2/authorize?redirect_uri=https://x/", None),
    ],
)
def test_own_address_leads_to_its_path(value: str, path: str | None) -> None:
    """What names this host, or no host, is reduced to a path."""
    assert safe_next(value, hosts=OWN) == (path or value)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "hub/home",
        "?x=1",
        "#x",
        ".",
        "//evil.org/x",
        "///evil.org/x",
        "/////evil.org/x",
        "https://evil.org/",
        "https://hub.example.org.evil.org/",
        "https://hub.example.org@evil.org/",
        "https://evil.org\\@hub.example.org/",
        "https://ann@hub.example.org/",
        "https://hub.example.org:1/",
        "https:/evil.org",
        "https:evil.org",
        "https:///evil.org",
        "javascript:alert(1)",
        "data:text/html,x",
        "ftp://hub.example.org/",
        "\\\\evil.org",
        "\\/evil.org",
        " //evil.org",
        "/\t/evil.org",
        "/\n/evil.org",
        "/\x00",
        "/\x85",
        "/\ud800",
        "https://[evil/",
        "/" + "x" * MAX_LENGTH,
    ],
)
def test_everything_else_is_ignored(value: str | None) -> None:
    """Another host, another scheme, a relative path, or what a browser might read otherwise."""
    assert safe_next(value, hosts=OWN) is None


def host_a_browser_goes_to(location: str) -> str | None:
    """Return the host that a browser takes a location to name, by the URL standard's rules."""
    text = re.sub(r"[\t\n\r]", "", location.strip("".join(map(chr, range(33)))))
    text = text.replace("\\", "/")
    if found := re.match(r"(?i)([a-z][a-z0-9+.-]*):/*([^/?#]*)", text):
        return found[2] or found[1]
    if found := re.match(r"/{2,}([^/?#]*)", text):
        return found[1]
    return None


WORDS = r"/ // \ %5c %2f http: https: hub.example.org evil.org @ : ? # . .. [ ] é user = & :443"
PIECES = st.sampled_from([*WORDS.split(), "\t", "\n", " ", "\x00", "\uff0f"])


@given(st.lists(PIECES, max_size=9).map("".join) | st.text(max_size=40))
@example("//hub.example.org///evil.org")
@example("https://hub.example.org/\\/evil.org")
@example("/\\evil.org")
def test_result_is_always_a_path_on_this_origin(value: str) -> None:
    """Whatever is given, a browser that follows the result stays where it is."""
    result = safe_next(value, hosts=OWN)
    if result is not None:
        assert result.startswith("/")
        assert host_a_browser_goes_to(result) is None
        assert not re.search(r"[\x00-\x20\x7f\\]", result)


@given(st.lists(PIECES, max_size=9).map("".join))
def test_result_is_stable(value: str) -> None:
    """A result is itself a good value, and leads to itself."""
    result = safe_next(value, hosts=OWN)
    assert result is None or safe_next(result, hosts=OWN) == result
