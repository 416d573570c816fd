"""Our own error pages, and who gets which."""

import msgspec
import pytest

from perijove.proxy.errors import own_page, preferred_language, wants_json
from perijove.proxy.head import HeadLimits, RequestHead, parse_request
from tests.unit.proxy.corpus import HOST, get


def request(fields: bytes = b"", path: bytes = b"/user/ann/lab") -> RequestHead:
    """Return a request with these fields."""
    return parse_request(get(HOST + fields, path), HeadLimits())


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        (b"fr-CA,fr;q=0.9,en;q=0.8", "fr"),
        (b"de, es;q=0.5, pt-BR;q=0.7", "pt"),
        (b"de", "en"),
        (b"es;q=0, en;q=0.1", "en"),
        (b";;;,,q=,fr;q=x", "en"),
        (b"ES", "es"),
    ],
)
def test_preferred_language(accepted: bytes, language: str) -> None:
    """The best of our languages is used, and English when none is asked for."""
    assert preferred_language(request(b"Accept-Language: " + accepted + b"\r\n")) == language


@pytest.mark.parametrize("language", ["en", "fr", "es", "pt"])
@pytest.mark.parametrize("status", [404, 503])
def test_own_page_is_in_every_language(language: str, status: int) -> None:
    """A page says which language it is in, and differs from that of other languages."""
    pages = {
        code: own_page(status, request(f"Accept-Language: {code}\r\n".encode()))
        for code in ("en", "fr", "es", "pt")
    }
    assert f'<html lang="{language}">'.encode() in pages[language].body
    assert f"Content-Language: {language}\r\n".encode() == pages[language].fields
    assert len({page.body.partition(b"<h1>")[2] for page in pages.values()}) == 4


@pytest.mark.parametrize(
    ("fields", "path", "is_json"),
    [
        (b"Accept: application/json\r\n", b"/user/ann/", True),
        (b"Accept: text/html, application/json\r\n", b"/user/ann/", False),
        (b"Accept: */*\r\n", b"/user/ann/lab", False),
        (b"Accept: text/html\r\n", b"/user/ann/api/kernels", True),
        (b"", b"/user/ann/apiary", False),
    ],
)
def test_wants_json(fields: bytes, path: bytes, is_json: bool) -> None:
    """Programs are known by what they accept, or by the path."""
    assert wants_json(request(fields, path)) is is_json


def test_own_page_for_programs() -> None:
    """JSON has the status and a message."""
    page = own_page(503, request(b"Accept: application/json\r\n"))
    assert msgspec.json.decode(page.body).keys() == {"status", "message"}
    assert page.content_type == b"application/json"
