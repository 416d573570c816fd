"""A site whose sessions are jobs of the test beds' schedulers, with real Jupyter servers."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

from tests import beds, clusters
from tests.e2e.site import Site, free_port, wait_for
from tests.integration.session.inside import Inside

PROFILE: Final = """
[[profiles]]
name = "{name}"
spawner = "{name}"
[profiles.fields]
time = {{ default = "40 min", min = "5 min", max = "8 h" }}
memory = {{ default = "1 GiB", min = "256 MiB", max = "8 GiB" }}
cpu = {{ default = 2, min = 1, max = 8 }}
gpu = {{ default = 0, min = 0, max = 2 }}
partition = {{}}
ui = {{}}
"""


@dataclass(frozen=True, slots=True)
class Sessions:
    """The site, and its people's sessions."""

    site: Site

    def start(self, user: str, name: str, profile: str, **options: Any) -> Inside:
        """Start a server and return its inside when it is ready."""
        self.request(user, name, profile, **options)

        def is_ready() -> Any:
            status, found = self.site.api("GET", f"/users/{user}")
            model = found["servers"].get(name)
            assert status == 200, found
            assert model, f"{self.log(user)}\n{self.site.output[-3000:]}"
            return model["ready"] and model

        model = wait_for(is_ready, what=f"the server of {user}", seconds=200)
        status, token = self.site.api("POST", f"/users/{user}/tokens", {"note": "tests"})
        assert status == 201, token
        prefix = self.site.url.partition("/hub")[0]
        return Inside(f"{prefix}{model['url']}", token["token"])

    def request(self, user: str, name: str, profile: str, **options: Any) -> None:
        """Ask for a server."""
        wait_for(lambda: self.offers(user, profile), what=f"what {profile} has for {user}")
        body = {"profile": profile, "options": options}
        status, answer = self.site.api("POST", f"/users/{user}/servers/{name}", body)
        assert status in (201, 202), answer

    def offers(self, user: str, profile: str) -> bool:
        """Tell whether it is known by now what a scheduler has for a person."""
        status, found = self.site.api("GET", f"/perijove/users/{user}/options")
        assert status == 200, found
        (schema,) = (each["schema"] for each in found["profiles"] if each["name"] == profile)
        return any(schema["properties"]["partition"].get("enum", []))

    def stop(self, user: str, name: str) -> None:
        """Stop a server and wait until it is gone."""
        self.site.api("DELETE", f"/users/{user}/servers/{name}")

        def is_gone() -> bool:
            _, found = self.site.api("GET", f"/users/{user}")
            return name not in found["servers"]

        wait_for(is_gone, what=f"the end of {user}'s server {name}")

    def log(self, user: str) -> str:
        """Return what the jobs of a person that are still there have printed."""
        folders = Path(f"~{user}/.perijove/launches").expanduser()
        return "\n".join(file.read_text(errors="replace") for file in folders.glob("*/job.log"))


@contextmanager
def running_sessions() -> Iterator[Sessions]:
    """Run a site."""
    directory = Path(mkdtemp(dir="/var/tmp", prefix="perijove-test-"))
    site = Site(directory, free_port(), extra=configuration())
    site.start()
    try:
        for user in clusters.PEOPLE:
            assert site.api("POST", f"/users/{user}")[0] == 201
        yield Sessions(site)
    finally:
        site.stop()
        shutil.rmtree(directory)


def configuration() -> str:
    """Return the configuration of a site with both schedulers."""
    software = f'software = {{ prefix = "{os.environ["PERIJOVE_TEST_JOB_SINGLEUSER"]}" }}\n'
    return (
        clusters.sign_in_section()
        + "".join(
            clusters.section(cluster, software) + PROFILE.format(name=cluster)
            for cluster in clusters.BOTH
        )
        + '[[policies]]\nnamed_servers = "unlimited"\n'
    )


def sign_in(user: str) -> dict[str, str]:
    """Return what a person types into the door of this site."""
    return {"username": user, "password": os.environ["PERIJOVE_TEST_PASSWORD"]}


beds.load_environment(os.environ)
