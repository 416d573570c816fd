"""A user's tokens (wire §2.6.5)."""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection
from starlette.requests import HTTPConnection

from perijove.auth.contract import Credentials
from perijove.db.core import bound
from perijove.domain.errors import Forbidden, Invalid, NotFound
from perijove.domain.scopes import Limit, LimitKind, Verdict
from perijove.services import tokens
from perijove.services.access import Caller, caller_of_user
from perijove.services.signin import recognise
from perijove.services.tokens import NewToken
from perijove.services.users import find_user, get_user
from perijove.web.api.calls import Call, Reply, empty, json_reply, texts_of
from perijove.web.api.models import token_model
from perijove.web.identity import identify, require_xsrf, visitor_of
from perijove.wire.rest import Token, Tokens

_FIELDS: Final = frozenset({"note", "expires_in", "scopes", "roles", "auth"})


def listed(connection: Connection, call: Call) -> Reply:
    """``GET /users/:n/tokens``: the tokens that still count."""
    user = get_user(connection, call.user_name)
    found = tokens.list_tokens(connection, user.id, now=call.hub.clock.now())
    return json_reply(Tokens([token_model(row) for row in found]))


def show(connection: Connection, call: Call) -> Reply:
    """``GET /users/:n/tokens/:id``: one token."""
    user = get_user(connection, call.user_name)
    row = tokens.get_token(connection, user.id, _token_id(call), now=call.hub.clock.now())
    return json_reply(token_model(row))


async def revoke(call: Call) -> Reply:
    """``DELETE /users/:n/tokens/:id``: the token counts no more."""
    token_id = _token_id(call)

    def unit(connection: Connection) -> None:
        user = get_user(connection, call.user_name)
        tokens.revoke_token(connection, user.id, token_id, now=call.hub.clock.now())

    await call.hub.database.write(unit)
    return empty(204)


def _token_id(call: Call) -> int:
    text = call.names[1]
    digits = text.removeprefix("a")
    if not text.startswith("a") or not digits.isascii() or not digits.isdigit():
        raise NotFound(f"Token not found {text[:40]}", code="token-unknown")
    if len(digits) > 15:
        raise NotFound(f"Token not found {text[:40]}", code="token-unknown")
    return int(digits)


# --- making one ---------------------------------------------------------------------------------


async def create(call: Call) -> Reply:
    """
    ``POST /users/:n/tokens``: make a token, for oneself or for somebody one may.

    A request that is otherwise anonymous may bring credentials in its body.
    """
    call.caller, fields = await _who(call)
    wanted = _wanted(call, fields)
    tokens.check_new_token(wanted)
    now = call.hub.clock.now()

    def unit(connection: Connection) -> Token:
        owner = _owner(connection, call)
        token_id, value = tokens.create_token(connection, owner, wanted, now=now)
        assert owner.user_id is not None
        row = tokens.get_token(connection, owner.user_id, token_id, now=now)
        return token_model(row, value=value)

    return json_reply(await call.hub.database.write(unit), 201)


async def _who(call: Call) -> tuple[Caller, Mapping[str, Any]]:
    request = HTTPConnection(call.scope)
    caller = await identify(call.hub, request, kind="api", defer_xsrf=True)
    if caller is not None:
        if caller.token_id is None:
            await require_xsrf(call.hub, request, kind="api")
        return caller, await _fields(call)
    fields = await _fields(call)
    auth = fields.get("auth")
    if auth is None:
        raise Forbidden("Missing or invalid credentials.")
    person = await recognise(call.hub, _credentials(auth), visitor_of(request))
    caller = await call.hub.database.read(bound(caller_of_user, person.id))
    if caller is None:
        raise Forbidden("Missing or invalid credentials.")
    return caller, fields


async def _fields(call: Call) -> Mapping[str, Any]:
    fields = await call.fields()
    extra = sorted(fields.keys() - _FIELDS)
    if extra:
        names = ", ".join(key[:60] for key in extra[:10])
        raise Invalid(f"Invalid JSON keys: {names}", code="body-key")
    return fields


def _credentials(auth: object) -> Credentials:
    if not isinstance(auth, dict) or not all(isinstance(each, str) for each in auth.values()):
        raise Invalid("auth must be an object of strings", field="auth", code="body-type")
    fields = dict(auth)
    return Credentials(
        username=fields.pop("username", ""), password=fields.pop("password", ""), fields=fields
    )


def _wanted(call: Call, fields: Mapping[str, Any]) -> NewToken:
    caller, note = call.caller, fields.get("note")
    if note is None:
        note = "Requested via api"
        if caller.name != call.user_name or caller.kind != "user":
            note += f" by {caller.kind} {caller.name}"
    if not isinstance(note, str):
        raise Invalid("token note must be a string", field="note", code="body-type")
    expires_in = fields.get("expires_in")
    if expires_in is not None and (isinstance(expires_in, bool) or not isinstance(expires_in, int)):
        raise Invalid(
            f"token expires_in must be null or integer, not {str(expires_in)[:60]!r}",
            field="expires_in",
        )
    lists = {
        name: None if fields.get(name) is None else texts_of(fields[name], f"token {name}")
        for name in ("scopes", "roles")
    }
    return NewToken(note=note, expires_in=expires_in, **lists)


def _owner(connection: Connection, call: Call) -> Caller:
    """Return the user of the path, if the caller may make tokens for them."""
    target = Limit(LimitKind.USER, call.user_name)
    row = find_user(connection, call.user_name)
    owner = caller_of_user(connection, row.id) if row else None
    if owner is None or call.caller.decide(("tokens",), target) is not Verdict.ALLOWED:
        raise Forbidden(
            f"User {call.user_name} not found or no permissions to generate tokens",
            code="token-owner",
        )
    return owner
