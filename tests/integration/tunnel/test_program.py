"""``perijove tunnel`` as administrators run it, and what the configuration makes of it."""

import os
import signal
import socket
import sys
from pathlib import Path

import anyio
import pytest

from perijove.bootstrap import running
from perijove.db.core import bound
from perijove.db.routes import table_since
from perijove.domain.errors import ConfigError
from perijove.kit.loops import until
from perijove.settings import load
from tests.e2e.site import free_port
from tests.integration.cli.programs import refusal
from tests.integration.tunnel.sites import PATIENCE

pytestmark = pytest.mark.anyio

SITE = """
[hub]
data_dir = "{directory}/d"
bind = "127.0.0.1:{port}"
[auth.demo]
password = "any"
{more}
"""


def write(directory: Path, more: str, port: int = 0) -> Path:
    """Write a configuration."""
    path = directory / "perijove.toml"
    path.write_text(SITE.format(directory=directory, port=port or free_port(), more=more))
    return path


def test_without_a_url_there_is_nothing_to_run(tmp_path: Path) -> None:
    """The command says which setting is missing."""
    said = refusal("tunnel", "--config", write(tmp_path, ""), code=2)
    assert "[tunnel] url" in said


def test_a_certificate_that_is_none_is_said(tmp_path: Path) -> None:
    """A file that cannot be used ends the program with the configuration's exit code."""
    files = f'tls_cert = "{tmp_path}/no.pem"\ntls_key = "{tmp_path}/no.key"'
    section = f'[tunnel]\nurl = "https://h"\nbind = "127.0.0.1:{free_port()}"\n{files}'
    assert "tunnel:" in refusal("tunnel", "--config", write(tmp_path, section), code=2)


async def test_the_programs_of_a_site_start_together(tmp_path: Path) -> None:
    """With tunnels configured `perijove run` runs them as well, and stops them with the rest."""
    port = free_port()
    section = f'[tunnel]\nurl = "http://127.0.0.1:{port}"\nbind = "127.0.0.1:{port}"'
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "perijove",
        "run",
        "--config",
        write(tmp_path, section),
    ]
    clean = {name: value for name, value in os.environ.items() if "PERIJOVE" not in name}

    async def is_answered() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as probe:
                probe.sendall(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
                return b" 426 " in probe.recv(100)
        except OSError:
            return False

    process = await anyio.open_process(command, env=clean, stdout=None, stderr=None)
    try:
        assert await until(is_answered, seconds=PATIENCE)
    finally:
        process.send_signal(signal.SIGTERM)
        with anyio.fail_after(PATIENCE):
            code = await process.wait()
    assert code == 0
    assert not await is_answered()


async def test_the_proxy_leads_to_the_tunnels(tmp_path: Path) -> None:
    """A url below the hub's own address is routed to the tunnels' socket."""
    section = '[tunnel]\nurl = "https://hub.example.org/hub/tunnel"'
    settings = load(write(tmp_path, section), {})
    async with running(settings, {}) as hub:
        table = await hub.hub.database.read(bound(table_since, 0, installation=""))
        target = {route.prefix: route.target for route in table.routes}["/hub/tunnel/"]
        assert target == f"unix:{hub.places.tunnels / 'front.sock'}"


@pytest.mark.parametrize("kind", ["slurm", "gridengine"])
async def test_a_cluster_needs_tunnels_to_use_them(tmp_path: Path, kind: str) -> None:
    """`tunnel = true` of a cluster without `[tunnel]` is said at the start."""
    section = f'[spawners.c]\nkind = "{kind}"\ntunnel = true\naccounts = "trusted"'
    with pytest.raises(ConfigError, match=r"spawners\.c\.tunnel"):
        async with running(load(write(tmp_path, section), {}), {}):
            pass
