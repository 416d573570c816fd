"""The commands as run by a shell, against a hub that answers at an address."""

import stat
from pathlib import Path
from typing import Any

import anyio
import pytest

from perijove.domain.launch import Status
from perijove.kit.loops import until
from perijove.services.sections import FileToken
from tests.apis import ANN, BOB, SERVICE
from tests.integration.client.serving import PATIENCE, Done, LoginNode, Queue, login_node

pytestmark = pytest.mark.anyio


# --- signing in -------------------------------------------------------------------------------


async def test_a_token_is_read_from_standard_input_and_kept(tmp_path: Path) -> None:
    """It is shown nowhere, and the file is for its owner alone."""
    async with login_node(tmp_path) as node:
        done = await node.run("login", f"{node.url}hub/home", "--json", given=f"  {ANN}\n")
        file = node.home / "perijove/credentials.json"
        assert done.answer == {"hub": node.url, "user": "ann", "file": str(file)}
        assert ANN not in done.stdout + done.stderr
        assert ANN in file.read_text()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert (await node.run("list")).code == 0
        assert (await node.run("logout", "--json")).answer == {"hub": node.url, "forgotten": True}
        assert (await node.run("list")).code == 3


async def test_a_token_that_does_not_count_is_not_kept(tmp_path: Path) -> None:
    """Whoever signs in learns it then, and not at the first start."""
    async with login_node(tmp_path) as node:
        for token, code, said in [
            ("wrong-token", 3, "does not take your token"),
            (SERVICE, 3, "that of a service"),
            ("", 2, "no token was given"),
            ("two words", 2, "this is no token"),
        ]:
            done = await node.run("login", node.url, given=f"{token}\n")
            assert (done.code, said in done.stderr) == (code, True), done.stderr
        assert not node.home.exists()


async def test_an_address_without_a_hub_is_said(tmp_path: Path) -> None:
    """Nobody there, or somebody else; no token is asked for."""
    async with login_node(tmp_path) as node:
        for url, code in (("http://127.0.0.1:9", 4), (f"{node.url}nothing", 4), ("ftp://x", 2)):
            done = await node.run("login", url, "--json", given=f"{ANN}\n")
            assert done.code == code, (url, done.stderr)
            assert done.error["exit"] == code


async def test_scripts_bring_hub_and_token_in_the_environment(tmp_path: Path) -> None:
    """Nothing is kept then."""
    async with login_node(tmp_path) as node:
        node.environ = {"PERIJOVE_URL": node.url, "PERIJOVE_TOKEN": BOB}
        assert (await node.run("start", "--json")).answer["user"] == "bob"
        assert not node.home.exists()


async def test_who_is_not_signed_in_is_told_how(tmp_path: Path) -> None:
    """Every command ends with code 3 and the command that helps."""
    async with login_node(tmp_path) as node:
        for command in ("start", "stop", "list", "open", "logs", "logout"):
            done = await node.run(command)
            assert done.code == 3
            assert "perijove login" in done.stderr


# --- a server's life --------------------------------------------------------------------------


async def test_a_server_from_start_to_stop(tmp_path: Path) -> None:
    """Asked for with options, ready, listed, opened, stopped; twice changes nothing."""
    async with login_node(tmp_path) as node:
        await node.sign_in()
        done = await node.run("start", "work", "--cpu", "2", "--memory=4", "--time", "2:00:00")
        assert (done.code, done.stdout) == (0, f"{node.url}user/ann/work/\n"), done.stderr
        assert "Ready" in done.stderr
        (launch,) = await node.api.hub.live()
        assert launch.spec["options"] == {
            "cpu": 2, "memory": 4 * 2**30, "time": 7200, "gpu": 0, "ui": "lab",
        }  # fmt: skip
        again = await node.run("start", "work", "--cpu", "3")
        assert (again.code, again.stdout) == (0, done.stdout)
        assert "the options were not used" in again.stderr

        (row,) = (await node.run("list", "--json")).answer
        assert (row["server"], row["status"], row["ready"]) == ("work", "ready", True)
        assert "Running" in (await node.run("list")).stdout
        assert (await node.run("open", "work")).stdout == f"{node.url}user/ann/work/\n"
        assert (await node.run("open")).code == 1

        assert (await node.run("stop", "work")).stdout == "Stopped.\n"
        assert await node.api.hub.live() == []
        assert (await node.run("stop", "work", "--json")).answer["ran"] is False
        ended = (await node.run("list", "--json")).answer[0]
        assert (ended["status"], ended["why"]) == ("ended", "You stopped it.")
        assert (await node.run("start", "work", "--json")).answer["options"]["cpu"] == 2


MISTAKES = [
    (["--gpus", "2"], "gpus", "It has --cpu, --memory, --time, --ui."),
    (["--cpu", "99"], "cpu", "at most 16"),
    (["--memory", "lots"], "memory", "up to 32 GiB"),
    (["--cpu"], "cpu", "needs a value"),
    (["--profile", "huge"], "profile", "There is interactive."),
    (["--profile", "interactive", "Not a name"], "", "Invalid server_name"),
]


