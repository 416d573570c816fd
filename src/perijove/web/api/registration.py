"""What jobs and containers say of themselves, and the call of batchspawner's program (4.4.4)."""

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec

from perijove.domain.errors import Invalid
from perijove.services import registration, volumes
from perijove.services.registration import Message, Run
from perijove.web.api.calls import Call, Reply, empty, json_reply
from perijove.web.problems import BodyTooLarge
from perijove.wire.registration import (
    Environment,
    Identity,
    Listening,
    Outlook,
    Registration,
    Report,
    TimeLeft,
    Used,
    Warned,
)

_MOST_BODY: Final = 16384
B = TypeVar("B", bound=msgspec.Struct)


async def register(call: Call) -> Reply:
    """``POST registrations``: a job's server will listen there; answers with its token."""
    body = await _body(call, Registration)
    environment = await registration.register(
        call.hub, _run(call, body), host=body.host, port=body.port, wrapper=body.wrapper
    )
    return json_reply(Environment(dict(environment)), headers=((b"cache-control", b"no-store"),))


async def listening(call: Call) -> Reply:
    """``POST registrations/listening``: the job's own server listens there now."""
    body = await _body(call, Listening)
    await registration.note_listening(call.hub, _run(call, body))
    return empty(204)


async def report(call: Call) -> Reply:
    """``POST registrations/report``: a stage, a warning, why it cannot start, or its end."""
    body = await _body(call, Report)
    message = Message(
        kind=body.kind,
        reason=body.reason,
        words=body.words,
        params=body.params,
        usage=msgspec.to_builtins(body.usage),
    )
    await registration.take_report(call.hub, _run(call, body), message)
    return empty(204)


async def warning(call: Call) -> Reply:
    """``POST registrations/warning``: what a container lacks; with its server's token only."""
    body = await _body(call, Warned)
    await registration.take_warning(
        call.hub, call.caller.launch_id, reason=body.reason, words=body.words
    )
    return empty(204)


async def used(call: Call) -> Reply:
    """``POST registrations/volumes``: bytes on a server's volumes; with its own token only."""
    body = await _body(call, Used)
    await volumes.take_use(call.hub, call.caller.launch_id, body.used)
    return empty(204)


async def outlook(call: Call) -> Reply:
    """``POST registrations/outlook``: how much time the job has left, as its platform says."""
    body = await _body(call, Outlook)
    return json_reply(TimeLeft(await registration.tell_outlook(call.hub, _run(call, body))))


async def batchspawner(call: Call) -> Reply:
    """``POST /batchspawner``: the port of the server whose token this is; all else is ignored."""
    fields: Mapping[str, Any] = await call.fields()
    port = fields.get("port")
    if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65535:
        raise Invalid("port must be a number from 1 to 65535", field="port", code="port-number")
    await registration.set_port(call.hub, call.caller.launch_id, port)
    return empty(201)


async def _body(call: Call, kind: type[B]) -> B:
    """Return a small body of its schema; raises `Invalid` without repeating what was sent."""
    length = call.header(b"content-length")
    if not length.isdigit() or int(length[:9]) > _MOST_BODY:
        raise BodyTooLarge(f"this body may have at most {_MOST_BODY} bytes", limit=_MOST_BODY)
    try:
        return msgspec.convert(await call.fields(), kind)
    except msgspec.ValidationError as error:
        raise Invalid(f"the body is not as expected: {error}", code="body-schema") from None


def _run(call: Call, body: Identity) -> Run:
    client = call.scope.get("client")
    return Run(
        launch_id=body.launch_id,
        code=body.code,
        nonce=body.nonce,
        job_id=body.job_id,
        address=client[0] if client else "",
    )
