"""Reading forms: the one way, with limits, whatever is sent."""

from collections.abc import AsyncGenerator

from python_multipart.exceptions import FormParserError
from starlette.datastructures import FormData
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from perijove.domain.errors import Invalid
from perijove.web.problems import BodyTooLarge

MAX_BYTES = 256 * 1024
"""Longest body of a form."""
MAX_FIELDS = 500
URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"


def media_type(request: Request) -> str:
    """Return the media type of the body in lower case, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_form(request: Request) -> FormData:
    """
    Return the fields of a form, without files; empty when the body is no form.

    May be called again and returns the same. Raises `BodyTooLarge`, and `Invalid` for a body
    that has too many fields or cannot be read.
    """
    found: FormData | None = getattr(request.state, "form", None)
    if found is None:
        found = request.state.form = await _parse(request)
    return found


async def _parse(request: Request) -> FormData:
    kind = media_type(request)
    if kind not in (URLENCODED, MULTIPART):
        return FormData()
    stream = _once(await _read(request))
    parser = (
        FormParser(request.headers, stream, max_fields=MAX_FIELDS, max_part_size=MAX_BYTES)
        if kind == URLENCODED
        else MultiPartParser(
            request.headers, stream, max_files=16, max_fields=MAX_FIELDS, max_part_size=MAX_BYTES
        )
    )
    try:
        form = await parser.parse()
    except (MultiPartException, FormParserError, ValueError) as error:
        raise Invalid("the form cannot be read", code="form-unreadable") from error
    await form.close()
    return FormData([(name, value) for name, value in form.multi_items() if isinstance(value, str)])


async def _read(request: Request) -> bytes:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BYTES:
                raise BodyTooLarge(
                    f"a form may have at most {MAX_BYTES} bytes", code="form-too-long"
                )
    except ClientDisconnect as error:
        raise Invalid("the form was cut off", code="form-unreadable") from error
    return bytes(body)


async def _once(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body
