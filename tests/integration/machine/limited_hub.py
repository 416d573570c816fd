"""
A hub's spawner inside the machine: what limits do its servers get, and what is the end of one?

Run as ``limited_hub.py system`` (each server under its person's account) or ``shared``; prints a
JSON object. `program.py` of the contract suite is beside it.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio

from perijove.domain.launch import Resources
from perijove.spawners.contract import Handle, LaunchSpec, Phase, Sighting, Surroundings
from perijove.spawners.local import LocalSettings, LocalSpawner
from perijove.spawners.local.process import marked_processes

RESOURCES = Resources(cpu=0.5, memory_bytes=48 * 2**20)
PROGRAM = str(Path(__file__).with_name("program.py"))
PLAIN = ["/usr/bin/python3", "-I", "-S", PROGRAM, "plain"]
HUNGRY = ["/usr/bin/python3", "-c", "import os; kept = [os.urandom(1 << 20) for _ in range(200)]"]


async def recorded(handle: Handle) -> None:
    """Take note of nothing: this hub does not come back."""


def order(name: str, command: Sequence[str]) -> LaunchSpec:
    """Return a launch of alice's."""
    return LaunchSpec(
        launch_id=f"lch_{name}", name=name, installation="inst", user_name="alice", server_name="",
        command=command, environment={}, prefix="/user/alice/", resources=RESOURCES,
    )  # fmt: skip


async def reach(spawner: LocalSpawner, name: str, phase: Phase) -> Sighting:
    """Return the first sighting of a launch in this phase."""
    while True:
        for sighting in (await spawner.survey()).sightings:
            if sighting.name == name and sighting.phase is phase:
                return sighting
        await anyio.sleep(0.1)


def group_of(pid: int) -> str:
    """Return the control group of a process, version 2."""
    return Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::")


async def live(accounts: str, data_dir: Path) -> dict[str, Any]:
    """Start a server that stays and one that wants too much; tell what was seen."""
    settings = LocalSettings(accounts=accounts, processes_limit=77, login_shell=False)
    around = Surroundings(
        name="local", installation="inst", data_dir=data_dir, system_accounts=accounts == "system"
    )
    async with LocalSpawner(settings, around) as spawner:
        plain, hungry = order("pj-inst-plain", PLAIN), order("pj-inst-hungry", HUNGRY)
        await spawner.start(plain, recorded)
        await reach(spawner, plain.name, Phase.RUNNING)
        (server,) = marked_processes({plain.name})[plain.name]
        folder = Path("/sys/fs/cgroup" + group_of(server))
        seen: dict[str, Any] = {
            "warnings": list(spawner.warnings(public=False)),
            "owner": Path(f"/proc/{server}").owner(),
            "group": folder.name,
            "inside": len((folder / "cgroup.procs").read_text().split()),
            "limits": [
                (folder / name).read_text().strip()
                for name in ("memory.max", "memory.swap.max", "cpu.max", "pids.max")
                if (folder / name).exists()
            ],
        }
        await spawner.start(hungry, recorded)
        if "local-no-limits" not in seen["warnings"]:
            gone = await reach(spawner, hungry.name, Phase.GONE)
            seen["end"] = gone.end.cause if gone.end else None
        await spawner.stop(hungry.name, None, grace=5)
        stopped = await spawner.stop(plain.name, None, grace=5)
        seen["stopped"] = stopped.end.cause if stopped and stopped.end else None
        seen["left"] = folder.exists()
    return seen


with tempfile.TemporaryDirectory() as data_dir:
    print(json.dumps(anyio.run(live, sys.argv[1], Path(data_dir))))
