"""Anything in any field of any form: an answer below 500, and a server only where one was asked."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final
from urllib.parse import quote

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perijove.services.offers import ProfileSection
from tests.integration.pages.test_routes import BROWSER, Visit, visiting

pytestmark = pytest.mark.anyio

PROFILES: Final = [
    ProfileSection.model_validate(
        {
            "name": "interactive",
            "cpu": 2,
            "memory": "8 GiB",
            "time": "2 h",
            "fields": {
                "cpu": {"min": 1, "max": 16},
                "memory": {"min": "1 GiB", "max": "64 GiB"},
                "time": {"max": "8 h"},
                "ui": {},
            },
        }
    )
]

FORMS: Final[Mapping[str, tuple[str, ...]]] = {
    "login": ("username", "password", "method", "next"),
    "new": ("display_name",),
    "spawn": (
        "profile",
        "interactive.cpu",
        "interactive.memory",
        "interactive.time",
        "interactive.ui",
        "next",
    ),
    "spawn/ann/work": ("profile", "interactive.cpu", "display_name"),
    "token": ("note", "expires_in", "grant"),
    "token/revoke": ("token",),
    "token/sessions": ("session",),
    "password": ("old", "new", "again"),
    "server/stop/ann": ("next",),
    "server/delete/ann/work": ("name", "next"),
}
"""Every form, and the fields it has; the address of a GET takes the same ones."""

_ODD: Final = st.sampled_from(
    [
        "", " ", "interactive", "default", "-1", "0", "1e400", "nan", "٣", "1,5", "9" * 5000,
        "../../etc/passwd", "..", ".", "%2e%2e", "a/b", "\\", "\x00", "\ud800", "\u202e", "ß",
        "<script>", "'; drop table users; --", "{{7*7}}", "//evil.test", "https://evil.test/",
        "true", "null", "[]", "x" * 70_000,
    ]
)  # fmt: skip
_VALUES: Final = st.one_of(_ODD, st.text(max_size=40), st.integers().map(str))


def _encoded(fields: Mapping[str, str], token: str) -> bytes:
    """Return a form's body, which may hold what is no Unicode."""
    pairs = {**fields, "_xsrf": token}
    return "&".join(
        f"{quote(key, safe='')}={quote(value.encode('utf-8', 'surrogatepass'), safe='')}"
        for key, value in pairs.items()
    ).encode()


async def _token(visit: Visit) -> str:
    page = await visit.get("new")
    return page.text.split('name="_xsrf" value="')[1].split('"')[0]


@pytest.mark.parametrize("form", FORMS)
async def test_any_field_of_any_form_is_answered_below_500(tmp_path: Path, form: str) -> None:
    """Whatever a form is sent, the hub says what is wrong with it, and goes on."""
    async with AsyncExitStack() as stack:
        at = await stack.enter_async_context(visiting(tmp_path, profiles=PROFILES, loops=False))
        await at.sign_in()
        token = await _token(at)
        cookies = dict(at.client.cookies)

        async def send(fields: Mapping[str, str]) -> httpx2.Response:
            at.client.cookies.clear()
            at.client.cookies.update(cookies)
            return await at.client.post(
                f"{at.prefix}{form}",
                content=_encoded(fields, token),
                headers={**BROWSER, "content-type": "application/x-www-form-urlencoded"},
            )

        for fields in _examples(FORMS[form]):
            answer = await send(fields)
            assert answer.status_code < 500, (form, fields, answer.text[-500:])
            target = answer.headers.get("location", "/")
            assert target.startswith("/"), (fields, target)
            assert not target.startswith("//"), (fields, target)


def _examples(names: tuple[str, ...]) -> list[dict[str, str]]:
    """Return some forms that hypothesis makes up."""
    found: list[dict[str, str]] = []

    @settings(max_examples=60, database=None, suppress_health_check=list(HealthCheck))
    @given(st.dictionaries(st.one_of(st.sampled_from(names), st.text(max_size=8)), _VALUES))
    def collect(fields: dict[str, str]) -> None:
        found.append(fields)

    collect()
    return found


@pytest.mark.parametrize("form", ["spawn", "login", "new", "token"])
async def test_a_form_of_ten_megabytes_or_of_no_unicode_is_refused(
    tmp_path: Path, form: str
) -> None:
    """A body far too large, or bytes that are no text, change nothing and break nothing."""
    async with visiting(tmp_path) as at:
        await at.sign_in()
        token = await _token(at)
        headers = {**BROWSER, "content-type": "application/x-www-form-urlencoded"}
        address = f"{at.prefix}{form}"
        huge = await at.client.post(address, content=b"note=" + b"x" * 10_000_000, headers=headers)
        odd = f"_xsrf={token}&profile=%ff%fe&username=%ff&note=%ff&display_name=%ff".encode()
        no_text = await at.client.post(address, content=odd, headers=headers)

        assert 400 <= huge.status_code < 500
        assert no_text.status_code < 500
        assert await at.hub.live() == []
