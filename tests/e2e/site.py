"""A real site for tests: `perijove run` as people start it, and ways to look at it and hurt it."""

import json
import os
import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, TypeVar

import psutil

T = TypeVar("T")

PATIENCE = 120.0
ADMIN_TOKEN = "an-admin-token-that-only-tests-know"
PASSWORD = "correct horse battery staple"


def wait_for(check: Callable[[], T | None], *, what: str, seconds: float = PATIENCE) -> T:
    """Return what `check` gives as soon as it is true; fail by naming `what` otherwise."""
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)
    return found


def free_port() -> int:
    """Return a port that nobody has, and that the system gives to nobody by itself."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def place_for(program: Path) -> tuple[Path, Path]:
    """
    Make a directory that others may pass through; return it, and a copy of a program in it.

    The copy may be read by everybody, ``hub`` within the directory only by whoever made it.
    """
    place = Path(mkdtemp(dir="/var/tmp", prefix="perijove-test-"))
    place.chmod(0o711)
    (place / "hub").mkdir(mode=0o700)
    copy = place / program.name
    copy.write_bytes(program.read_bytes())
    copy.chmod(0o644)
    return place, copy


@dataclass(slots=True)
class Site:
    """One installation."""

    directory: Path
    port: int
    base_path: str = "/"
    extra: str = ""
    """TOML besides what every test site has."""
    environment: Mapping[str, str] = field(default_factory=dict)
    python: Sequence[str] = (sys.executable,)
    """The command that is Python, perhaps under another account."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where people find it, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}{self.base_path}".rstrip("/")

    @property
    def output(self) -> str:
        """Everything it has said."""
        return (self.directory / "output").read_text(errors="replace")

    def configure(self) -> Path:
        """Write the configuration file."""
        path = self.directory / "perijove.toml"
        path.write_text(
            f"""
[hub]
bind = "127.0.0.1:{self.port}"
base_path = "{self.base_path}"
data_dir = "{self.directory / "data"}"
tokens = [{{ name = "tests", user = "admin", token = "{ADMIN_TOKEN}" }}]
{self.extra}
"""
        )
        return path

    def start(self) -> None:
        """Run it until it serves."""
        with (self.directory / "output").open("ab") as out:
            self.process = subprocess.Popen(
                [*self.python, "-m", "perijove", "run", "--config", str(self.configure())],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PERIJOVE_ADMIN_PASSWORD": PASSWORD, **self.environment},
                start_new_session=True,
            )
        wait_for(self.is_serving, what=f"the hub to serve; it said:\n{self.output[-3000:]}")

    def is_serving(self) -> bool:
        """Tell whether the hub answers through the proxy."""
        assert self.process is not None
        assert self.process.poll() is None, self.output[-3000:]
        try:
            with urllib.request.urlopen(f"{self.url}/hub/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def stop(self) -> None:
        """End it as Ctrl-C does."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(PATIENCE)

    def kill_all(self) -> None:
        """SIGKILL the supervisor, the hub and the proxy at once; servers run on."""
        victims = [*self.parts().values()]
        for victim in victims:
            victim.kill()
        psutil.wait_procs(victims, timeout=PATIENCE)
        assert self.process is not None
        self.process.wait(PATIENCE)

    def parts(self) -> dict[str, psutil.Process]:
        """Return the site's own processes by what they are: run, hub, proxy."""
        assert self.process is not None
        run = psutil.Process(self.process.pid)
        found = {"run": run}
        for child in run.children():
            try:
                line = child.cmdline()
            except psutil.Error:  # it has just ended
                continue
            if "perijove" in line:
                found[line[line.index("perijove") + 1]] = child
        return found

    def servers(self) -> list[psutil.Process]:
        """Return the single-user servers that live, without their helpers."""
        home = str(self.directory / "data")
        found = []
        for process in psutil.process_iter():
            try:
                line, environment = process.cmdline(), process.environ()
            except psutil.Error:
                continue
            if any("jupyterhub-singleuser" in part for part in line) and environment.get(
                "HOME", ""
            ).startswith(home):
                found.append(process)
        return found

    def installation(self) -> str:
        """Return what marks all that is this site's on any platform."""
        (path,) = (self.directory / "data").glob("*.sqlite")
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as database:
            ((found,),) = database.execute("SELECT name FROM installation")
        return str(found)

    def link(self) -> str:
        """Return the one-time link that was printed."""
        return wait_for(
            lambda: ([str(one) for one in re.findall(r"http://\S+link=\S+", self.output)] or [""])[
                -1
            ],
            what="the link",
        )

    def api(self, method: str, path: str, body: Any = None, token: str = ADMIN_TOKEN) -> Any:
        """Ask the REST API; returns (status, body)."""
        return self.ask(method, f"/hub/api{path}", body, token)

    def ask(self, method: str, path: str, body: Any = None, token: str = ADMIN_TOKEN) -> Any:
        """Ask anything of the site, hub or server; returns (status, body)."""
        request = urllib.request.Request(
            f"{self.url}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"token {token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        try:
            return status, json.loads(text)
        except ValueError:
            return status, text.decode(errors="replace")

    def server(self, user: str, name: str = "") -> dict[str, Any]:
        """Return the model of a user's server; empty when there is none."""
        status, model = self.api("GET", f"/users/{user}?include_stopped_servers=1")
        assert status == 200, model
        found: dict[str, Any] = model["servers"].get(name, {})
        return found

    def start_server(self, user: str = "admin") -> dict[str, Any]:
        """Start a user's server and wait until it is ready."""
        status, answer = self.api("POST", f"/users/{user}/server")
        assert status in (201, 202), answer
        return wait_for(
            lambda: model if (model := self.server(user)).get("ready") else None,
            what=f"{user}'s server to be ready",
            seconds=200,
        )

    def stop_server(self, user: str = "admin") -> None:
        """Stop a user's server and wait until it is gone."""
        status, answer = self.api("DELETE", f"/users/{user}/server")
        assert status in (202, 204), answer
        wait_for(
            lambda: self.server(user).get("stopped", True),
            what=f"{user}'s server to be stopped",
        )


@contextmanager
def a_site(directory: Path, **given: Any) -> Iterator[Site]:
    """Run a site; at the end stop its servers and then itself."""
    site = Site(directory=directory, port=free_port(), **given)
    site.start()
    try:
        yield site
    finally:
        servers = site.servers()
        if site.process is not None and site.process.poll() is None:
            site.stop()
        else:
            assert site.process is not None
        for server in servers:
            with suppress(psutil.Error):  # it has ended by itself
                supervisor = server.parent()
                server.kill()
                if supervisor is not None and supervisor.pid > 1:
                    supervisor.kill()


CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium() -> str:
    """Return the browser that the test bed provides."""
    return os.environ.get("PERIJOVE_TEST_CHROMIUM", "/usr/bin/chromium")
