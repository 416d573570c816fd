"""Addresses of hubs, as people copy them."""

import pytest

from perijove.client.address import hub_url, origin_of
from perijove.client.errors import BadValue


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        ("hub.example.org", "https://hub.example.org/"),
        ("https://hub.example.org", "https://hub.example.org/"),
        ("https://Hub.Example.org:443/hub/home?x=1#y", "https://hub.example.org/"),
        ("https://example.org/jupyter/hub/token", "https://example.org/jupyter/"),
        ("https://example.org:8443/jupyter", "https://example.org:8443/jupyter/"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/"),
        ("http://localhost:8000/", "http://localhost:8000/"),
        ("http://[::1]:8000", "http://[::1]:8000/"),
    ],
)
def test_an_address_has_one_form(typed: str, url: str) -> None:
    """Whatever page it was copied from."""
    assert hub_url(typed) == url
    assert hub_url(url) == url


@pytest.mark.parametrize(
    "typed",
    ["", "ftp://hub.example.org", "https://", "https://hub:99999", "https://ann:pw@hub.example.org",
     "https://hub.example.org/\x1b[2J", "javascript:alert(1)"],
)  # fmt: skip
def test_what_is_no_address_is_refused(typed: str) -> None:
    """In words, before anything is sent anywhere."""
    with pytest.raises(BadValue):
        hub_url(typed)


def test_a_token_is_not_sent_in_the_clear_unasked() -> None:
    """Plain HTTP is for this machine; for another one it takes a flag."""
    with pytest.raises(BadValue, match="would show your token"):
        hub_url("http://hub.example.org")
    assert hub_url("http://hub.example.org", allow_http=True) == "http://hub.example.org/"


def test_the_origin_is_what_paths_are_put_behind() -> None:
    """Without the base path."""
    assert origin_of("https://example.org:8443/jupyter/") == "https://example.org:8443"
