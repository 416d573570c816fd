"""The REST API: JupyterHub's paths, and our own below ``perijove/``. One table of endpoints."""

from collections.abc import Mapping
from typing import Final

from perijove.web.api import (
    environments,
    hub,
    launches,
    options,
    progress,
    registration,
    servers,
    tokens,
    users,
    volumes,
    waits,
)
from perijove.web.api.models import READ_USER
from perijove.web.api.routing import Endpoint, On, Table

_START: Final = ["start:servers"]
_READ: Final = ["read:servers"]


def _servers(path: str) -> Mapping[tuple[str, str], Endpoint]:
    """Return the endpoints of one server: the default one and named ones have the same."""
    return {
        ("GET", path): Endpoint(on=On.SERVER, any_of=_READ, reads=servers.show),
        ("PUT", path): Endpoint(on=On.SERVER, any_of=_START, acts=servers.create),
        ("POST", path): Endpoint(on=On.SERVER, any_of=_START, acts=servers.start),
        ("PATCH", path): Endpoint(on=On.SERVER, any_of=_START, acts=servers.change),
        ("DELETE", path): Endpoint(on=On.SERVER, any_of=["delete:servers"], acts=servers.stop),
        ("GET", f"{path}/progress"): Endpoint(
            on=On.SERVER, any_of=_READ, acts=progress.progress, label=progress.LABEL
        ),
    }


