"""The two systems: how each is set up, started, asked, and put under load."""

import json
import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import anyio
import msgspec

from perijove.wire.control import Route, RouteTable
from tests.beds import ROOT
from tests.bench import load
from tests.bench.programs import BenchError, Program, free_port, is_open, stopping

SCOPES: Final = (
    "admin:users",
    "admin:servers",
    "access:servers",
    "tokens",
    "read:hub",
    "read:metrics",
)
"""What the token of the load may do, in both."""

_USERS_AT_ONCE: Final = 500


class Hub(Protocol):
    """A hub with its proxy, as the measurements see it."""

    name: str
    token: str

    @property
    def hub(self) -> Program:
        """Return the hub's program."""

    @property
    def proxy(self) -> Program:
        """Return the proxy's program."""

    @property
    def port(self) -> int:
        """Return the port at which the hub itself answers."""

    def start_hub(self) -> None:
        """Start the hub, and return when it serves."""


@dataclass(slots=True)
class PerijoveHub:
    """``perijove hub`` and ``perijove proxy`` with SQLite and the null spawner."""

    directory: Path
    upstream: int
    spawner: str = ""
    """The section of the spawner, if it is to be another than the null one."""
    name: str = "Perijove"
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    port: int = field(default_factory=free_port)
    public_port: int = field(default_factory=free_port)
    programs: dict[str, Program] = field(default_factory=dict)

    @property
    def hub(self) -> Program:
        """Return the hub's program."""
        return self.programs["hub"]

    @property
    def proxy(self) -> Program:
        """Return the proxy's program."""
        return self.programs["proxy"]

    def prepare(self) -> None:
        """Write the configuration."""
        self.directory.mkdir(parents=True)
        self._file.write_text(
            f"""
            [hub]
            bind = "127.0.0.1:{self.public_port}"
            api_bind = "127.0.0.1:{self.port}"
            data_dir = "{self.directory}/data"
            tokens = [{{ name = "bench", service = "bench", token = "{self.token}" }}]
            [[hub.roles]]
            name = "bench"
            scopes = {json.dumps(SCOPES)}
            services = ["bench"]
            [auth.demo]
            password = "any"
            """
            + (
                self.spawner
                or f"""
            [spawners.null]
            kind = "null"
            url = "http://127.0.0.1:{self.upstream}"
            max_starting = 1000
            """
            )
        )

    @property
    def _file(self) -> Path:
        return self.directory / "perijove.toml"

    def start_hub(self) -> None:
        """Start the hub, and return when it serves."""
        self.programs["hub"] = self._start("hub")
        _wait_for_health(self)

    def start_proxy(self) -> None:
        """Start the proxy, and return when it listens."""
        self.programs["proxy"] = self._start("proxy")
        self.proxy.wait_until(lambda: is_open(self.public_port))

    def put_routes(self, targets: Sequence[tuple[str, str]]) -> None:
        """Give a proxy that runs without a hub its table: the snapshot of the last one."""
        routes = [
            Route(prefix, target, launch=f"l{i}") for i, (prefix, target) in enumerate(targets)
        ]
        table = RouteTable("bench", 1, routes)
        data = self.directory / "data"
        data.mkdir(mode=0o700)
        (data / "routes.json").write_bytes(msgspec.json.encode(table))

    def _start(self, part: str) -> Program:
        command = [sys.executable, "-m", "perijove", part, "--config", str(self._file)]
        return Program.start(
            f"perijove {part}", command, self.directory / f"{part}.log", directory=self.directory
        )