async def test_a_mistake_is_said_with_what_there_is(tmp_path: Path) -> None:
    """Code 2, for people and for programs, and nothing was started."""
    async with login_node(tmp_path) as node:
        await node.sign_in()
        for arguments, field, words in MISTAKES:
            error = (await node.run("start", *arguments, "--json")).error
            assert error["exit"] == 2, arguments
            assert words in error["message"] + error.get("hint", ""), arguments
            assert error.get("field", "") == field, arguments
        done = await node.run("start", "--cpu", "99")
        assert (done.code, done.stdout) == (2, "")
        assert "error: --cpu 99: at most 16\nIn profile interactive: " in done.stderr
        assert await node.api.hub.live() == []


async def test_a_limit_of_a_policy_is_the_hubs_own_word(tmp_path: Path) -> None:
    """It is no wrong usage: the same would do for somebody else."""
    policies = [{"groups": ["*"], "active_servers": 1}]
    async with login_node(tmp_path, policies=policies) as node:
        await node.sign_in()
        assert (await node.run("start")).code == 0
        done = await node.run("start", "second", "--json")
        assert done.code == 1
        assert done.error["code"] == "refused-active-servers"


async def test_options_are_listed_with_their_bounds(tmp_path: Path) -> None:
    """As the hub has them at this moment; for programs as the schema."""
    async with login_node(tmp_path) as node:
        await node.sign_in()
        shown = (await node.run("start", "--show-options", LANG="fr_FR.UTF-8")).stdout
        assert "--profile interactive  Interactif" in shown
        assert "up to 32 GiB" in shown
        (profile,) = (await node.run("start", "--show-options", "--json")).answer
        assert set(profile["schema"]["properties"]) == {"cpu", "memory", "time", "ui"}
        assert await node.api.hub.live() == []


async def test_a_token_can_do_no_more_than_it_may(tmp_path: Path) -> None:
    """One that only reads lists, and is refused the start in words."""
    reader = FileToken(name="reader", user="ann", token="token-that-reads", scopes=["read:servers"])
    async with login_node(tmp_path, tokens=[reader]) as node:
        await node.sign_in("token-that-reads")
        assert (await node.run("list")).code == 0
        refused = await node.run("start", "--json")
        assert (refused.code, refused.error["code"]) == (1, "scope-missing")
        assert (await node.run("start")).code == 1


# --- waiting ----------------------------------------------------------------------------------


def queued(**given: Any) -> tuple[list[Queue], dict[str, Any]]:
    """Return a place for the queue, and what makes a hub have one."""
    made: list[Queue] = []

    def wrap(inner: Any) -> Queue:
        made.append(Queue(inner, **given))
        return made[-1]

    return made, {"wrap": wrap}


async def test_who_does_not_wait_is_told_where_to_look(tmp_path: Path) -> None:
    """With --no-wait that is no failure; when the patience is over it is code 5."""
    _, given = queued()
    async with login_node(tmp_path, **given) as node:
        await node.sign_in()
        asked = await node.run("start", "--no-wait", "--json")
        assert asked.answer["status"] in ("requested", "submitted", "queued")
        waited = await node.run("start", "--timeout", "1.5")
        assert waited.code == 5
        assert "nothing large enough is free yet" in waited.stderr
        assert "perijove stop" in waited.stderr
        row = (await node.run("list", "--json")).answer[0]
        assert (row["status"], row["ready"]) == ("queued", False)
        assert (await node.run("open")).code == 1
        assert (await node.run("stop")).code == 0


async def test_waiting_ends_when_it_is_ready_and_says_why_it_waited(tmp_path: Path) -> None:
    """Without a terminal, a line for each change, in the language of the shell."""
    made, given = queued()
    async with login_node(tmp_path, **given) as node:
        await node.sign_in()
        results: list[Done] = []

        async def start() -> None:
            results.append(await node.run("start", LANG="es_ES.UTF-8"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(start)
            await _is_queued(node)
            made[0].active = False
        (done,) = results
        assert (done.code, done.stdout) == (0, f"{node.url}user/ann/\n")
        assert "Su servidor está listo." in done.stderr


async def _is_queued(node: LoginNode) -> None:
    async def check() -> bool:
        return any(launch.status is Status.QUEUED for launch in await node.api.hub.live())

    assert await until(check, seconds=PATIENCE)


async def test_a_start_that_fails_ends_with_its_reason(tmp_path: Path) -> None:
    """Code 1, and the launch in JSON says how it ended."""
    _, given = queued()
    async with login_node(tmp_path, lifecycle={}, **given) as node:
        await node.sign_in()
        results: list[Done] = []

        async def start() -> None:
            results.append(await node.run("start", "--json"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(start)
            await _is_queued(node)
            await node.api.hub.stop()
        (done,) = results
        assert done.code == 1
        assert '"wanted": "end"' in done.stdout


async def test_what_a_server_wrote_is_shown_without_commands_for_the_terminal(
    tmp_path: Path,
) -> None:
    """A server that has no log says so; one that was never started too."""
    async with login_node(tmp_path) as node:
        await node.sign_in()
        assert (await node.run("logs")).code == 1
        await node.run("start")
        assert "written nothing" in (await node.run("logs")).stderr
        assert (await node.run("logs", "--json")).answer["log"] == ""
        assert (await node.run("logs", "--lines", "0")).code == 2
