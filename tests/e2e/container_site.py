"""A real site in front of the test bed's container platforms, and what is there because of it."""

import json
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from perijove.spawners.docker.labels import INSTALLATION, SPAWNER
from tests import containers
from tests.contract.spawners.docker_site import docker, sweep
from tests.contract.spawners.kubernetes_site import a_namespace, kubectl, shown
from tests.e2e.site import ADMIN_TOKEN, Site, a_site, free_port, wait_for
from tests.integration.docker.registry import Registry
from tests.integration.session.inside import Inside

Kind = Literal["docker", "kubernetes"]

PASSWORD: Final = "the password of everybody here"
PEOPLE: Final = ("alice", "bob")
GATE: Final = "perijove.test/e2e"
"""A label that the node gets when what is behind the gate may run."""
START_SECONDS: Final = 180
_FREQUENT: Final = """
cpu_guarantee = "5 %"
watch_seconds = 5
"""
_SIZE: Final = "8m"
"""Of the small volumes: a start on one of them can be seen to find it full."""

PROFILES: Final = """
[[profiles]]
name = "docker"
title = { en = "In a container", fr = "Dans un conteneur" }
spawner = "docker"
cpu = 1
memory = "1 GiB"

[[profiles]]
name = "kubernetes"
title = { en = "On the cluster", fr = "Sur la grappe" }
spawner = "kubernetes"
cpu = 1
memory = "512 MiB"
[profiles.fields]
memory = { default = "512 MiB", min = "256 MiB", max = "8 TiB", step = "256 MiB" }

[[profiles]]
name = "gated"
title = "Behind a gate"
spawner = "kubernetes"
cpu = 1
memory = "512 MiB"
[profiles.platform]
node_selector = { "GATE" = "open" }

[[profiles]]
name = "no-image-docker"
title = "An old profile"
spawner = "docker"
image = "MISSING"

[[profiles]]
name = "no-image-kubernetes"
title = "Another old profile"
spawner = "kubernetes"
cpu = 1
memory = "512 MiB"
image = "MISSING"

[[profiles]]
name = "small"
title = "With little storage"
spawner = "small"
[profiles.storage]
kept = "server"
retention = "0 s"
"""