@dataclass(slots=True)
class JupyterHub:
    """JupyterHub and configurable-http-proxy, from their registries."""

    directory: Path
    upstream: int
    name: str = "JupyterHub"
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    port: int = field(default_factory=free_port)
    public_port: int = field(default_factory=free_port)
    proxy_api_port: int = field(default_factory=free_port)
    programs: dict[str, Program] = field(default_factory=dict)

    @property
    def hub(self) -> Program:
        """Return the hub's program."""
        return self.programs["hub"]

    @property
    def proxy(self) -> Program:
        """Return the proxy's program."""
        return self.programs["proxy"]

    def prepare(self) -> None:
        """Make the directory; the configuration is a file beside this one."""
        self.directory.mkdir(parents=True)

    def start_hub(self) -> None:
        """Start the hub, and return when it serves."""
        configuration = Path(__file__).with_name("jupyterhub_config.py")
        self.programs["hub"] = Program.start(
            "jupyterhub",
            [ROOT / ".venvs/bench/bin/jupyterhub", "--config", configuration],
            self.directory / "hub.log",
            environment={
                "BENCH_UPSTREAM": f"http://127.0.0.1:{self.upstream}",
                "BENCH_BIND_URL": f"http://127.0.0.1:{self.public_port}",
                "BENCH_HUB_URL": f"http://127.0.0.1:{self.port}",
                "BENCH_PROXY_API": f"http://127.0.0.1:{self.proxy_api_port}",
                "BENCH_TOKEN": self.token,
                "BENCH_SCOPES": " ".join(SCOPES),
                "CONFIGPROXY_AUTH_TOKEN": self.token,
            },
            directory=self.directory,
        )
        _wait_for_health(self)

    def start_proxy(self) -> None:
        """Start the proxy as JupyterHub does, and return when it listens."""
        command = [os.environ["PERIJOVE_TEST_CHP"], "--ip", "127.0.0.1"]
        command += ["--port", str(self.public_port), "--api-ip", "127.0.0.1"]
        command += ["--api-port", str(self.proxy_api_port), "--metrics-ip", "127.0.0.1"]
        command += ["--metrics-port", str(free_port())]
        command += ["--error-target", f"http://127.0.0.1:{self.port}/hub/error"]
        command += ["--log-level", "debug"]  # the only level with a line for each request
        self.programs["proxy"] = Program.start(
            "configurable-http-proxy",
            command,
            self.directory / "proxy.log",
            environment={"CONFIGPROXY_AUTH_TOKEN": self.token, "NODE_ENV": "production"},
            directory=self.directory,
        )
        self.proxy.wait_until(lambda: is_open(self.public_port) and is_open(self.proxy_api_port))

    def put_routes(self, targets: Sequence[tuple[str, str]]) -> None:
        """Give the proxy its table, through its API."""

        async def put() -> None:
            for prefix, target in targets:
                answer = await load.ask(
                    self.proxy_api_port,
                    "POST",
                    f"/api/routes{prefix}",
                    token=self.token,
                    body={"target": target},
                )
                if answer.status != 201:
                    raise BenchError(f"status {answer.status} for a route")

        anyio.run(put)


def _wait_for_health(hub: PerijoveHub | JupyterHub) -> None:
    def is_healthy() -> bool:
        try:
            return anyio.run(load.ask, hub.port, "GET", "/hub/health").status == 200
        except OSError:
            return False

    hub.hub.wait_until(lambda: is_open(hub.port) and is_healthy(), pause=0.01)


@contextmanager
def running_hubs(directory: Path, upstream: int) -> Iterator[tuple[PerijoveHub, JupyterHub]]:
    """Run both hubs, each with its proxy."""
    hubs = (
        PerijoveHub(directory / "perijove", upstream),
        JupyterHub(directory / "jupyterhub", upstream),
    )
    try:
        for hub in hubs:
            hub.prepare()
            hub.start_proxy()
            hub.start_hub()
        yield hubs
    finally:
        for hub in hubs:
            with stopping(*reversed(hub.programs.values())):
                pass


@contextmanager
def running_proxies(
    directory: Path, targets: Sequence[tuple[str, str]]
) -> Iterator[tuple[PerijoveHub, JupyterHub]]:
    """Run both proxies alone, with the same table."""
    ours, theirs = PerijoveHub(directory / "perijove", 0), JupyterHub(directory / "jupyterhub", 0)
    try:
        ours.prepare()
        ours.put_routes(targets)  # read once, at its start
        ours.start_proxy()
        theirs.prepare()
        theirs.start_proxy()
        theirs.put_routes(targets)
        yield ours, theirs
    finally:
        for system in (ours, theirs):
            with stopping(*system.programs.values()):
                pass


async def add_users(hub: Hub, names: Sequence[str]) -> None:
    """Make accounts, through the API."""
    for start in range(0, len(names), _USERS_AT_ONCE):
        body = {"usernames": names[start : start + _USERS_AT_ONCE]}
        answer = await load.ask(hub.port, "POST", "/hub/api/users", token=hub.token, body=body)
        if answer.status != 201:
            raise BenchError(f"{hub.name}: status {answer.status} for users: {answer.body[:200]!r}")
