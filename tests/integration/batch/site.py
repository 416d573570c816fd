"""A real site with both schedulers of the test bed, and ways to look at what it has there."""

import json
import pwd
import shutil
import sqlite3
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final

from tests import clusters
from tests.e2e.site import ADMIN_TOKEN, Site, free_port, place_for, wait_for

PROGRAM: Final = Path(__file__).with_name("program.py")
PATIENCE: Final = 120.0
"""Seconds; all of it takes a few on an idle machine."""
ON_THE_WAY: Final = 4
"""How many servers may be on their way on a cluster at once; the next ones stand in line."""

NAMED_SERVERS: Final = """
[[policies]]
named_servers = "unlimited"
"""

SETTINGS: Final = """\
command = ["/usr/bin/python3", "-I", "-S", "{program}"]
software = {{ setup = [["/usr/bin/python3", "-I", "-S", "{program}", "setup"]] }}
max_starting = {on_the_way}
"""

PROFILE: Final = """
[[profiles]]
name = "{name}"
spawner = "{name}"
[profiles.fields]
time = {{ default = "1 h", min = "1 min", max = "24 h" }}
memory = {{ default = "64 MiB", min = "16 MiB", max = "64 GiB" }}
cpu = {{ default = 1, min = 1, max = 64 }}
gpu = {{ default = 0, min = 0, max = 8 }}
account = {{}}
partition = {{}}
{more}"""


