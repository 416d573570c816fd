"""What a tunnel costs: through both of its ends on one machine, against a direct connection."""

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from perijove.agent import job_files
from perijove.kit.ids import hash_secret
from tests.bench import load
from tests.bench.hubs import Size
from tests.bench.programs import BenchError, Program, free_port, stopping
from tests.bench.results import Goal, Result, Sample, at_most, compare
from tests.bench.upstream import Upstream

NAMES: tuple[str, ...] = ("tunnel",)
NEEDS: tuple[str, ...] = ()

_DOWNLOAD = Goal(
    name="tunnel",
    what="tunnel: download, against a direct connection",
    unit="MiB/s",
    at_least=0.05,
    scale=2**20,
)
_REQUESTS = 2000
_GET = b"GET /x HTTP/1.1\r\nHost: s\r\n\r\n"
_TUNNELS = Path(__file__).parent.parent / "integration/tunnel/program.py"
_CODE = "c0de" * 16
_LAUNCH = {"launch_id": "lch_bench", "job_id": "1", "nonce": "ab" * 8, "code": _CODE}


def measure(
    directory: Path, upstream: Upstream, size: Size, wanted: Collection[str]
) -> Iterator[Result]:
    """Yield the results for a large download, and for small requests one after the other."""
    with _running_tunnel(directory, upstream) as path:
        downloads = [
            (_download(f"--unix-socket {path}", upstream), _download("", upstream))
            for _ in range(size.rounds)
        ]
        yield compare(_DOWNLOAD, downloads)
        turns = [
            (
                _milliseconds(lambda: _connected(str(path))),
                _milliseconds(lambda: _connected(upstream.port)),
            )
            for _ in range(size.rounds)
        ]
        yield at_most("tunnel", "tunnel: small GET, one at a time", "ms", turns, ratio=10)


@contextmanager
def _running_tunnel(directory: Path, upstream: Upstream) -> Iterator[Path]:
    """Run both ends; the launch is remembered, so that no hub is needed to let its node in."""
    directory.mkdir(parents=True)
    (directory / "tunnel.py").write_text(job_files()["tunnel.py"])
    with tempfile.TemporaryDirectory(prefix="pj-") as sockets:
        known = {"launch": "lch_bench", "name": "pj-bench", "code_hash": hash_secret(_CODE)}
        (Path(sockets) / "pj-bench.json").write_text(json.dumps(known))
        address = f"127.0.0.1:{free_port()}"
        log = directory / "output.log"
        command: list[str | Path] = [
            sys.executable,
            _TUNNELS,
            directory / "no-hub",
            sockets,
            address,
        ]
        tunnels = Program.start("the tunnels", command, log)
        with stopping(tunnels), log.open("ab") as output:
            order = {**_LAUNCH, "url": f"http://{address}", "socket": str(upstream.socket)}
            ours, theirs = socket.socketpair()
            with ours, theirs:
                ours.settimeout(60)
                ours.sendall(json.dumps(order).encode() + b"\n")
                node = subprocess.Popen(
                    [sys.executable, "-I", directory / "tunnel.py"],
                    stdin=theirs.fileno(),
                    stderr=output,
                )
                _wait_until_up(ours)
                yield Path(sockets) / "pj-bench.sock"
            node.wait(10)


def _wait_until_up(channel: socket.socket) -> None:
    said = b""
    while b'"up"' not in said:
        part = channel.recv(4096)
        if not part:
            raise BenchError(f"the node's end of the tunnel ended: {said.decode()}")
        said += part


def _download(how: str, upstream: Upstream) -> Sample:
    seconds = load.download(upstream.port, "/x/big", *how.split())
    return Sample(work=upstream.size, seconds=seconds, cpu=0)


def _connected(where: str | int) -> socket.socket:
    if isinstance(where, int):
        return socket.create_connection(("127.0.0.1", where))
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(where)
    return connection


def _milliseconds(connect: Callable[[], socket.socket]) -> float:
    """Return the time of one request out of many that follow each other."""
    with connect() as connection:
        began = time.perf_counter()
        for _ in range(_REQUESTS):
            connection.sendall(_GET)
            if b"}" not in connection.recv(65536):
                raise BenchError("not a whole answer")
        return (time.perf_counter() - began) / _REQUESTS * 1000
