"""
One engine, as far as the spawner needs it.

What it says is passed on as it came. That it says nothing, in time or at all, is
`SpawnerTransient`; that it refuses is `DockerError`, with the engine's status and words.
"""

import io
import json
import math
import os
import re
import ssl
import tarfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

import aiohttp
import anyio
from aiodocker import Docker, DockerError
from aiodocker.containers import DockerContainer
from aiodocker.jsonstream import json_stream_stream
from aiodocker.multiplexed import multiplexed_result_stream
from aiodocker.networks import DockerNetwork
from aiodocker.volumes import DockerVolume

from perijove.domain.errors import ConfigError, SpawnerTransient
from perijove.spawners.docker.labels import carries, filters_of

_SOCKET: Final = "unix:///var/run/docker.sock"
_LISTED: Final = (
    "Id", "Names", "State", "Labels", "Ports", "HostConfig", "NetworkSettings", "Mounts",
)  # fmt: skip
_NOTABLE: Final = frozenset({"die", "destroy", "pause", "unpause"})
"""What happens to a container by itself; what is run in it to see how it is, is told too."""
_TAKEN: Final = re.compile(r"already (exists|used|in use)")
_OTHER_VERSION: Final = re.compile(r"client version \S+ is too (old|new)")
_STOP_SECONDS: Final = 30.0
"""How long after the grace an engine may take to say that a container has ended."""
_START_SECONDS: Final = 100.0
"""Many containers that are started at once wait for each other, and some to fill a volume."""
_MEASURE_SECONDS: Final = 120.0
_LOG_BYTES: Final = 256 * 1024

Answer = Mapping[str, Any]
"""An object in an answer of the engine."""


