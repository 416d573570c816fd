"""Users: list, show, make, change, delete, and report activity (wire §2.5, §2.6)."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlencode

from sqlalchemy import Connection

from perijove.db.core import bound
from perijove.domain.errors import Invalid
from perijove.domain.launch import Cause
from perijove.domain.names import USER_NAME_BYTES
from perijove.domain.scopes import LimitKind, restrict
from perijove.kit.clock import monotonic
from perijove.services import activity, listing, users
from perijove.services.launches import request_stop, wait_for
from perijove.services.listing import Selection, State
from perijove.services.users import UserRow, get_user
from perijove.web.api.calls import Call, Reply, check_keys, empty, json_reply, texts_of
from perijove.web.api.models import View, user_model
from perijove.wire.rest import NextPage, Page, Pagination

PAGED: Final = "application/jupyterhub-pagination+json"
DEFAULT_LIMIT: Final = 50
MOST: Final = 200
_LARGEST_NUMBER: Final = 1 << 53
_SORTS: Final = ("id", "name", "last_activity")
_FUTURE = timedelta(minutes=59)


# --- reading ------------------------------------------------------------------------------------


def show(connection: Connection, call: Call) -> Reply:
    """``GET /users/:n``: what the caller may see of a user."""
    row = get_user(connection, call.user_name)
    stopped = _with_stopped(call.query) if call.scope["query_string"] else False
    return json_reply(user_model(call.hub, row, View(call.caller), with_stopped=stopped))


def listed(connection: Connection, call: Call) -> Reply:
    """``GET /users``: the users whom the caller may list, a page of them."""
    is_paged = PAGED in (each.strip() for each in call.header(b"accept").split(","))
    wanted = _selection(call, default_limit=DEFAULT_LIMIT if is_paged else MOST)
    with_stopped = _with_stopped(call.query)
    view = View(call.caller)
    models = [
        user_model(call.hub, row, view, with_stopped=with_stopped)
        for row in listing.list_users(connection, wanted)
    ]
    if not is_paged and len(models) < wanted.limit:
        return json_reply(models)
    total = listing.count_users(connection, wanted)
    following = wanted.offset + wanted.limit
    next_page = (
        NextPage(following, wanted.limit, _next_url(call, following, wanted.limit))
        if following < total
        else None
    )
    if is_paged:
        return json_reply(Page(models, Pagination(wanted.offset, wanted.limit, total, next_page)))
    # A bare list cannot say that it was cut off; a header can.
    more = () if next_page is None else ((b"link", f'<{next_page.url}>; rel="next"'.encode()),)
    return json_reply(models, headers=more)


def _selection(call: Call, *, default_limit: int) -> Selection:
    query = call.query
    sort = query.get("sort", "id")
    if sort.removeprefix("-") not in _SORTS:
        raise Invalid(
            f"sort must be 'id', 'name', or 'last_activity', not {sort[:60]!r}", field="sort"
        )
    offset, limit = _number(query, "offset", 0), _number(query, "limit", default_limit)
    return Selection(
        limits=restrict(call.caller.scopes, "list:users", (LimitKind.USER, LimitKind.GROUP)),
        state=_state(query.get("state", "")),
        # No name is longer, so that what is cut off changes nothing; SQLite has a limit for it.
        name_filter=query.get("name_filter", "")[: USER_NAME_BYTES + 1],
        sort=sort.removeprefix("-"),
        descending=sort.startswith("-"),
        offset=offset,
        limit=min(max(limit, 1), MOST),
    )


def _state(text: str) -> State | None:
    if not text:
        return None
    try:
        return State(text)
    except ValueError:
        raise Invalid(f"Unrecognized state filter: {text[:60]!r}", field="state") from None


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    try:
        number = abs(int(text[:40]))
    except ValueError:
        number = _LARGEST_NUMBER + 1
    if number > _LARGEST_NUMBER:
        raise Invalid(
            "Invalid argument type, offset and limit must be integers", field=name, code="paging"
        )
    return number


def _with_stopped(query: Mapping[str, str]) -> bool:
    return query.get("include_stopped_servers", "0") not in ("0", "false")


def _next_url(call: Call, offset: int, limit: int) -> str:
    query = urlencode({**call.query, "offset": offset, "limit": limit})
    host = call.header(b"host")
    path = call.scope["raw_path"].decode("latin-1")
    return f"{call.scope['scheme']}://{host}{path}?{query}"


# --- making and changing ------------------------------------------------------------------------


async def create_many(call: Call) -> Reply:
    """``POST /users``: make those of some users who do not exist yet."""
    fields = await call.fields()
    check_keys(fields, {"usernames": list, "admin": bool})
    names = texts_of(fields.get("usernames", []), "usernames")
    if not names:
        raise Invalid("Must specify at least one user to create", field="usernames")
    admin = fields.get("admin", False)
    if admin:
        users.check_may_make_admin(by_admin=call.caller.admin)
    made = await call.hub.database.write(
        bound(users.create_users, names, admin=admin, now=call.hub.clock.now())
    )
    view = View(call.caller)
    return json_reply([user_model(call.hub, row, view) for row in made], 201)


async def create(call: Call) -> Reply:
    """``POST /users/:n``: make one user."""
    fields = await call.fields()
    check_keys(fields, _CHANGES)
    admin = fields.get("admin", False)
    if admin:
        users.check_may_make_admin(by_admin=call.caller.admin)
    row = await call.hub.database.write(
        bound(users.create_user, call.user_name, admin=admin, now=call.hub.clock.now())
    )
    return json_reply(user_model(call.hub, row, View(call.caller)), 201)


_CHANGES: Final[Mapping[str, type | tuple[type, ...]]] = {
    "name": str,
    "admin": bool,
    "auth_state": (dict, type(None)),
    "groups": list,
    "roles": list,
}
"""Of these the wire accepts all, and only the first two have an effect."""


async def change(call: Call) -> Reply:
    """``PATCH /users/:n``: rename a user, or change whether they are an administrator."""
    fields = await call.fields()
    check_keys(fields, _CHANGES)
    admin = fields.get("admin")

    def unit(connection: Connection) -> UserRow:
        by_admin = call.caller.admin
        users.check_may_change(connection, call.user_name, by_admin=by_admin)
        if admin:
            users.check_may_make_admin(by_admin=by_admin)
        return users.change_user(
            connection, call.user_name, new_name=fields.get("name"), admin=admin
        )

    row = await call.hub.database.write(unit)
    model = user_model(call.hub, row, View(call.caller))
    model.auth_state = None
    return json_reply(model)


async def delete(call: Call) -> Reply:
    """``DELETE /users/:n``: stop what runs, then delete the user."""
    name, hub = call.user_name, call.hub
    if call.caller.kind == "user" and call.caller.name == name:
        raise Invalid("Cannot delete yourself!", code="delete-self")

    def unit(connection: Connection) -> UserRow:
        users.check_may_change(connection, name, by_admin=call.caller.admin)
        return get_user(connection, name)

    row = await hub.database.read(unit)
    end = monotonic() + call.patience.stop
    stopping = [
        await request_stop(
            hub, user_id=row.id, server_name=server.name, asking=call.asking(), cause=Cause.ADMIN
        )
        for server in row.servers
        if not server.is_stopped
    ]
    for launch in stopping:
        if launch is not None:
            left = max(0.0, end - monotonic())
            await wait_for(hub, launch.id, until=lambda now: not now.is_live, seconds=left)
    await hub.database.write(bound(users.delete_user, name))
    return empty(204)


# --- activity -----------------------------------------------------------------------------------


async def report_activity(call: Call) -> Reply:
    """``POST /users/:n/activity``: somebody, or some of their servers, did something."""
    body = await call.body()
    if not isinstance(body, dict):
        raise Invalid("body must be a json dict", code="body-type")
    if not body.get("last_activity") and not body.get("servers"):
        raise Invalid("body must contain at least one of `last_activity` or `servers`")
    now = call.hub.clock.now()
    latest = now + _FUTURE
    at = _instant(body["last_activity"], latest) if body.get("last_activity") else None
    servers = _server_times(body.get("servers") or {}, latest)
    caller = call.caller

    def unit(connection: Connection) -> None:
        user_id, name = caller.user_id, call.user_name
        if user_id is None or caller.name != name:
            user_id = get_user(connection, name).id
        told = activity.Report(
            user_id=user_id, user_name=name, at=at, servers=servers, launch_id=caller.launch_id
        )
        activity.apply(connection, told, now=now)

    await call.hub.database.write(unit)
    return empty(200)


def _server_times(servers: object, latest: datetime) -> dict[str, datetime]:
    if not isinstance(servers, dict):
        raise Invalid("servers must be a json dict", field="servers", code="body-type")
    found: dict[str, datetime] = {}
    for name, said in servers.items():
        if not isinstance(said, dict) or "last_activity" not in said:
            raise Invalid(
                f"server {name[:60]!r} must have last_activity", field="servers", code="body-type"
            )
        found[name] = _instant(said["last_activity"], latest)
    return found


def _instant(value: object, latest: datetime) -> datetime:
    """Read an instant leniently; one without a zone is UTC. Raises `Invalid`."""
    at = _parse_instant(value) if isinstance(value, str) else None
    if at is None:
        shown = str(value)[:60]
        raise Invalid(
            f"{shown!r} is not an instant such as 2026-11-20T10:15:29Z", code="body-instant"
        )
    if at > latest:
        raise Invalid(
            f"Rejecting activity from more than an hour in the future: {value}",
            code="activity-future",
        )
    return at


def _parse_instant(text: str) -> datetime | None:
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            at = read(text.strip()[:60])
            return (at.replace(tzinfo=UTC) if at.tzinfo is None else at).astimezone(UTC)
        except (ValueError, OverflowError, TypeError, IndexError):
            continue
    return None
