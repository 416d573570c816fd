"""How a server comes to know the kernels of its person's environments, and who keeps them."""
# pathlib would add much to what a small program needs to start, and did less in Python 3.6:
# ruff: noqa: PTH113, PTH118

import os
import sys

KEEPER = "environments.py"


def keeper_in(folder: str) -> "list[str]":
    """Return the command of the keeper that was delivered into `folder`; empty if none was."""
    path = os.path.join(folder, KEEPER)
    return [sys.executable, "-I", "-S", path] if os.path.isfile(path) else []


def offer_environments(environment: "dict[str, str]", keeper: "list[str]") -> None:
    """Have the kernels of a person's environments found, and start their keeper."""
    show_environments(environment)
    start_keeper(environment, keeper)


def show_environments(environment: "dict[str, str]") -> None:
    """
    Have the kernels of a person's environments found by a server with this environment.

    Does nothing where ``PERIJOVE_ENVIRONMENTS`` names no place for them.
    """
    root = environment.get("PERIJOVE_ENVIRONMENTS", "")
    if not root:
        return
    if root.startswith("~/"):
        root = os.path.join(environment.get("HOME", ""), root[2:])
    environment["PERIJOVE_ENVIRONMENTS"] = root
    paths = [os.path.join(root, "share", "jupyter"), environment.get("JUPYTER_PATH", "")]
    environment["JUPYTER_PATH"] = ":".join(filter(None, paths))


def start_keeper(environment: "dict[str, str]", keeper: "list[str]") -> None:
    """
    Start the keeper of a person's environments, if there is a place for any.

    For a process that is about to become the server: the keeper is its child, is told its
    number, and ends with it.
    """
    command = [*keeper, str(os.getpid())]
    if not keeper or not environment.get("PERIJOVE_ENVIRONMENTS") or os.fork() != 0:
        return
    try:
        os.setpgid(0, 0)  # Signals to the server's group are not meant for it.
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.execve(command[0], command, environment)  # noqa: S606 - no shell
    finally:
        os._exit(127)
