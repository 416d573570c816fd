"""The units, the launcher and its drop-in, installed as the documentation tells and lived with."""

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from tests import beds
from tests.integration.machine.conftest import INSIDE, Machine

pytestmark = [pytest.mark.needs("root", "machine"), pytest.mark.timeout(1200)]

TOKEN = "an-admin-token-that-only-tests-know"
CONFIGURATION = f"""
[hub]
bind = "0.0.0.0:8000"
data_dir = "/var/lib/perijove"
tokens = [{{ name = "tests", user = "admin", token = "{TOKEN}" }}]
[auth.pam]
[spawners.local]
command = ["/usr/bin/python3", "{INSIDE}/program.py", "plain"]
start_limit = 300
"""
DROP_INS = "/etc/systemd/system/perijove-hub.service.d"
PATIENCE = 400.0


@pytest.fixture
def site(machine: Machine) -> Iterator[Machine]:
    """Give the machine as an administrator has it who followed the documentation."""
    machine.run("mkdir -p /etc/perijove; cat >/etc/perijove/perijove.toml", CONFIGURATION.encode())
    machine.run(
        f"mkdir -p {DROP_INS}; cd {INSIDE}; cp deploy/launcher/perijove-hub.conf {DROP_INS}"
    )
    machine.run(
        f"{INSIDE}/deploy/launcher/install --hub perijove; usermod -aG perijove-users alice"
    )
    text = (beds.ROOT / "docs/admin/operating.md").read_text()
    commands = re.search(r"```\n(install .*?)```", text, re.DOTALL)
    assert commands is not None
    machine.run(f"cd {INSIDE}; {commands[1]}")
    until(lambda: ask(machine, "GET", "/hub/health") is not None)
    yield machine
    machine.run("systemctl disable --quiet --now perijove-hub perijove-proxy")
    machine.run(f"{INSIDE}/deploy/launcher/install --remove; rm -rf {DROP_INS} /var/lib/perijove/*")


def test_servers_outlive_the_hubs_unit(site: Machine) -> None:
    """A person's server runs as the person, and a restart of the hub's unit does not touch it."""
    ask(site, "POST", "/hub/api/users/alice")
    ask(site, "POST", "/hub/api/users/alice/server")
    until(lambda: is_ready(site))
    before = servers(site)
    assert [line.split()[0] for line in before] == ["alice"]

    site.run("systemctl restart perijove-hub")
    until(lambda: is_ready(site))

    assert servers(site) == before
    ask(site, "DELETE", "/hub/api/users/alice/server")
    until(lambda: not servers(site))


def servers(machine: Machine) -> list[str]:
    """Return owner and process id of each server."""
    return machine.run("ps -C python3 -o user=,pid=,args= | grep ' plain$' || true").splitlines()


def is_ready(machine: Machine) -> bool:
    """Tell whether the hub says that alice's server is ready."""
    found = ask(machine, "GET", "/hub/api/users/alice")
    return bool(found and found["servers"].get("", {}).get("ready"))


def ask(machine: Machine, method: str, path: str) -> Any:
    """Return the hub's answer; None where there is none, or it is an error."""
    headers = {"Authorization": f"token {TOKEN}"}
    request = Request(machine.url + path, method=method, headers=headers)
    try:
        with urlopen(request, timeout=120) as answer:
            return json.loads(answer.read() or b"{}")
    except (URLError, OSError):
        return None


def until(check: Callable[[], bool]) -> None:
    """Return when `check` is true."""
    latest = time.monotonic() + PATIENCE
    while not check():
        assert time.monotonic() < latest
        time.sleep(1)
