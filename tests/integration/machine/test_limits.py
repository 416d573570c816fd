"""Limits where systemd is in charge and control groups are those of version 2."""

import json
from typing import Any

import pytest

from tests.integration.machine.conftest import INSIDE, Machine

pytestmark = [pytest.mark.needs("root", "machine"), pytest.mark.timeout(1200)]

HUB = f"/opt/perijove/bin/python {INSIDE}/limited_hub.py"
LIMITED = {
    "inside": 2,  # the supervisor and its server
    "limits": ["50331648", "0", "50000 100000", "77"],
    "end": "out-of-memory",
    "stopped": "signal",
    "left": False,
}


def test_a_hub_that_is_root_limits_by_scopes_of_the_machine(machine: Machine) -> None:
    """Each server of a person is a scope with its limits, and one that wants more ends by them."""
    seen = json.loads(machine.run(f"{HUB} system"))

    assert seen == {"warnings": [], "owner": "alice", "group": "pj-inst-plain.scope", **LIMITED}


def test_without_systemd_a_hub_that_is_root_makes_control_groups(machine: Machine) -> None:
    """Where systemd is not in charge the groups are the hub's own, with the same limits."""
    hidden = 'unshare --mount sh -c \'mount -t tmpfs none /run/systemd; exec "$0" "$@"\''

    seen = json.loads(machine.run(f"{hidden} {HUB} system"))

    assert seen == {"warnings": [], "owner": "alice", "group": "pj-inst-plain", **LIMITED}


@pytest.mark.usefixtures("user_manager")
def test_the_unit_limits_by_its_accounts_user_manager(machine: Machine) -> None:
    """As docs/admin/operating.md tells it, a hub without root has limits within its unit."""
    seen = _live_in_unit(machine, home="read-only")

    assert seen == {
        "warnings": ["local-shared-account"],
        "owner": "perijove",
        "group": "pj-inst-plain.scope",
        **LIMITED,
    }


def test_without_a_user_manager_the_hub_says_so(machine: Machine) -> None:
    """The unit as it is has no way to limits: the hub warns, and servers run."""
    seen = _live_in_unit(machine, home="yes")

    assert seen["warnings"] == ["local-shared-account", "local-no-limits"]
    assert (seen["group"], seen["stopped"]) == ("trial.service", "signal")


def _live_in_unit(machine: Machine, *, home: str) -> Any:
    """Return what a hub saw within the hub's unit and its restrictions."""
    unit = "/run/systemd/system/trial.service"
    return json.loads(
        machine.run(
            f"sed -e 's|^ExecStart=.*|ExecStart={HUB} shared|' -e s/^Type=.*/Type=oneshot/ "
            f"-e s/^Restart=.*/Restart=no/ -e s/^ProtectHome=.*/ProtectHome={home}/ "
            f"{INSIDE}/deploy/systemd/perijove-hub.service >{unit}; "
            "echo StandardOutput=truncate:/run/trial | sed -i '/^Type=/r /dev/stdin' "
            f"{unit}; systemctl daemon-reload; systemctl start trial; cat /run/trial"
        )
    )
