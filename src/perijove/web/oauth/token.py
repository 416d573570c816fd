"""
``POST /oauth2/token``: a server turns its code into an access token.

Spoken between programs: the client's secret is in the form, no cookie and no header counts,
answers are JSON in OAuth's own words.
"""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from perijove.db.core import bound
from perijove.services.hub import Hub
from perijove.services.oauth import Exchange, Issued, TokenRefused, redeem_code
from perijove.web.asgi import Receive, Scope, Send, read_body

_MOST_BYTES: Final = 16 * 1024
_MOST_FIELDS: Final = 50
_KEEP_NOTHING: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}


class Token:
    """The endpoint, an ASGI application."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        response = await self._answer(Request(scope, receive), receive)
        await response(scope, receive, send)

    async def _answer(self, request: Request, receive: Receive) -> Response:
        if request.method != "POST":
            body = {"status": 405, "message": "Method Not Allowed"}
            return _json(405, body, {"Allow": "POST"})
        try:
            exchange = _exchange(await _fields(receive))
            issued = await self._hub.database.write(
                bound(
                    redeem_code,
                    exchange,
                    self._hub.clock.now(),
                    lifetime=self._hub.settings.session_lifetime,
                )
            )
        except TokenRefused as refused:
            return _refusal(refused)
        return _json(200, _issued(issued))


async def _fields(receive: Receive) -> Mapping[str, str]:
    body = await read_body(receive, limit=_MOST_BYTES)
    if body is None:
        raise TokenRefused("invalid_request", "The body is too long.")
    try:
        pairs = parse_qsl(
            body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=_MOST_FIELDS
        )
    except ValueError:
        raise TokenRefused("invalid_request", "The body has too many fields.") from None
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise TokenRefused("invalid_request", "A parameter is repeated.")
    return fields


def _exchange(fields: Mapping[str, str]) -> Exchange:
    client_id = fields.get("client_id", "")
    return Exchange(
        # No client has such a name, and PostgreSQL cannot be asked for one.
        client_id="" if "\x00" in client_id else client_id,
        client_secret=fields.get("client_secret", ""),
        grant_type=fields.get("grant_type", ""),
        code=fields.get("code", ""),
        redirect_uri=fields.get("redirect_uri"),
        verifier=fields.get("code_verifier"),
    )


def _issued(issued: Issued) -> Mapping[str, Any]:
    return {
        "access_token": issued.token,
        "expires_in": int(issued.lifetime.total_seconds()),
        "token_type": "Bearer",
        "scope": " ".join(issued.scopes),
    }


def _refusal(refused: TokenRefused) -> Response:
    body = {"error": refused.error}
    if refused.description:
        body["error_description"] = refused.description
    challenge = {"WWW-Authenticate": f'Bearer error="{refused.error}"'}
    return _json(refused.status, body, challenge if refused.status == 401 else {})


def _json(status: int, body: Mapping[str, Any], headers: Mapping[str, str] = {}) -> Response:
    return Response(
        msgspec.json.encode(body),
        status,
        media_type="application/json",
        headers={**_KEEP_NOTHING, **headers},
    )