@dataclass(slots=True)
class BatchSite:
    """A site, and the jobs beside it."""

    site: Site
    beside: clusters.Blockers = field(default_factory=clusters.Blockers)

    # --- asking the hub -------------------------------------------------------------------

    def start(
        self,
        user: str,
        server: str,
        profile: str,
        *,
        expect: Sequence[int] = (201, 202),
        **given: Any,
    ) -> Any:
        """Ask for a server of a person and do not wait for it; returns the answer's body."""
        request = urllib.request.Request(
            f"{self.site.url}/hub/api/users/{user}/servers/{server}",
            method="POST",
            data=json.dumps({"profile": profile, "options": given}).encode(),
            headers={"Authorization": f"token {ADMIN_TOKEN}", "Prefer": "respond-async"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                status, text = response.status, response.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        assert status in expect, (status, text)
        return json.loads(text or b"null")

    def try_start(self, user: str, server: str, profile: str) -> None:
        """Ask for a server of a hub that may be killed before it answers."""
        with suppress(OSError, HTTPException):
            self.start(user, server, profile)

    def stop(self, user: str, server: str) -> None:
        """Ask for a server's end."""
        status, answer = self.site.api("DELETE", f"/users/{user}/servers/{server}")
        assert status in (202, 204), (status, answer)

    def launch(self, user: str, server: str) -> dict[str, Any]:
        """Return the newest launch of a server as the API shows it."""
        status, found = self.site.api("GET", f"/perijove/launches/{self.row(user, server)['id']}")
        assert status == 200, found
        model: dict[str, Any] = found
        return model

    def becomes(
        self, user: str, server: str, *states: str, seconds: float = PATIENCE
    ) -> dict[str, Any]:
        """Wait until a server's newest launch has one of the states; return it."""
        return self.until(
            user, server, lambda now: now["status"] in states, what=str(states), seconds=seconds
        )

    def until(
        self,
        user: str,
        server: str,
        holds: Callable[[dict[str, Any]], Any],
        *,
        what: str,
        seconds: float = PATIENCE,
    ) -> dict[str, Any]:
        """Wait until something holds of a server's newest launch; return it."""
        deadline = time.monotonic() + seconds
        while not holds(now := self.launch(user, server)):
            assert time.monotonic() < deadline, (
                f"waited {seconds} s for {what} of {user}/{server}: {now}\n"
                f"events: {self.events(now['id'])}\n{self.log(user, server)}"
            )
            time.sleep(0.1)
        return now

    def events(self, launch_id: str) -> list[tuple[str, Any]]:
        """Return a launch's events as codes and parameters."""
        with self._database() as database:
            rows = database.execute(
                "SELECT code, params FROM events WHERE launch_id = ? ORDER BY seq", [launch_id]
            )
            return [(code, json.loads(params)) for code, params in rows]

    def codes(self, launch_id: str) -> list[str]:
        """Return the codes of a launch's events."""
        return [code for code, _ in self.events(launch_id)]

    def offered(self, user: str, profile: str, field: str) -> set[str]:
        """Return what a person may choose of a field."""
        status, found = self.site.api("GET", f"/perijove/users/{user}/options")
        assert status == 200, found
        (schema,) = (each["schema"] for each in found["profiles"] if each["name"] == profile)
        return set(schema["properties"][field].get("enum", []))

    def servers(self, user: str) -> list[str]:
        """Return the names of a person's servers that are live."""
        status, model = self.site.api("GET", f"/users/{user}")
        assert status == 200, model
        return list(model["servers"])

    # --- looking at what it has written down ----------------------------------------------

    def row(self, user: str, server: str) -> dict[str, Any]:
        """Return the newest row of a server's launches."""
        with self._database() as database:
            found = database.execute(
                "SELECT * FROM launches WHERE user_name = ? AND server_name = ?"
                " ORDER BY requested_at DESC LIMIT 1",
                [user, server],
            ).fetchone()
        assert found is not None, f"{user} never had a server {server}"
        return dict(found)

    def has_launch(self, user: str, server: str) -> bool:
        """Tell whether a server was ever asked for, durably."""
        with self._database() as database:
            return bool(
                database.execute(
                    "SELECT count(*) FROM launches WHERE user_name = ? AND server_name = ?",
                    [user, server],
                ).fetchone()[0]
            )

    def until_submitting(self, most: int) -> None:
        """Return in the midst of it: when some of `most` launches are handed over, and not all."""

        def some() -> bool:
            with self._database() as database:
                found = database.execute(
                    "SELECT count(*) FROM launches WHERE status = 'submitted'"
                ).fetchone()[0]
            return bool(0 < found <= most)

        wait_for(some, what="a submission")

    def folder(self, user: str, server: str) -> Path:
        """Return the directory of a server's newest launch."""
        name = self.row(user, server)["name"]
        return Path(pwd.getpwnam(user).pw_dir, ".perijove/launches", name)

    def handles(self, user: str, server: str) -> list[Mapping[str, Any]]:
        """Return the handles that are recorded of a server's newest launch."""
        with self._database() as database:
            rows = database.execute(
                "SELECT body FROM handles WHERE launch_id = ?", [self.row(user, server)["id"]]
            )
            return [json.loads(body) for (body,) in rows]

    def job_id(self, user: str, server: str) -> str:
        """Return the id of the one job of a server's newest launch, once it is recorded."""
        self.until(
            user,
            server,
            lambda _: any("job_id" in each for each in self.handles(user, server)),
            what="a job's id",
        )
        (found,) = {each["job_id"] for each in self.handles(user, server) if "job_id" in each}
        return str(found)

    def state(self, spawner: str) -> dict[str, Any]:
        """Return what is known of a platform's health."""
        with self._database() as database:
            found = database.execute(
                "SELECT * FROM spawner_states WHERE name = ?", [spawner]
            ).fetchone()
        return dict(found) if found else {}

    def log(self, user: str, server: str) -> str:
        """Return what a launch's job has printed."""
        folder = self.folder(user, server)
        texts = [folder / "job.log", folder / "output"]
        return "".join(text.read_text(errors="replace") for text in texts if text.exists())

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        (path,) = (self.site.directory / "data").glob("*.sqlite")
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as database:
            database.row_factory = sqlite3.Row
            yield database

    # --- looking at the schedulers --------------------------------------------------------

    def jobs_of(self, user: str, server: str, profile: clusters.Cluster) -> list[str]:
        """Return the ids of the live jobs that carry the name of a server's newest launch."""
        return clusters.jobs_named(profile, self.row(user, server)["name"])


def configuration(program: Path) -> str:
    """Return the configuration of a site with both schedulers."""
    settings = SETTINGS.format(program=program, on_the_way=ON_THE_WAY)
    return (
        clusters.sign_in_section()
        + NAMED_SERVERS
        + clusters.section("slurm", settings + 'submit_arguments = ["--requeue"]\n')
        + clusters.section("gridengine", settings)
        + PROFILE.format(name="slurm", more="qos = {}\n")
        + PROFILE.format(name="gridengine", more="")
    )


@contextmanager
def a_batch_site(prepare: Callable[[Site], None] | None = None) -> Iterator[BatchSite]:
    """Run a site, changed by `prepare` before it begins."""
    place, program = place_for(PROGRAM)
    found = BatchSite(Site(place / "hub", free_port(), extra=configuration(program)))
    if prepare is not None:
        prepare(found.site)
    found.site.start()
    try:
        for user in clusters.PEOPLE:
            assert found.site.api("POST", f"/users/{user}")[0] == 201
        yield found
    finally:
        found.site.stop()
        shutil.rmtree(place)