def configuration(api_port: int, namespace: str, missing: str) -> str:
    """Return the configuration of both platforms; `missing` is an image that does not exist."""
    tmpfs = f'{{ type = "tmpfs", device = "tmpfs", o = "size={_SIZE},uid=1000" }}'
    return f"""
api_bind = "0.0.0.0:{api_port}"

[auth.demo]
password = "fixed:{PASSWORD}"

[[policies]]
named_servers = 20

{containers.docker_section(api_port)}
{containers.docker_section(api_port, f"volume_options = {tmpfs}", name="small")}
{containers.kubernetes_section(api_port, namespace, _FREQUENT)}
{PROFILES.replace("MISSING", missing).replace("GATE", GATE)}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """One container or pod of a site."""

    name: str
    """As the platform calls it."""
    user: str
    address: str
    """Its network address, once it has one."""


@dataclass(slots=True)
class ContainerSite:
    """A site, and what there is of it on the two platforms."""

    site: Site
    namespace: str
    missing: str

    def placed(self, kind: Kind) -> list[Placed]:
        """Return every container or pod of the site, whatever its state."""
        if kind == "kubernetes":
            return self._pods()
        # The kubelet's containers carry the labels of their pods.
        labels = (f"{INSTALLATION}={self.site.installation()}", f"{SPAWNER}=docker")
        chosen = [f"--filter=label={label}" for label in labels]
        ids = docker("container", "ls", "--all", "--quiet", *chosen).split()
        found = json.loads(docker("container", "inspect", *ids)) if ids else []
        return [
            Placed(
                name=one["Name"].removeprefix("/"),
                user=one["Config"]["Labels"]["perijove.org/user"],
                address=_address_of(one),
            )
            for one in found
        ]

    def _pods(self) -> list[Placed]:
        return [
            Placed(
                name=one["metadata"]["name"],
                user=one["metadata"]["labels"]["perijove.org/user"],
                address=one["status"].get("podIP", ""),
            )
            for one in shown("pods", f"--namespace={self.namespace}")["items"]
        ]

    def placed_of(self, kind: Kind, user: str) -> Placed:
        """Return the one container or pod that a person has."""
        (found,) = (one for one in self.placed(kind) if one.user == user)
        return found

    def run_inside(self, kind: Kind, where: Placed, source: str, *arguments: str) -> str:
        """Return what lines of Python print in a container, without anything of its server."""
        command = ("python3", "-I", "-c", source, *arguments)
        if kind == "docker":
            return docker("exec", where.name, *command)
        return kubectl(f"--namespace={self.namespace}", "exec", where.name, "--", *command)

    def token_of(self, user: str) -> str:
        """Return a new API token of a person."""
        status, made = self.site.api("POST", f"/users/{user}/tokens", {"note": "test"})
        assert status == 201, made
        return str(made["token"])

    def inside(self, user: str, name: str) -> Inside:
        """Return a person's server as they use it."""
        return Inside(f"{self.site.url}/user/{user}/{name}/", ADMIN_TOKEN)

    def ask_for(self, user: str, name: str, profile: str) -> None:
        """Ask for a server, and do not wait for it, nor for the answer that waits for it."""
        request = urllib.request.Request(
            f"{self.site.url}/hub/api/users/{user}/servers/{name}",
            data=json.dumps({"profile": profile}).encode(),
            headers={"Authorization": f"token {ADMIN_TOKEN}"},
        )
        with suppress(TimeoutError), urllib.request.urlopen(request, timeout=0.5):
            pass
        wait_for(lambda: not self.site.server(user, name).get("stopped", True), what="the request")

    def await_ready(self, user: str, name: str) -> None:
        """Wait until a server is ready."""
        wait_for(
            lambda: self.site.server(user, name).get("ready"),
            what=f"{user}'s {name} to be ready; the hub said:\n{self.site.output[-2000:]}",
            seconds=START_SECONDS,
        )

    def stop(self, user: str, name: str) -> None:
        """Stop a server, or give up its start, and wait until that is done."""
        status, answer = self.site.api("DELETE", f"/users/{user}/servers/{name}")
        assert status in (202, 204), answer
        wait_for(
            lambda: self.site.server(user, name).get("stopped", True),
            what=f"{user}'s {name} to be stopped",
            seconds=START_SECONDS,
        )

    def launch_of(self, user: str, name: str) -> str:
        """Return the id of the latest launch of a server."""
        path = f"/perijove/users/{user}/launches?limit=1&server={name}"
        status, answer = self.site.api("GET", path)
        assert status == 200, answer
        (launch,) = answer["launches"]
        return str(launch["id"])

    def kill_hub(self) -> None:
        """SIGKILL the hub, and wait until another one serves."""
        before = self.site.parts()["hub"]
        before.kill()
        wait_for(
            lambda: self.site.parts().get("hub") not in (None, before) and self.site.is_serving(),
            what="a new hub",
        )


def _address_of(container: Mapping[str, Any]) -> str:
    networks = container["NetworkSettings"]["Networks"].values()
    return next((str(one["IPAddress"]) for one in networks if one["IPAddress"]), "")


@contextmanager
def a_container_site(directory: Path) -> Iterator[ContainerSite]:
    """Run a site in front of both platforms; leave nothing of it on either."""
    with ExitStack() as ends, Registry() as registry:
        namespace = ends.enter_context(a_namespace())
        missing = f"{registry.host}/astronomy/lab:2019"
        extra = configuration(free_port(), namespace, missing)
        with a_site(directory, extra=extra) as site:
            found = ContainerSite(site, namespace, missing)
            ends.callback(sweep, site.installation(), "docker", "small")
            yield found
