"""What a server finds around it: its home directory, its environment, its command."""

import os
import pwd
import shutil
import string
import sys
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

from perijove.domain.errors import SpawnerRejected

KEPT: Final = (
    "PATH",
    "PYTHONPATH",
    "CONDA_ROOT",
    "CONDA_DEFAULT_ENV",
    "VIRTUAL_ENV",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "JUPYTERHUB_SINGLEUSER_APP",
)
"""What a server inherits of the hub's own environment, and nothing else (wire §1.2)."""

_PLAIN: Final = frozenset((string.ascii_letters + string.digits + "-_.@").encode())
_LONGEST: Final = 200


def safe_name(name: str) -> str:
    """
    Return a file name for `name`; different names have different ones.

    Letters, digits and ``-_.@`` stay as they are, every other byte of the UTF-8 text and a
    leading dot become ``+XX``. What would be too long for a file name keeps its beginning and
    ends in ``+-`` and its SHA-256, which no other name can.
    """
    encoded = name.encode("utf-8", "surrogatepass")
    text = "".join(
        chr(byte) if byte in _PLAIN and (place or byte != ord(".")) else f"+{byte:02X}"
        for place, byte in enumerate(encoded)
    )
    if not text:
        return "+-"
    if len(text) > _LONGEST:
        return f"{text[: _LONGEST // 2]}+-{sha256(encoded).hexdigest()}"
    return text


def make_home(homes: Path, user_name: str) -> Path:
    """Return the home directory of a user, made with mode 0700 when it is new."""
    homes.mkdir(mode=0o700, parents=True, exist_ok=True)
    home = homes / safe_name(user_name)
    home.mkdir(mode=0o700, exist_ok=True)
    return home


def find_command(command: Sequence[str]) -> list[str]:
    """
    Return `command` with its program as an absolute path.

    A program without a folder is looked for beside the Python that runs the hub, then in PATH.
    Raises `SpawnerRejected` naming the places when it is in none.
    """
    if not command:
        raise SpawnerRejected("the command of the spawner is empty", code="command-missing")
    program, *arguments = command
    beside = str(Path(sys.executable).parent)
    places = os.pathsep.join([beside, os.environ.get("PATH", os.defpath)])
    found = shutil.which(program, path=places)
    if found is None:
        looked_at = program if "/" in program else places.replace(os.pathsep, ", ")
        raise SpawnerRejected(
            f"the command {program!r} is not there or cannot be executed; looked at {looked_at}",
            code="command-missing",
            command=program,
            places=looked_at,
        )
    return [str(Path(found).absolute()), *arguments]


def base_environment(home: Path, program: str) -> Mapping[str, str]:
    """Return what a server's environment has below what its launch says."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    account, shell = _account()
    beside = str(Path(program).parent)
    path = kept.get("PATH", os.defpath)
    return kept | {
        "PATH": path if beside in path.split(os.pathsep) else beside + os.pathsep + path,
        "HOME": str(home),
        "USER": account,
        "LOGNAME": account,
        "SHELL": shell,
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_DATA_HOME": str(home / ".local/share"),
        "XDG_STATE_HOME": str(home / ".local/state"),
        "XDG_CACHE_HOME": str(home / ".cache"),
    }


def _account() -> tuple[str, str]:
    try:
        found = pwd.getpwuid(os.geteuid())
    except KeyError:  # Containers run under ids that no table knows.
        return str(os.geteuid()), "/bin/sh"
    return found.pw_name, found.pw_shell or "/bin/sh"
