"""
What begins in a container before the server: it starts although a volume cannot be used.

A server whose home is full, read-only or gone would not come up, and so nobody could clear it up
(failure 5.17). Here all that the server, its kernels and terminals write of their own goes to a
temporary directory then; the volume is shown beside it, with what takes most of it.
"""
# pathlib would add much to what a small program needs to start, and did less in Python 3.6:
# ruff: noqa: PTH118, PTH119, PTH123, PTH211

import contextlib
import json
import os
import sys
import tempfile

from perijove.agent.kernels import offer_environments
from perijove.agent.measure import start_measuring
from perijove.agent.post import post
from perijove.agent.rescue import RESCUE_TEXT, biggest_in, look_at, trouble_with, with_deadline

RESCUE_FILE = "RESCUE.md"
TELL_SECONDS = 5
TEMPORARY = ("TMPDIR", "TEMP", "TMP")
TEMPORARY_FOLDERS = ("/tmp", "/dev/shm", "/var/tmp", "/run")  # noqa: S108 - made private
PLACES = {
    "IPYTHONDIR": "ipython",
    "JUPYTER_CONFIG_DIR": "jupyter/config",
    "JUPYTER_DATA_DIR": "jupyter/data",
    "JUPYTER_RUNTIME_DIR": "jupyter/runtime",
    "JUPYTERLAB_SETTINGS_DIR": "jupyter/settings",
    "JUPYTERLAB_WORKSPACES_DIR": "jupyter/workspaces",
    "MPLCONFIGDIR": "matplotlib",
    "XDG_CACHE_HOME": "xdg/cache",
    "XDG_CONFIG_HOME": "xdg/config",
    "XDG_DATA_HOME": "xdg/data",
    "XDG_RUNTIME_DIR": "xdg/run",
    "XDG_STATE_HOME": "xdg/state",
    "TMPDIR": "tmp",
    "TEMP": "tmp",
    "TMP": "tmp",
}
"""Where programs are told to write, within the temporary directory."""


def say(words: str) -> None:
    """Write a line to the server's log."""
    sys.stderr.write(f"perijove: {words}\n")
    sys.stderr.flush()


def volume_paths(environment: "dict[str, str]") -> "list[str]":
    """Return where the volumes are, as the hub has said."""
    try:
        paths = json.loads(environment.get("PERIJOVE_VOLUMES", "[]"))
    except ValueError:
        return []
    return [path for path in paths if isinstance(path, str)] if isinstance(paths, list) else []


def find_room(environment: "dict[str, str]", volumes: "list[str]") -> str:
    """Make and return a private directory that is on none of the volumes; "" without any."""
    wanted = [environment.get(name, "") for name in TEMPORARY]
    for base in filter(None, wanted + list(TEMPORARY_FOLDERS)):
        inside = os.path.join(os.path.realpath(base), "")
        if any(inside.startswith(os.path.join(os.path.realpath(path), "")) for path in volumes):
            continue
        if not look_at(base):
            with contextlib.suppress(OSError):
                return tempfile.mkdtemp(prefix="perijove-rescue-", dir=base)
    return ""


def go_to_rescue(environment: "dict[str, str]", troubles: "dict[str, tuple[str, str]]") -> None:
    """Change the environment so that the server lives in a temporary directory, and say so."""
    code = next(iter(troubles.values()))[0]
    words = "; ".join(words for _, words in troubles.values())
    say(f"rescue mode: volume-{code}: {words}")
    room = find_room(environment, list(troubles))
    if not room:
        say("there is no room for temporary files either: starting as usual")
        return
    home = os.path.join(room, "home")
    for folder in [home, *(os.path.join(room, place) for place in set(PLACES.values()))]:
        os.makedirs(folder, mode=0o700, exist_ok=True)  # noqa: PTH103
    environment.update({name: os.path.join(room, place) for name, place in PLACES.items()})
    environment.update(
        HOME=home,
        PERIJOVE_RESCUE=f"volume-{code}",
        PYTHONDONTWRITEBYTECODE="1",
        PIP_NO_CACHE_DIR="1",
    )
    environment.pop("JUPYTERHUB_NOTEBOOK_DIR", None)
    environment["JUPYTERHUB_ROOT_DIR"] = home
    url = environment.get("JUPYTERHUB_DEFAULT_URL", "/lab")
    if url.split("?")[0].startswith("/lab"):
        environment["JUPYTERHUB_DEFAULT_URL"] = f"/lab/tree/{RESCUE_FILE}"
    write_help(home, words, show_volumes(home, list(troubles)))
    os.chdir(home)
    tell_hub(environment, f"volume-{code}", words)


def tell_hub(environment: "dict[str, str]", reason: str, words: str) -> None:
    """Let the hub show it as well; one that does not answer soon keeps no server waiting."""
    url = environment.get("JUPYTERHUB_API_URL", "") + "/perijove/registrations/warning"
    token = environment.get("JUPYTERHUB_API_TOKEN", "")

    def tell() -> str:
        answer = post(url, {"reason": reason, "words": words}, token)
        return "" if answer.status == 204 else answer.detail or f"status {answer.status}"

    failure = with_deadline(tell, TELL_SECONDS)
    if failure != "":
        say(f"the hub was not told: {failure or 'it does not answer'}")


def show_volumes(home: str, volumes: "list[str]") -> "dict[str, str]":
    """Link to the volumes from where the file browser begins; return their paths by link."""
    links: dict[str, str] = {}
    for path in volumes:
        name = os.path.basename(path.rstrip("/")) or "volume"
        with contextlib.suppress(OSError):
            os.symlink(path, os.path.join(home, name))
            links[name] = path
    return links


def write_help(home: str, words: str, links: "dict[str, str]") -> None:
    """Write what happened and what takes most room, for the file browser and the terminal."""
    lines = [RESCUE_TEXT.format(words=words)]
    for name, path in links.items():
        lines.append(f"{name} -> {path}")
        found = [f"{size:>16,} B {files:>10,} x  {each}" for size, files, each in biggest_in(path)]
        lines += ["", *found, ""]
    with open(os.path.join(home, RESCUE_FILE), "w", encoding="utf-8", errors="replace") as file:
        file.write("\n".join(lines) + "\n")
    start = f'cat "$HOME/{RESCUE_FILE}"\n'
    for name, text in ((".bashrc", start), (".bash_profile", '. "$HOME/.bashrc"\n')):
        with open(os.path.join(home, name), "w", encoding="utf-8") as file:
            file.write(text)


def begin(keeper: str, command: "list[str]") -> int:
    """
    Turn this process into the server; return an exit status if that cannot be.

    `keeper` is the program that keeps the person's environments.
    """
    environment = dict(os.environ)
    volumes = volume_paths(environment)
    troubles = {path: trouble_with(path) for path in volumes}
    troubles = {path: found for path, found in troubles.items() if found[0]}
    if troubles:
        try:
            go_to_rescue(environment, troubles)
        except OSError as error:
            say(f"rescue mode failed: {error}")
    else:
        offer_environments(environment, [sys.executable, "-I", "-S", "-c", keeper])
    start_measuring(environment, volumes)  # It matters most where one is full.
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606 - no shell
    except OSError as error:
        say(f"cannot start {command[0]}: {error.strerror}")
        return 127 if isinstance(error, FileNotFoundError) else 126


if __name__ == "__main__":
    sys.exit(begin(sys.argv[1], sys.argv[2:]))
