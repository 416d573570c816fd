"""What the spawner makes of an API server that answers some things and not others."""

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from aiohttp import web

from perijove.domain.errors import ConfigError, SpawnerTransient
from perijove.kit.loops import until
from perijove.spawners.contract import Surroundings
from perijove.spawners.kubernetes import api as module
from perijove.spawners.kubernetes import cluster as cluster_module
from perijove.spawners.kubernetes import spawner as spawner_module
from perijove.spawners.kubernetes.api import Api, connect
from perijove.spawners.kubernetes.cluster import Cluster
from perijove.spawners.kubernetes.mirror import Mirror, Rhythm, Scope
from perijove.spawners.kubernetes.names import Ours
from perijove.spawners.kubernetes.objects import PODS, name_of
from perijove.spawners.kubernetes.sections import KubernetesSettings
from perijove.spawners.kubernetes.spawner import KubernetesSpawner
from tests.unit.spawners.kubernetes.corpus import read

pytestmark = pytest.mark.anyio

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def kubeconfig(folder: Path, server: str, **user: Any) -> Path:
    """Write how a cluster is reached."""
    file = folder / "kubeconfig.json"
    file.write_text(
        json.dumps(
            {
                "current-context": "it",
                "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
                "clusters": [{"name": "it", "cluster": {"server": server}}],
                "users": [{"name": "it", "user": user}],
            }
        )
    )
    return file


@asynccontextmanager
async def an_api_server(folder: Path, answer: Handler) -> AsyncIterator[Api]:
    """Give the way to an API server that answers so."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        api = await connect(kubeconfig(folder, f"http://{host}:{port}"), "")
        try:
            yield api
        finally:
            await api.close()
    finally:
        await runner.cleanup()


def listed(*items: Any) -> web.Response:
    """Return a list as the API server writes it."""
    return web.json_response({"metadata": {"resourceVersion": "7"}, "items": items})


async def test_what_was_forgotten_is_not_called_known(tmp_path: Path) -> None:
    """Since the server remembers too little, and until all is listed anew, nobody is absent."""
    lists = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal lists
        if "watch" in request.query:
            return web.json_response({"code": 410, "message": "too old"}, status=410)
        lists += 1
        if lists > 1:
            await anyio.sleep_forever()
        return listed()

    async with an_api_server(tmp_path, answer) as api, anyio.create_task_group() as tasks:
        rhythm = Rhythm(watch_seconds=30, relist_seconds=300)
        mirror = Mirror(api, Scope(kind=PODS, namespace="servers"), rhythm, key=name_of)
        tasks.start_soon(mirror.run)

        async def lists_anew() -> bool:
            return lists > 1

        assert await until(lists_anew, seconds=10)
        assert not mirror.is_current
        assert not mirror.is_old
        tasks.cancel_scope.cancel()


async def test_nodes_that_cannot_be_listed_hide_no_pods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a while the nodes are taken to be as they were; what was never known is not guessed."""
    is_well = False

    async def answer(request: web.Request) -> web.StreamResponse:
        return listed(*nodes) if is_well else web.Response(status=429, text="slow down")

    nodes = read("nodes")["items"]
    pod = read("pending-cpu")["pod"]
    monkeypatch.setattr(cluster_module, "_NODES_PERIOD", 0.0)
    monkeypatch.setattr(cluster_module, "_NODES_PAUSE", 0.0)
    settings = KubernetesSettings(
        kind="kubernetes", namespace="servers", network={"hub_networks": ["10.0.0.0/8"]}
    )
    async with an_api_server(tmp_path, answer) as api:
        cluster = Cluster(api, settings, Ours(installation="i", spawner="s"))
        with pytest.raises(SpawnerTransient, match="429"):
            await cluster.evidence(pod)
        is_well = True
        known = (await cluster.evidence(pod)).nodes
        is_well = False

        assert known
        assert (await cluster.evidence(pod)).nodes == known


async def watched(request: web.Request) -> web.StreamResponse:
    """Answer a watch under which nothing happens."""
    answer = web.StreamResponse()
    await answer.prepare(request)
    await anyio.sleep_forever()
    return answer


async def test_events_that_are_not_heard_of_are_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where pods are heard of and events are not, all pods are known, and the hub says so."""
    may_see_events = False
    pod = read("mount-secret-missing")["pod"]
    events = read("mount-secret-missing")["events"]

    async def answer(request: web.Request) -> web.StreamResponse:
        is_of_events = request.path.endswith("/events")
        if is_of_events and not may_see_events:
            return web.json_response({"message": 'cannot list resource "events"'}, status=403)
        if "watch" in request.query:
            return await watched(request)
        if request.path.endswith("/pods"):
            return listed(pod)
        return listed(*(events if "=Pod" in request.query.get("fieldSelector", "") else ()))

    monkeypatch.setattr(spawner_module, "_FIRST_LIST", 0.5)
    async with an_api_server(tmp_path, answer):
        settings = KubernetesSettings(
            kind="kubernetes", namespace="servers", kubeconfig=tmp_path / "kubeconfig.json",
            network={"hub_networks": ["10.0.0.0/8"]}, look_at_nodes=False,
        )  # fmt: skip
        around = Surroundings(name="cloud", installation="i", data_dir=tmp_path)
        async with KubernetesSpawner(settings, around) as spawner:
            deaf = await spawner.survey()
            warned = spawner.warnings(public=False)
            may_see_events = True

            async def is_heard() -> bool:
                return not spawner.warnings(public=False)

            assert await until(is_heard, seconds=10)
            hearing = await spawner.survey()

    assert warned == ["kubernetes-events-old"]
    assert deaf.complete
    assert [one.reason.code if one.reason else "" for one in deaf.sightings] == [
        "container-creating"
    ]
    assert [one.end.reason if one.end else "" for one in hearing.sightings] == ["config-missing"]


async def test_program_for_a_token_has_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that waits for ever for somebody else does not hold up the hub for ever."""
    monkeypatch.setattr(module, "TIMEOUT", 0.5)
    program = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": ["-c", "import time; time.sleep(600)"],
    }
    file = kubeconfig(tmp_path, "http://127.0.0.1:9", exec=program)

    with anyio.fail_after(15), pytest.raises(ConfigError, match="no way to the cluster"):
        await connect(file, "")

    async def is_over() -> bool:
        return not any("600" in " ".join(each.cmdline()) for each in psutil.Process().children())

    assert await until(is_over, seconds=10)
