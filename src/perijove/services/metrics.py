"""
What the hub counts: one registry per hub, so that two hubs in one process do not mix.

The names of JupyterHub are kept, so that its dashboards go on working; ours begin with
``perijove_``. Labels are bounded: never a user, a server or a path.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import anyio
import anyio.lowlevel
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

from perijove.kit.clock import monotonic

_SPAWN_BUCKETS: Final = (0.5, 1, 2.5, 5, 10, 15, 30, 60, 120, 180, 300, 600)
_FAST_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_FAILURES: Final = ("throttled", "too-many-users", "already-pending", "exited")
PERIODS: Final = {"24h": 1, "7d": 7, "30d": 30}
"""Days by the label of ``jupyterhub_active_users``."""

Outcome = Literal["success", "failure", "error"]


class Metrics:
    """Every instrument of a hub. Other modules call the methods; only `web` renders them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._requests = self._histogram(
            "jupyterhub_request_duration_seconds",
            "Time to answer a request",
            labels=("method", "handler", "code"),
        )
        self._request_children: dict[tuple[str, str, int], Histogram] = {}
        self._spawns = self._histogram(
            "jupyterhub_server_spawn_duration_seconds",
            "From a start that was asked for to its end",
            labels=("status", "reason"),
            buckets=_SPAWN_BUCKETS,
        )
        self._spawns.labels("success", "")
        self._spawns.labels("error", "")
        for reason in ("", *_FAILURES):
            self._spawns.labels("failure", reason)
        self._stops = self._outcomes("jupyterhub_server_stop_seconds", "Time to stop a server")
        self._polls = self._histogram(
            "jupyterhub_server_poll_duration_seconds",
            "Time to survey a platform",
            labels=("status",),
        )
        for status in ("running", "stopped"):
            self._polls.labels(status)
        self._route_adds = self._outcomes(
            "jupyterhub_proxy_add_duration_seconds", "Until every proxy worker had a new route"
        )
        self._route_deletes = self._outcomes(
            "jupyterhub_proxy_delete_duration_seconds", "Time to take a route away"
        )
        self._route_polls = self._histogram(
            "jupyterhub_proxy_poll_duration_seconds", "Time to answer a proxy's question"
        )
        self._route_checks = self._histogram(
            "jupyterhub_check_routes_duration_seconds", "Time to check the route table"
        )
        self._logins = self._outcomes(
            "jupyterhub_login_duration_seconds", "Time to check credentials"
        )
        self._logouts = self._histogram("jupyterhub_logout_duration_seconds", "Time to sign out")
        self._startup = self._histogram(
            "jupyterhub_hub_startup_duration_seconds",
            "Until the hub served",
            buckets=_SPAWN_BUCKETS,
        )
        self._init_spawners = self._histogram(
            "jupyterhub_init_spawners_duration_seconds",
            "Until every spawner was checked",
            buckets=_SPAWN_BUCKETS,
        )
        self._loop_delay = self._histogram(
            "jupyterhub_event_loop_interval_seconds", "How late the event loop is"
        )
        self.csp_reports = Counter(
            "jupyterhub_csp_reports",
            "Reports of content that the security policy refused",
            registry=self.registry,
        )
        self.running_servers = self._gauge(
            "jupyterhub_running_servers", "Servers that run or are under way"
        )
        self.total_users = self._gauge("jupyterhub_total_users", "Users in the database")
        self.active_users = Gauge(
            "jupyterhub_active_users",
            "Users active in a period",
            ["period"],
            registry=self.registry,
        )
        for period in PERIODS:
            self.active_users.labels(period)
        self.launches = Gauge(
            "perijove_launches", "Live launches by status", ["status"], registry=self.registry
        )
        self.silence = Gauge(
            "perijove_spawner_silent_seconds",
            "How long a spawner's platform has not answered; 0 while it does",
            ["spawner"],
            registry=self.registry,
        )
        self._calls = Counter(
            "perijove_scheduler_calls",
            "Commands of a batch scheduler that were run, by the hub for everybody or as a person",
            ["spawner", "program", "account"],
            registry=self.registry,
        )
        self._calls_seen: dict[tuple[str, str, str], int] = {}

    def scheduler_calls(
        self, spawner: str, calls: Mapping[str, int], *, account: str = "hub"
    ) -> None:
        """Take over how often each program was called since the spawner was made."""
        for program, count in calls.items():
            key = (spawner, program, account)
            self._calls.labels(*key).inc(max(0, count - self._calls_seen.get(key, 0)))
            self._calls_seen[key] = count

    def request(self, method: str, handler: str, code: int, seconds: float) -> None:
        """Count an answered request; `handler` is one of a bounded set."""
        key = (method, handler, code)
        child = self._request_children.get(key)
        if child is None:
            child = self._request_children[key] = self._requests.labels(method, handler, code)
        child.observe(seconds)

    def spawn(self, status: Outcome, seconds: float, reason: str = "") -> None:
        """Count a start: success, failure (refused, or the server's own) or error (ours)."""
        known = reason if status == "failure" and reason in _FAILURES else ""
        self._spawns.labels(status, known).observe(seconds)

    def stop(self, status: Outcome, seconds: float) -> None:
        """Count a stop, from the request to its end."""
        self._stops.labels(status).observe(seconds)

    def survey(self, seconds: float, *, running: bool) -> None:
        """Count one survey of a platform, by whether anything of ours was running there."""
        self._polls.labels("running" if running else "stopped").observe(seconds)

    def route_added(self, status: Outcome, seconds: float) -> None:
        """Count a published route."""
        self._route_adds.labels(status).observe(seconds)

    def route_deleted(self, status: Outcome, seconds: float) -> None:
        """Count a route that was taken away."""
        self._route_deletes.labels(status).observe(seconds)

    def route_poll(self, seconds: float) -> None:
        """Count a proxy's question, without the time it was kept waiting on purpose."""
        self._route_polls.observe(seconds)

    def routes_checked(self, seconds: float) -> None:
        """Count a check of the whole route table."""
        self._route_checks.observe(seconds)

    def login(self, status: Outcome, seconds: float) -> None:
        """Count an attempt to sign in."""
        self._logins.labels(status).observe(seconds)

    def logout(self, seconds: float) -> None:
        """Count a sign-out."""
        self._logouts.observe(seconds)

    def started(self, seconds: float) -> None:
        """Record how long the hub took until it served."""
        self._startup.observe(seconds)

    def spawners_checked(self, seconds: float) -> None:
        """Record how long after the hub's start a platform was seen first."""
        self._init_spawners.observe(seconds)

    async def measure_loop(self) -> None:
        """Measure how late the event loop is; the step of a loop that runs every second."""
        before = monotonic()
        await anyio.lowlevel.checkpoint()
        self._loop_delay.observe(monotonic() - before)

    def _histogram(
        self,
        name: str,
        text: str,
        *,
        labels: Sequence[str] = (),
        buckets: Sequence[float] = _FAST_BUCKETS,
    ) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def _outcomes(self, name: str, text: str) -> Histogram:
        found = self._histogram(name, text, labels=("status",))
        for status in ("success", "failure"):
            found.labels(status)
        return found

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self.registry)
