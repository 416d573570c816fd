"""What becomes of answers that an engine gives rarely; the usual ones are asked of a real one."""

import struct
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import pytest
from aiohttp import web
from anyio.abc import TaskGroup

from perijove.domain.errors import SpawnerPending, SpawnerRejected, SpawnerTransient
from perijove.spawners.docker import DockerSettings, images
from perijove.spawners.docker.engine import Engine, open_engine
from perijove.spawners.docker.images import Images

pytestmark = pytest.mark.anyio

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MEBIBYTE = 2**20


@asynccontextmanager
async def an_engine(answer: Handler) -> AsyncIterator[Engine]:
    """Give the way to an engine that answers so."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        async with open_engine(f"tcp://{host}:{port}", timeout=10, environ={}) as engine:
            yield engine
    finally:
        await runner.cleanup()


def refusal(status: int, words: str) -> web.Response:
    """Return how engines say no."""
    return web.json_response({"message": words}, status=status)


async def test_an_engine_that_was_exchanged_is_asked_for_its_version_again() -> None:
    """After an upgrade that dropped the version in use, the next question is in the new one."""
    version = "1.41"

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/version":
            return web.json_response({"ApiVersion": version})
        if request.path.startswith(f"/v{version}/"):
            return web.json_response({"Name": "somewhere"})
        words = f"client version 1.41 is too old. Minimum supported API version is {version}"
        return refusal(400, words)

    async with an_engine(answer) as engine:
        assert (await engine.describe())["Name"] == "somewhere"
        version = "1.52"
        with pytest.raises(SpawnerTransient, match="too old"):
            await engine.describe()
        assert (await engine.describe())["Name"] == "somewhere"


async def test_a_line_without_end_does_not_fill_the_memory() -> None:
    """Of a server's output only the end is held, however long a line somebody writes."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/version":
            return web.json_response({"ApiVersion": "1.41"})
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(40):
            await response.write(struct.pack(">BxxxL", 1, MEBIBYTE) + b"x" * MEBIBYTE)
        await response.write(struct.pack(">BxxxL", 1, 4) + b"end\n")
        return response

    async with an_engine(answer) as engine:
        tracemalloc.start()
        try:
            tail = await engine.log_tail("id", lines=100)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert tail.endswith("xend\n")
    assert len(tail) == MEBIBYTE // 4
    assert peak < 20 * MEBIBYTE


@pytest.mark.parametrize(
    "wrapped",
    [lambda volumes: {"Volumes": volumes}, lambda volumes: {"VolumeUsage": {"Items": volumes}}],
    ids=["before 1.52", "since 1.52"],
)
async def test_volumes_are_measured_by_old_and_new_engines(
    wrapped: Callable[[list[object]], dict[str, object]],
) -> None:
    """Engines say in two ways how much is on a volume; what was not measured is left out."""
    measured = [
        {"Name": "one", "UsageData": {"Size": 5, "RefCount": 1}},
        {"Name": "two", "UsageData": {"Size": -1, "RefCount": 0}},
    ]

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/version":
            return web.json_response({"ApiVersion": "1.52"})
        assert request.query["verbose"] == "true"
        return web.json_response(wrapped(list(measured)))

    async with an_engine(answer) as engine:
        assert await engine.measure_volumes() == {"one": 5}


async def fetched(known: Images, reference: str, tasks: TaskGroup) -> None:
    """Wait for an image as the core does."""
    with anyio.fail_after(10):
        while True:
            try:
                return await known.ensure(reference, f"of {reference}", tasks)
            except SpawnerPending:
                await anyio.sleep(0.01)


async def test_what_became_of_old_pulls_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever thinks of a thousand names of images takes no memory of the hub for good."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/version":
            return web.json_response({"ApiVersion": "1.41"})
        return refusal(404, "manifest unknown")

    monkeypatch.setattr(images, "_KEPT_SECONDS", 0.0)
    async with an_engine(answer) as engine, anyio.create_task_group() as tasks:
        known = Images(engine, DockerSettings(kind="docker"))
        for number in range(5):
            with pytest.raises(SpawnerRejected):
                await fetched(known, f"made-up:{number}", tasks)
        assert len(known._pulls) == 1
