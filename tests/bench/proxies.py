"""The measurements of the proxies alone: small requests, WebSockets, and much data."""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from tests.bench import load
from tests.bench.hubs import Size
from tests.bench.results import Goal, Result, Sample, compare
from tests.bench.systems import JupyterHub, PerijoveHub, running_proxies
from tests.bench.upstream import Upstream

NAMES: tuple[str, ...] = ("proxy", "echo", "download", "upload")
NEEDS: tuple[str, ...] = ("configurable-http-proxy",)

_ROUTES = 1_000
_CONNECTIONS = 32
_GOALS = {
    goal.name: goal
    for goal in (
        Goal(
            name="proxy",
            what="proxy: small GET of a browser",
            unit="requests/s",
            at_least=3.5,
            cpu_at_least=3.5,
        ),
        Goal(name="echo", what="proxy: WebSocket echo", unit="messages/s", at_least=3),
        Goal(name="download", what="proxy: download", unit="MiB/s", at_least=1.5, scale=2**20),
        Goal(name="upload", what="proxy: upload", unit="MiB/s", at_least=1.5, scale=2**20),
    )
}
Proxy = PerijoveHub | JupyterHub


def measure(
    directory: Path, upstream: Upstream, size: Size, wanted: Collection[str]
) -> Iterator[Result]:
    """Yield the results of `wanted`, of the names in `NAMES`."""

    def small(proxy: Proxy, seconds: float = size.seconds) -> tuple[float, float]:
        return load.many(
            f"http://127.0.0.1:{proxy.public_port}",
            "browser",
            users=_ROUTES,
            connections=_CONNECTIONS,
            seconds=seconds,
        )

    def echo(proxy: Proxy) -> tuple[float, float]:
        return load.echo(proxy.public_port, connections=_CONNECTIONS, seconds=size.seconds)

    def download(proxy: Proxy) -> tuple[float, float]:
        return upstream.size, load.download(proxy.public_port)

    def upload(proxy: Proxy) -> tuple[float, float]:
        return upstream.size, load.upload(proxy.public_port, upstream)

    loads: dict[str, Callable[[Proxy], tuple[float, float]]] = {
        "proxy": small,
        "echo": echo,
        "download": download,
        "upload": upload,
    }
    quick, sink = (f"http://127.0.0.1:{port}" for port in (upstream.port, upstream.sink_port))
    targets = [("/sink/", sink), *((f"/user/u{n}/", quick) for n in range(_ROUTES))]
    with running_proxies(directory, targets) as (ours, theirs):
        for proxy in (ours, theirs):
            small(proxy, 2)  # until the Node one has compiled what it runs often
        load.download(upstream.port, path="/big")  # until the file is in memory
        for name in NAMES:
            if name in wanted:
                put = loads[name]
                rounds = [(_sample(ours, put), _sample(theirs, put)) for _ in range(size.rounds)]
                yield compare(_GOALS[name], rounds)


def _sample(proxy: Proxy, put: Callable[[Proxy], tuple[float, float]]) -> Sample:
    cpu = proxy.proxy.cpu_seconds()
    work, seconds = put(proxy)
    return Sample(work=work, seconds=seconds, cpu=proxy.proxy.cpu_seconds() - cpu)
