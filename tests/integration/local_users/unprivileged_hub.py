"""
As much of a hub as starts and stops servers, under an account that is not root's.

Run by root as ``python -m tests.integration.local_users.unprivileged_hub ACCOUNT DATA LAUNCHES
PROGRAM USER``: becomes ACCOUNT, does for USER what a hub does in the course of a day, and prints
what it saw as one JSON object.
"""

import encodings.idna  # noqa: F401 - afterwards there may be no way to these two
import json
import os
import pwd
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import anyio
import anyio._backends._asyncio
import anyio.abc

from perijove.domain.errors import SpawnerError
from perijove.kit.ids import platform_name
from perijove.spawners.contract import LaunchSpec, Phase, Sighting, Surroundings
from perijove.spawners.local import LocalSettings, LocalSpawner


def make_spec(name: str, user: str, command: list[str]) -> LaunchSpec:
    """Return the order of a server."""
    return LaunchSpec(
        launch_id="lch_1",
        name=name,
        installation="inst",
        user_name=user,
        server_name="",
        command=command,
        environment={"JUPYTERHUB_API_TOKEN": "7f1d9a3c5b2e4608a1c3e5f708192a3b"},
        prefix="/",
    )


async def recorded(handle: object) -> None:
    """Be a checkpoint that has nothing to say."""


async def find(spawner: LocalSpawner, name: str, phase: Phase) -> Sighting:
    """Survey until a launch is in a phase."""
    with anyio.fail_after(20):
        while True:
            for one in (await spawner.survey()).sightings:
                if (one.name, one.phase) == (name, phase):
                    return one
            await anyio.sleep(0.02)


def fetch(url: str) -> Any:
    """Return what the server answers, once it does."""
    latest = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return json.load(response)
        except OSError:
            if time.monotonic() > latest:
                raise


async def live(before: LocalSpawner, after: LocalSpawner, user: str, program: str) -> Any:
    """Start, restart the hub, look, stop."""
    seen: dict[str, Any] = {"uid": os.getuid()}
    name = platform_name("inst")
    command = ["/usr/bin/python3", "-I", "-S", program, "plain"]
    async with before:
        seen["warnings"] = list(before.warnings(public=True))
        try:
            await before.start(make_spec(name, user, command), recorded)
        except SpawnerError as error:
            return seen | {"error": error.code, "words": str(error)}
        running = await find(before, name, Phase.RUNNING)
    async with after:
        again = await find(after, name, Phase.RUNNING)
        seen["environment"] = await anyio.to_thread.run_sync(fetch, running.url)
        seen["same"] = again == running
        seen["owns"] = await after.owns_listener(name, again.handle, again.url)
        seen["owns_other"] = await after.owns_listener(name, again.handle, "http://127.0.0.1:1")
        gone = await after.stop(name, again.handle, grace=5)
        seen["end"] = gone and gone.end and [gone.end.cause, gone.end.code]
        seen["left"] = len((await after.survey()).sightings)
        seen["log"] = await after.log_tail(name, again.handle, lines=5)
    return seen


def main(account: str, data: str, launches: str, program: str, user: str) -> None:
    """Become the account and live."""
    entry = pwd.getpwnam(account)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    around = Surroundings(
        name="local", installation="inst", data_dir=Path(data), system_accounts=True
    )
    settings = LocalSettings(accounts="system", launches=Path(launches))
    before, after = LocalSpawner(settings, around), LocalSpawner(settings, around)
    print(json.dumps(anyio.run(live, before, after, user, program)))


if __name__ == "__main__":
    main(*sys.argv[1:])
