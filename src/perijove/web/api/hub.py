"""The hub itself: version, health, what runs it, and who asks (``GET /user``)."""

import sys
from collections.abc import Sequence

from sqlalchemy import Connection

from perijove.domain import scopes as engine
from perijove.services.hub import WIRE_VERSION
from perijove.services.users import get_user
from perijove.web.api.calls import Call, Reply, json_reply
from perijove.web.api.models import View, user_model
from perijove.web.edge import VERSION
from perijove.wire.rest import Component, Info, Service, Version

_ANY_ORIGIN = ((b"access-control-allow-origin", b"*"),)
_VERSION = json_reply(Version(WIRE_VERSION), headers=_ANY_ORIGIN)
_HEALTHY = Reply(200, b"", b"text/html; charset=utf-8")


async def version(_call: Call) -> Reply:
    """``GET /``: the version of the protocol."""
    return _VERSION


async def health(_call: Call) -> Reply:
    """``GET /health``: the hub serves."""
    return _HEALTHY


async def info(call: Call) -> Reply:
    """``GET /info``: what the hub runs on."""
    spawners = [placed.spawner for placed in call.hub.spawners.values()]
    return json_reply(
        Info(
            version=WIRE_VERSION,
            python=sys.version,
            sys_executable=sys.executable,
            spawner=_component(spawners),
            authenticator=_component(list(call.hub.authenticators.values())),
        )
    )


def _component(found: Sequence[object]) -> Component:
    kind = type(found[0]) if found else object
    return Component(f"{kind.__module__}.{kind.__qualname__}", VERSION)


def whoami(connection: Connection, call: Call) -> Reply:
    """``GET /user``: who the credential belongs to, and what it allows."""
    caller = call.caller
    token_id = None if caller.token_id is None else f"a{caller.token_id}"
    scopes = caller.scopes.texts()
    if caller.kind == "service":
        return json_reply(
            Service(
                name=caller.name,
                admin=caller.admin,
                scopes=scopes,
                token_id=token_id,
                session_id=caller.session_id,
            )
        )
    # Everybody may learn who they are; that is not part of what the credential allows.
    view = View(caller, caller.scopes | engine.identify(caller.owner))
    model = user_model(call.hub, get_user(connection, caller.name), view)
    model.scopes = scopes
    model.token_id = token_id
    model.session_id = caller.session_id
    return json_reply(model)
