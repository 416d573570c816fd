"""What a job of the doctor finds out on its node, as the program that is delivered with it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from time import time
from typing import Any

import pytest

from perijove.agent import job_files
from perijove.agent.doctor import MARK


@contextmanager
def a_hub(*, late: float) -> Iterator[str]:
    """Serve what a hub says of itself, by a clock that is so many seconds late; give its URL."""

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b'{"version": "5.4.2"}'
            self.send_response_only(200)
            self.send_header("Date", formatdate(time() - late, usegmt=True))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/hub/api"
        server.shutdown()


def examine(folder: Path, **order: Any) -> Mapping[str, Any]:
    """Return what a job finds out, by name; it opens no port, so it is not waited for."""
    spec = {
        "examine": True,
        "home": str(folder),
        "command": [sys.executable],
        "networks": ["203.0.113.0/24"],
        "code": "secret",
        **order,
    }
    for name, text in {**job_files(), "spec.json": json.dumps(spec)}.items():
        (folder / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "-I", "wrapper.py"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "SLURM_JOB_ID": "17"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    return {found.pop("check"): found for found in map(json.loads, (x[len(MARK) :] for x in lines))}


def test_all_that_is_wrong_is_found_by_one_job(tmp_path: Path) -> None:
    """A home, a program, a hub and a network that are not there, each with its code."""
    found = examine(
        tmp_path,
        home="/nowhere",
        command=["no-such-program"],
        hub_api="http://127.0.0.1:9/hub/api",
    )
    assert {name: (each["ok"], each.get("code", "")) for name, each in found.items()} == {
        "python": (True, ""),
        "job": (True, ""),
        "home": (False, "home-missing"),
        "command": (False, "command-missing"),
        "node-to-hub": (False, ""),
        "port": (False, "host-refused"),
    }
    assert found["job"]["words"] == "17"


def test_where_servers_dial_out_no_port_is_opened(tmp_path: Path) -> None:
    """The node only has to reach the place where tunnels end."""
    with a_hub(late=0) as url:
        found = examine(tmp_path, hub_api=url, tunnel={"url": url, "ca": ""})
    assert "port" not in found
    assert found["tunnel"] == {"ok": True, "words": url}
    closed = examine(tmp_path, hub_api=url, tunnel={"url": url, "ca": ""})
    assert not closed["tunnel"]["ok"]


@pytest.mark.parametrize(("late", "agrees"), [(0, True), (20, True), (600, False), (-600, False)])
def test_clocks_are_compared_by_what_the_hub_says(
    tmp_path: Path, late: float, agrees: bool
) -> None:
    """How long the job waited, or its output took to be read, has nothing to do with it."""
    with a_hub(late=late) as url:
        found = examine(tmp_path, hub_api=url)
    assert found["node-to-hub"]["words"] == "5.4.2"
    assert found["clock"]["ok"] is agrees
    apart = float(found["clock"]["words"].split()[0])
    assert apart == pytest.approx(abs(late), abs=10)