class Engine:
    """A connection to an engine; `counts` says how often it was asked for what."""

    def __init__(self, url: str, tls: ssl.SSLContext | None, *, timeout: float) -> None:
        scheme, _, place = url.partition("://")
        self._url = f"https://{place}" if tls is not None and scheme == "tcp" else url
        self._tls = tls
        self._timeout = timeout
        self._docker: Docker | None = None
        self.counts: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        """Get ready to ask; nothing is asked yet."""
        self._docker = Docker(url=self._url, ssl_context=self._tls)
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close what is open."""
        if self._docker is not None:
            await self._docker.close()

    @contextmanager
    def _asking(self, what: str, *, seconds: float | None = None) -> Iterator[Docker]:
        if self._docker is None:
            raise SpawnerTransient("the spawner is not connected")
        self.counts[what] += 1
        try:
            with anyio.fail_after(self._timeout if seconds is None else seconds):
                yield self._docker
        except DockerError as error:
            if error.status == 500 and _TAKEN.search(error.message):
                raise DockerError(409, error.message) from error  # podman says so by 500
            if error.status == 400 and _OTHER_VERSION.search(error.message):
                self._docker.api_version = "auto"  # The engine was exchanged for another one.
                raise SpawnerTransient(f"the engine at {self._url}: {error.message}") from error
            # 900 is the library's own: there is no connection.
            if error.status >= 500:
                raise SpawnerTransient(f"the engine at {self._url}: {error.message}") from error
            raise
        except TimeoutError as error:
            raise SpawnerTransient(f"the engine at {self._url} does not answer") from error
        except (aiohttp.ClientError, OSError) as error:
            raise SpawnerTransient(f"the engine at {self._url} went away: {error}") from error
        except (ValueError, TypeError, LookupError) as error:
            raise SpawnerTransient(
                f"what answers at {self._url} is no engine: {error!r:.200}"
            ) from error

    async def describe(self) -> Answer:
        """Return what the engine says of itself."""
        with self._asking("info") as docker:
            return dict(await docker.system.info())

    # --- containers -----------------------------------------------------------------------

    async def list_containers(
        self, labels: Mapping[str, str], *, container_id: str = ""
    ) -> Sequence[Answer]:
        """Return the containers that carry all of `labels`, in whatever state; or one of them."""
        filters = filters_of(labels) | ({"id": [container_id]} if container_id else {})
        return [each for each in await self._list(filters) if carries(each["Labels"], labels)]

    async def list_named(self, names: Sequence[str]) -> Sequence[Answer]:
        """Return the containers with these names, whoever made them."""
        return await self._list({"name": [f"^/?{re.escape(name)}$" for name in names]})

    async def _list(self, filters: Mapping[str, Any]) -> Sequence[Answer]:
        with self._asking("list") as docker:
            found = await docker.containers.list(all=True, filters=filters)
            return [{key: each[key] for key in _LISTED if key in each} for each in found]

    async def find_container(self, name: str) -> Answer | None:
        """Return all about the container with a name or an id; None if there is none."""
        with _Unless(404), self._asking("inspect") as docker:
            return await DockerContainer(docker, id=name).show()
        return None

    async def create_container(self, name: str, config: Mapping[str, Any]) -> str | None:
        """Make a container and return its id; None where the name is taken."""
        with _Unless(409), self._asking("create", seconds=_START_SECONDS) as docker:
            return (await docker.containers.create(config, name=name)).id
        return None

    async def start_container(self, container_id: str) -> None:
        """Start a container; quiet where it runs or there is none."""
        with _Unless(404), self._asking("start", seconds=_START_SECONDS) as docker:
            await DockerContainer(docker, id=container_id).start()

    async def stop_container(self, container_id: str, *, grace: float) -> None:
        """Return when a container does not run (any more)."""
        with _Unless(404), self._asking("stop", seconds=grace + _STOP_SECONDS) as docker:
            await DockerContainer(docker, id=container_id).stop(t=int(grace))

    async def remove_container(self, container_id: str) -> bool:
        """Remove a container that does not run; tell whether it is gone."""
        with _Unless(409):
            with _Unless(404), self._asking("remove") as docker:
                await DockerContainer(docker, id=container_id).delete(v=True)
            return True
        return False

    async def log_tail(self, container_id: str, *, lines: int) -> str:
        """Return the last output of a container, oldest first; empty where none is kept."""
        # Some drivers keep nothing that could be read.
        tail = ""
        with _Unless(400, 404, 409, 501), self._asking("logs") as docker:
            # The library's own way holds all of it, and a line may be as long as a disk.
            path = f"containers/{container_id}/logs"
            wanted = {"stdout": True, "stderr": True, "tail": lines}
            async with _stream(docker, path, wanted) as answer:
                async for piece in multiplexed_result_stream(answer):
                    tail = (tail + piece)[-_LOG_BYTES:]
        return tail

    async def give_directory(self, container_id: str, path: str, uid: int, gid: int) -> None:
        """Let a directory in a container that was not started yet belong to somebody."""
        parent, _, name = path.rstrip("/").rpartition("/")
        with self._asking("own") as docker:
            container = DockerContainer(docker, id=container_id)
            await container.put_archive(parent or "/", _directory(name, uid, gid))

    async def follow(
        self, labels: Mapping[str, str], *, seconds: float, note: Callable[[Answer], None]
    ) -> None:
        """`note`, for so long, when a container with all of `labels` ends, rests or goes."""
        with self._asking("events", seconds=math.inf) as docker, anyio.move_on_after(seconds):
            filters = {"type": ["container"], **filters_of(labels)}
            wanted = {"filters": json.dumps(filters)}
            async with _stream(docker, "events", wanted) as answer:
                async for event in json_stream_stream(answer):
                    is_ours = carries(event["Actor"]["Attributes"], labels)
                    if is_ours and event["Action"] in _NOTABLE:
                        note(event)

    # --- images ---------------------------------------------------------------------------

    async def find_image(self, reference: str) -> Answer | None:
        """Return all about an image that is there; None if it is not."""
        with _Unless(404), self._asking("image") as docker:
            return await docker.images.inspect(reference)
        return None

    async def pull(
        self,
        reference: str,
        auth: Mapping[str, str] | None,
        *,
        seconds: float,
        note: Callable[[Answer], None],
    ) -> None:
        """Fetch an image, and `note` how it goes on; returns when the engine is done with it."""
        with self._asking("pull", seconds=seconds) as docker:
            async for event in docker.images.pull(reference, auth=auth, stream=True):
                note(event)

    # --- volumes --------------------------------------------------------------------------

    async def find_volume(self, name: str) -> Answer | None:
        """Return all about a volume; None if there is none."""
        with _Unless(404), self._asking("volume") as docker:
            found: Answer = await DockerVolume(docker, name).show()
            return found
        return None

    async def create_volume(self, config: Mapping[str, Any]) -> None:
        """Make a volume; quiet where one of this name is there, whatever it is."""
        with self._asking("volume-create") as docker:
            await docker.volumes.create(config)

    async def list_volumes(self, labels: Mapping[str, str]) -> Sequence[Answer]:
        """Return the volumes that carry all of `labels`."""
        with self._asking("volumes") as docker:
            answer = await docker.volumes.list(filters=filters_of(labels))
            # podman shows those that carry any of them.
            return [each for each in answer["Volumes"] or () if carries(each["Labels"], labels)]

    async def remove_volume(self, name: str) -> bool:
        """Remove a volume; tell whether it is gone, for it stays while a container has it."""
        with _Unless(409):
            with _Unless(404), self._asking("volume-remove") as docker:
                await DockerVolume(docker, name).delete()
            return True
        return False

    async def measure_volumes(self) -> Mapping[str, int]:
        """Return how much is on each volume, in bytes; the engine counts it file by file."""
        with self._asking("usage", seconds=_MEASURE_SECONDS) as docker:
            # The library has no name for this one.
            wanted = {"type": "volume", "verbose": "true"}
            answer = await docker._query_json("system/df", params=wanted)
            listed = answer.get("Volumes") or (answer.get("VolumeUsage") or {}).get("Items")
            sizes = {
                each["Name"]: (each.get("UsageData") or {}).get("Size", -1) for each in listed or ()
            }
            return {name: size for name, size in sizes.items() if size >= 0}

    # --- networks -------------------------------------------------------------------------

    async def find_network(self, name: str) -> Answer | None:
        """Return all about a network; None if there is none."""
        with _Unless(404), self._asking("network") as docker:
            found: Answer = await DockerNetwork(docker, name).show()
            return found
        return None

    async def create_network(self, config: dict[str, Any]) -> str | None:
        """Make a network and return its id; None where one of this name is there."""
        with _Unless(409), self._asking("network-create") as docker:
            return str((await docker.networks.create(config)).id)
        return None

    async def list_networks(self, labels: Mapping[str, str]) -> Sequence[Answer]:
        """Return the networks that carry all of `labels`; who is in them is not in the answer."""
        with self._asking("networks") as docker:
            found = await docker.networks.list(filters=filters_of(labels))
            return [each for each in found if carries(each["Labels"], labels)]

    async def join_network(self, name: str, container: str) -> None:
        """Connect a container to a network; quiet where it is."""
        with _Unless(403), self._asking("network-join") as docker:
            await DockerNetwork(docker, name).connect({"Container": container})

    async def leave_network(self, name: str, container: str) -> None:
        """Take a container off a network; quiet where it is not on it."""
        with _Unless(404, 403), self._asking("network-leave") as docker:
            await DockerNetwork(docker, name).disconnect({"Container": container})

    async def remove_network(self, name: str) -> None:
        """Remove a network, unless somebody is on it."""
        with _Unless(403, 404, 409), self._asking("network-remove") as docker:
            await DockerNetwork(docker, name).delete()


def open_engine(
    url: str,
    *,
    ca: Path | None = None,
    certificate: tuple[Path, Path] | None = None,
    timeout: float,
    environ: Mapping[str, str] = os.environ,
) -> Engine:
    """
    Return the engine at `url`, or where `environ` says, or at the usual socket.

    Blocks to read the files. Raises `ConfigError` for an engine on another machine that anybody
    could talk to or listen to, and for files that cannot be used.
    """
    if not url and environ.get("DOCKER_TLS_VERIFY") and certificate is None:
        folder = Path(environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker")
        ca, certificate = folder / "ca.pem", (folder / "cert.pem", folder / "key.pem")
    url = url or environ.get("DOCKER_HOST") or _SOCKET
    if _is_plain(url) and ca is None and certificate is None and not _is_loopback(url):
        raise ConfigError(
            f"the engine at {url} is on another machine and would be asked in the clear: whoever "
            "reaches it is root there; let it want certificates, and set tls_ca, tls_cert, tls_key"
        )
    return Engine(url, _tls_context(ca, certificate), timeout=timeout)


def _tls_context(ca: Path | None, certificate: tuple[Path, Path] | None) -> ssl.SSLContext | None:
    if ca is None and certificate is None:
        return None
    try:
        context = ssl.create_default_context(cafile=ca)
        if certificate is not None:
            context.load_cert_chain(*certificate)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"the files for the engine's TLS cannot be used: {error}") from error
    return context


def _is_plain(url: str) -> bool:
    return urlsplit(url).scheme in {"tcp", "http"}


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@asynccontextmanager
async def _stream(
    docker: Docker, path: str, wanted: dict[str, Any]
) -> AsyncIterator[aiohttp.ClientResponse]:
    """Give an answer that comes bit by bit; its connection ends with the block, read or not."""
    async with docker._query(path, params=wanted) as answer:
        with closing(answer):
            yield answer


class _Unless:
    """Takes a refusal with one of some statuses for an answer."""

    def __init__(self, *statuses: int) -> None:
        self._statuses = statuses

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        return isinstance(error, DockerError) and error.status in self._statuses


def _directory(name: str, uid: int, gid: int) -> bytes:
    """Return an archive with nothing but a directory that belongs to somebody."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, 0o755, uid, gid
        archive.addfile(entry)
    return content.getvalue()
