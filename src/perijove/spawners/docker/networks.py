"""The networks that the spawner makes, and in which people's containers do not meet."""

import hashlib
from collections.abc import Iterable, Mapping, Set
from typing import Any

import anyio

from perijove.domain.errors import SpawnerRejected
from perijove.spawners.docker.engine import Answer, Engine
from perijove.spawners.docker.labels import INSTALLATION, KIND
from perijove.spawners.docker.sections import DockerSettings
from perijove.spawners.docker.states import name_of

_BRIDGE = "com.docker.network.bridge.enable_icc"
_MTU = "com.docker.network.driver.mtu"


class Networks:
    """The networks of one installation on one engine."""

    def __init__(self, engine: Engine, installation: str, settings: DockerSettings) -> None:
        self._engine = engine
        self._name = f"pj-{installation}"
        self._installation = {INSTALLATION: installation}
        self._settings = settings
        self._making = anyio.Lock()

    async def ensure(self, wanted: str, user_name: str) -> str:
        """Return the name or the id of the network for a container of somebody's."""
        match wanted:
            case "own":
                return await self._ensure(self._name, {KIND: "own"}, meet=False)
            case "per-user":
                short = hashlib.sha256(user_name.encode()).hexdigest()[:16]
                name = f"{self._name}-user-{short}"
                network_id = await self._ensure(name, {KIND: "per-user"}, meet=True)
                for container in self._settings.join:
                    await self._engine.join_network(network_id, container)
                return network_id
            case _:
                return wanted

    async def _ensure(self, name: str, kind: Mapping[str, str], *, meet: bool) -> str:
        """
        Return the id of the oldest network with a name, made if there is none.

        Engines do not keep two hubs from making two of one name at the same time.
        """
        labels = self._installation | dict(kind)
        async with self._making:
            found = await self._oldest(name, labels)
            if found is not None:
                return found
            made = await self._engine.create_network(self._config(name, labels, meet=meet))
            found = await self._oldest(name, labels)
            if found is None:
                raise SpawnerRejected(
                    f"the network {name} is there, but this hub has not made it: remove it",
                    code="config-missing",
                )
            if made is not None and made != found:
                await self._engine.remove_network(made)
            return found

    async def _oldest(self, name: str, labels: Mapping[str, str]) -> str | None:
        listed = await self._engine.list_networks(labels)
        same = [(each["Created"], str(each["Id"])) for each in listed if each["Name"] == name]
        return min(same)[1] if same else None

    def _config(self, name: str, labels: Mapping[str, str], *, meet: bool) -> dict[str, Any]:
        options = {_BRIDGE: str(meet).lower()}
        if self._settings.mtu is not None:
            options[_MTU] = str(self._settings.mtu)
        config: dict[str, Any] = {
            "Name": name,
            "Driver": "bridge",
            "CheckDuplicate": True,
            "Options": options,
            "Labels": dict(labels),
        }
        if self._settings.subnet and not meet:
            config["IPAM"] = {"Config": [{"Subnet": self._settings.subnet}]}
        return config

    async def reach(self, servers: Iterable[Answer]) -> None:
        """
        Connect hub and proxy to the networks of containers that run, where they are not.

        Whoever makes their containers anew, for another version, takes them off.
        """
        running = (each for each in servers if each["State"] == "running")
        names = {name for each in running for name in _networks_of(each) if self._is_users(name)}
        if not names or not self._settings.join:
            return
        for container in await self._engine.list_named(self._settings.join):
            for name in sorted(names - _networks_of(container)):
                await self._engine.join_network(name, container["Id"])

    def _is_users(self, name: str) -> bool:
        return name.startswith(f"{self._name}-user-")

    async def prune(self) -> None:
        """Remove the networks of people who have no container, not even one that is yet to run."""
        labels = {**self._installation, KIND: "per-user"}
        listed = await self._engine.list_containers(self._installation)
        servers = [each for each in listed if name_of(each) not in self._settings.join]
        wanted = {name for each in servers for name in _networks_of(each)}
        wanted |= {(each.get("HostConfig") or {}).get("NetworkMode", "") for each in servers}
        for each in await self._engine.list_networks(labels):
            network_id = each["Id"]
            if {network_id, each["Name"]} & wanted:
                continue
            network = await self._engine.find_network(network_id) or {}
            inside = {each["Name"] for each in (network.get("Containers") or {}).values()}
            if inside <= set(self._settings.join):
                for container in inside:
                    await self._engine.leave_network(network_id, container)
                await self._engine.remove_network(network_id)


def _networks_of(listed: Answer) -> Set[str]:
    return (listed["NetworkSettings"].get("Networks") or {}).keys()
