"""One fixture gives a platform; another gives entered spawners on it and cleans up behind them."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import pytest

from perijove.spawners.contract import Spawner
from perijove.spawners.local import LocalSpawner
from tests.contract.spawners.docker_site import docker_site
from tests.contract.spawners.kubernetes_site import cluster, kubernetes_site
from tests.contract.spawners.sites import (
    PROGRAM,
    LocalSite,
    MemorySite,
    NullSite,
    Site,
    SystemSite,
    eventually,
    processes_of,
    supervisors_of,
)
from tests.fakes.spawners import MemoryPlatform

__all__ = ["cluster", "docker_site", "kubernetes_site"]

SYSTEM = pytest.param("system_site", marks=pytest.mark.needs("root", "users"))
DOCKER = pytest.param("docker_site", marks=pytest.mark.needs("docker"))
KUBERNETES = pytest.param("kubernetes_site", marks=pytest.mark.needs("kubernetes"))
PLATFORMS = ["local_site", "null_site", "memory_site", SYSTEM, DOCKER, KUBERNETES]


class _Fine(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def target() -> Iterator[str]:
    """Give the URL of something that answers."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Fine) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
async def local_site(tmp_path: Path) -> AsyncIterator[LocalSite]:
    """Give this machine; afterwards nothing that was started there may be left."""
    site = LocalSite(tmp_path / "local")
    yield site
    await _check_nothing_is_left(site)


@pytest.fixture
async def system_site() -> AsyncIterator[SystemSite]:
    """Give this machine and its account alice; afterwards nothing of hers may be left."""
    with TemporaryDirectory(dir="/var/tmp", prefix="perijove-test-") as place:
        root = Path(place)
        root.chmod(0o711)
        launches = root / "launches"
        launches.mkdir()
        launches.chmod(0o1733)
        (root / "program.py").write_bytes(PROGRAM.read_bytes())
        (root / "program.py").chmod(0o644)
        site = SystemSite(root / "hub", launches)
        yield site
        await _check_nothing_is_left(site)


async def _check_nothing_is_left(site: LocalSite | SystemSite) -> None:
    names = [path.name for path in (site.data_dir / "launches").glob("[!.]*")]
    names = [name.removesuffix(".json") for name in names]
    for installation in ("inst", "other"):
        async with site.spawner(installation) as spawner:
            for name in names:
                await spawner.stop(name, None, grace=0)
    over = [path.stem for path in (site.data_dir / "ended").glob("*.json")]
    left = [one for name in over for one in processes_of(name)]
    for one in left:
        one.kill()  # A test that fails must not make the next ones fail.
    assert not left

    async def no_supervisor() -> bool:
        return not [one for name in over for one in supervisors_of(name)]

    assert await eventually(no_supervisor)
    assert not list((site.data_dir / "launches").iterdir())


@pytest.fixture
def null_site(tmp_path: Path, target: str) -> NullSite:
    """Give a platform that starts nothing."""
    return NullSite(tmp_path / "null", target)


@pytest.fixture
def memory_site(target: str) -> MemorySite:
    """Give the fake platform."""
    return MemorySite(MemoryPlatform(url=target))


@pytest.fixture(params=PLATFORMS)
def site(request: pytest.FixtureRequest) -> Site:
    """Give each platform in turn."""
    found: Site = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def spawner(site: Site) -> AsyncIterator[Spawner]:
    """Give an entered spawner on the platform."""
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(site.spawner())


@pytest.fixture
async def local(local_site: LocalSite) -> AsyncIterator[LocalSpawner]:
    """Give an entered spawner of this machine."""
    async with local_site.spawner() as spawner:
        yield spawner