ENDPOINTS: Final[Mapping[tuple[str, str], Endpoint]] = {
    ("GET", "/"): Endpoint(on=On.OPEN, acts=hub.version),
    ("GET", "/health"): Endpoint(on=On.OPEN, acts=hub.health),
    ("HEAD", "/health"): Endpoint(on=On.OPEN, acts=hub.health),
    ("GET", "/info"): Endpoint(on=On.ALL, any_of=["read:hub"], acts=hub.info),
    ("GET", "/user"): Endpoint(on=On.KNOWN, reads=hub.whoami),
    ("GET", "/users"): Endpoint(on=On.LISTED, any_of=["list:users"], reads=users.listed, long=True),
    ("POST", "/users"): Endpoint(on=On.ALL, any_of=["admin:users"], acts=users.create_many),
    ("GET", "/users/:n"): Endpoint(on=On.USER, any_of=READ_USER, reads=users.show),
    ("POST", "/users/:n"): Endpoint(on=On.USER, any_of=["admin:users"], acts=users.create),
    ("PATCH", "/users/:n"): Endpoint(on=On.USER, any_of=["admin:users"], acts=users.change),
    ("DELETE", "/users/:n"): Endpoint(on=On.USER, any_of=["delete:users"], acts=users.delete),
    ("POST", "/users/:n/activity"): Endpoint(
        on=On.USER, any_of=["users:activity"], acts=users.report_activity
    ),
    ("GET", "/users/:n/tokens"): Endpoint(on=On.USER, any_of=["read:tokens"], reads=tokens.listed),
    ("POST", "/users/:n/tokens"): Endpoint(on=On.SELF_CHECKED, acts=tokens.create),
    ("GET", "/users/:n/tokens/:id"): Endpoint(
        on=On.USER, any_of=["read:tokens"], reads=tokens.show
    ),
    ("DELETE", "/users/:n/tokens/:id"): Endpoint(on=On.USER, any_of=["tokens"], acts=tokens.revoke),
    **_servers("/users/:n/server"),
    **_servers("/users/:n/servers/:s?"),
    ("GET", "/perijove/launches/:id"): Endpoint(on=On.KNOWN, reads=launches.show, own=True),
    ("GET", "/perijove/launches/:id/events"): Endpoint(
        on=On.KNOWN, acts=launches.events_or_stream, own=True, label="perijove.events"
    ),
    ("GET", "/perijove/launches/:id/log"): Endpoint(on=On.KNOWN, acts=launches.log, own=True),
    ("GET", "/perijove/launches/:id/wait"): Endpoint(on=On.KNOWN, acts=waits.show, own=True),
    ("POST", "/perijove/launches/:id/keep-waiting"): Endpoint(
        on=On.KNOWN, acts=waits.keep, own=True
    ),
    ("POST", "/perijove/launches/:id/release"): Endpoint(on=On.KNOWN, acts=waits.let_go, own=True),
    ("POST", "/perijove/launches/:id/notify"): Endpoint(on=On.KNOWN, acts=waits.notify, own=True),
    ("GET", "/perijove/users/:n/launches"): Endpoint(
        on=On.USER, any_of=["read:servers"], reads=launches.listed, own=True
    ),
    ("GET", "/perijove/users/:n/policy"): Endpoint(
        on=On.USER, any_of=["read:servers"], reads=launches.policy, own=True
    ),
    ("GET", "/perijove/users/:n/options"): Endpoint(
        on=On.USER, any_of=["read:servers", "start:servers"], acts=options.options, own=True
    ),
    ("GET", "/perijove/users/:n/environments"): Endpoint(
        on=On.USER, any_of=_READ, reads=environments.listed, own=True
    ),
    ("POST", "/perijove/users/:n/environments"): Endpoint(
        on=On.USER, any_of=_START, acts=environments.create, own=True
    ),
    ("GET", "/perijove/users/:n/environments/:id"): Endpoint(
        on=On.USER, any_of=_READ, reads=environments.show, own=True
    ),
    ("PATCH", "/perijove/users/:n/environments/:id"): Endpoint(
        on=On.USER, any_of=_START, acts=environments.change, own=True
    ),
    ("DELETE", "/perijove/users/:n/environments/:id"): Endpoint(
        on=On.USER, any_of=_START, acts=environments.remove, own=True
    ),
    ("GET", "/perijove/users/:n/environments/:id/lock"): Endpoint(
        on=On.USER, any_of=_READ, reads=environments.lock, own=True
    ),
    ("POST", "/perijove/environments/sync"): Endpoint(
        on=On.KNOWN, acts=environments.sync, own=True
    ),
    ("GET", "/perijove/volumes"): Endpoint(on=On.KNOWN, reads=volumes.listed, long=True, own=True),
    ("GET", "/perijove/volumes/:id"): Endpoint(on=On.KNOWN, reads=volumes.show, own=True),
    ("DELETE", "/perijove/volumes/:id"): Endpoint(on=On.KNOWN, acts=volumes.delete, own=True),
    ("POST", "/perijove/volumes/:id/restore"): Endpoint(
        on=On.KNOWN, acts=volumes.restore, own=True
    ),
    ("POST", "/perijove/volumes/:id/attach"): Endpoint(on=On.KNOWN, acts=volumes.attach, own=True),
    ("POST", "/perijove/registrations"): Endpoint(on=On.OPEN, acts=registration.register, own=True),
    ("POST", "/perijove/registrations/listening"): Endpoint(
        on=On.OPEN, acts=registration.listening, own=True
    ),
    ("POST", "/perijove/registrations/outlook"): Endpoint(
        on=On.OPEN, acts=registration.outlook, own=True
    ),
    ("POST", "/perijove/registrations/report"): Endpoint(
        on=On.OPEN, acts=registration.report, own=True
    ),
    ("POST", "/perijove/registrations/volumes"): Endpoint(
        on=On.KNOWN, acts=registration.used, own=True
    ),
    ("POST", "/perijove/registrations/warning"): Endpoint(
        on=On.KNOWN, acts=registration.warning, own=True
    ),
    ("POST", "/batchspawner"): Endpoint(on=On.KNOWN, acts=registration.batchspawner),
}
"""What the API answers. A path's scopes are alternatives, checked on what the path names."""

TABLE: Final = Table(ENDPOINTS)

__all__ = ["ENDPOINTS", "TABLE"]
