"""
What a job of ``perijove doctor`` looks at: every step of a start, on the node, but no server.

Each finding is a line of the job's output that begins with `MARK`; the doctor reads it there,
so that it learns what is wrong also from a node that cannot reach the hub.
"""

import contextlib
import email.utils
import http.client
import json
import select
import socket
import subprocess
import sys
import time
import urllib.parse

from perijove.agent.cannot import Cannot
from perijove.agent.hub import answer_challenge
from perijove.agent.node import account, choose_host, home_trouble, job_id, node_name, open_port
from perijove.agent.post import fields_of
from perijove.agent.software import (
    base_environment,
    find_command,
    load_software,
    own_variables,
    with_login,
)
from perijove.spawners.local.supervisor import Signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MARK = "perijove-doctor "
VERSION_SECONDS = 60
VISIT_SECONDS = 90
TRIES_SECONDS = 5
HUB_SECONDS = 10
CLOCK_SECONDS = 30


def finding(check: str, ok: bool, words: str = "", **facts: "Any") -> None:
    """Print what was found."""
    sys.stdout.write(MARK + json.dumps(dict(facts, check=check, ok=ok, words=words)) + "\n")
    sys.stdout.flush()


def examine(spec: "dict[str, Any]", outer: "dict[str, str]", signals: Signals) -> int:
    """Look at everything, however much is wrong before; return the job's exit status."""
    finding("python", True, "{}.{}.{}".format(*sys.version_info), node=node_name(outer))
    finding("job", True, job_id(outer))
    person = account()
    code, words = home_trouble(spec.get("home") or person.pw_dir)
    finding("home", not code, words or person.pw_dir, code=code)
    own = own_variables(person, person.pw_dir)
    environment, _ = with_login(outer, own, signals)
    look_at_software(spec, environment, person.pw_dir, signals)
    look_at_hub(spec["hub_api"])
    if spec.get("tunnel"):
        look_at_tunnel(spec["tunnel"]["url"])
    else:
        wait_for_visit(spec, outer, signals)
    return 0


def look_at_software(
    spec: "dict[str, Any]", outer: "dict[str, str]", home: str, signals: Signals
) -> None:
    """Find the server's program as a start does, and ask it for its version."""
    software = spec.get("software") or {}
    environment = dict(base_environment(outer, home), HOME=home)
    try:
        environment = load_software(software, environment, signals)
        command = find_command(
            spec["command"],
            software,
            environment,
            own_path=outer.get("PATH", ""),
            temporary=".",
        )
    except Cannot as error:
        finding("command", False, error.words, code=error.code)
        return
    try:
        done = subprocess.run(  # noqa: S603 - the site's own command, no shell
            [*command, "--version"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=VERSION_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        finding("command", False, f"{command[0]}: {error}", code="command-missing")
        return
    said = done.stdout.decode("utf-8", "replace").strip()[-300:]
    finding("command", done.returncode == 0, said, path=command[0], status=done.returncode)


def look_at_hub(api: str) -> None:
    """Ask the hub for its version, and how late it is there."""
    latest = time.monotonic() + TRIES_SECONDS
    while True:
        words, version, hub_time = ask_hub(api)
        if version or time.monotonic() >= latest:
            break
        time.sleep(1)
    finding("node-to-hub", bool(version), version or words, url=api)
    if hub_time is not None:
        apart = abs(time.time() - hub_time)
        finding("clock", apart <= CLOCK_SECONDS, f"{apart:.0f} s from the hub's")


def ask_hub(api: str) -> "tuple[str, str, float | None]":
    """Return what went wrong, the version that the hub at `api` says it has, and its time."""
    parts = urllib.parse.urlsplit(api + "/")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=HUB_SECONDS)
    with contextlib.closing(connection):
        try:
            connection.request("GET", parts.path)
            response = connection.getresponse()
            version = str(fields_of(response.read(1 << 16)).get("version", ""))
        except (OSError, ValueError, http.client.HTTPException) as error:
            return f"{api}: {error!r}", "", None
    if response.status != 200:
        return f"{api}: status {response.status}", "", None
    date = email.utils.parsedate_tz(response.getheader("Date", ""))
    return "", version, email.utils.mktime_tz(date) if date else None


def look_at_tunnel(url: str) -> None:
    """Knock where a server's tunnel is dialled; what is behind lets in nobody but its job."""
    parts = urllib.parse.urlsplit(url)
    place = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
    try:
        socket.create_connection(place, HUB_SECONDS).close()
    except OSError as error:
        finding("tunnel", False, f"{url}: {error!r}")
    else:
        finding("tunnel", True, url)


def wait_for_visit(spec: "dict[str, Any]", outer: "dict[str, str]", signals: Signals) -> None:
    """Listen as a server would, until the doctor has been there."""
    try:
        host, address = choose_host(spec.get("networks") or [], node_name(outer))
        listener = open_port(address, spec.get("ports"))
    except Cannot as error:
        finding("port", False, error.words, code=error.code)
        return
    with contextlib.closing(listener):
        finding("port", True, f"{host}:{listener.getsockname()[1]}", host=host,
                port=listener.getsockname()[1])  # fmt: skip
        latest = time.monotonic() + VISIT_SECONDS
        while time.monotonic() < latest and not signals.stop_asked:
            ready, _, _ = select.select([listener.fileno(), signals.wake], [], [], 1)
            if signals.wake in ready:
                signals.clear()
            if listener.fileno() in ready:
                answer_challenge(listener, spec["code"])
