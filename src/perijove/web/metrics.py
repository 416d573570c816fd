"""``GET /hub/metrics``: what was counted, and what the database knows, for Prometheus."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import Connection, func, select
from starlette.requests import Request

from perijove.db.core import bound
from perijove.db.spawner_states import find_state
from perijove.db.tables import launches, users
from perijove.domain.errors import Forbidden
from perijove.domain.launch import Kind, Status
from perijove.services.hub import Hub
from perijove.services.metrics import PERIODS
from perijove.web.asgi import Receive, Scope, Send, respond
from perijove.web.identity import identify

SCOPE = "read:metrics"


@dataclass(frozen=True, slots=True)
class _Counts:
    users: int
    active: Mapping[str, int]
    launches: Mapping[str, int]
    servers: int
    silences: Mapping[str, float]
    """Seconds since each spawner's platform stopped to answer; 0 for one that answers."""


class MetricsEndpoint:
    """Answers a scrape; needs ``read:metrics`` unless the configuration opens it."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; raises `Forbidden` naming the scope."""
        hub = self._hub
        if hub.settings.authenticate_metrics:
            caller = await identify(hub, Request(scope, receive), kind="page", tokens=True)
            if caller is None or not caller.may(SCOPE):
                raise Forbidden(f"Metrics need the scope {SCOPE}", code="scope-missing")
        self._show(await hub.database.read_long(bound(_count, hub.spawners, hub.clock.now())))
        body = generate_latest(hub.metrics.registry)
        await respond(send, 200, body, CONTENT_TYPE_LATEST.encode())

    def _show(self, counts: _Counts) -> None:
        metrics = self._hub.metrics
        metrics.total_users.set(counts.users)
        metrics.running_servers.set(counts.servers)
        for period, count in counts.active.items():
            metrics.active_users.labels(period).set(count)
        for spawner, seconds in counts.silences.items():
            metrics.silence.labels(spawner).set(seconds)
        for status in Status:
            if status is not Status.ENDED:
                metrics.launches.labels(status).set(counts.launches.get(status, 0))


def _count(connection: Connection, spawners: Iterable[str], now: datetime) -> _Counts:
    live = launches.c.status != Status.ENDED
    by_status = connection.execute(
        select(launches.c.status, func.count().label("live"))
        .where(live)
        .group_by(launches.c.status)
    )
    return _Counts(
        users=connection.scalar(select(func.count()).select_from(users)) or 0,
        active={
            period: connection.scalar(
                select(func.count()).where(users.c.last_activity > now - timedelta(days=days))
            )
            or 0
            for period, days in PERIODS.items()
        },
        launches={row.status: row.live for row in by_status},
        servers=connection.scalar(select(func.count()).where(live, launches.c.kind == Kind.SERVER))
        or 0,
        silences={name: _silence(connection, name, now) for name in spawners},
    )


def _silence(connection: Connection, spawner: str, now: datetime) -> float:
    since = find_state(connection, spawner).failing_since
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())
