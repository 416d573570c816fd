"""
What runs beside the server, where the computing is. Standard library only, Python 3.6 or later.

A job gets `job.sh`, what its server loads (`session/`), and programs: `wrapper.py`,
`environments.py` and, for clusters where only jobs can connect outward, `tunnel.py`. Each program
is the modules that it is made of, one after the other in a single file, so that nothing has to be
installed on the node.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

from perijove.agent.kernels import KEEPER

_PACKAGE: Final = Path(__file__).parents[1]
_WRAPPER: Final = (
    "agent/kernels.py",
    "agent/memory.py",
    "spawners/local/supervisor.py",
    "agent/cannot.py",
    "agent/post.py",
    "agent/rescue.py",
    "agent/node.py",
    "agent/hub.py",
    "agent/board.py",
    "agent/outlet.py",
    "agent/software.py",
    "agent/doctor.py",
    "agent/wrapper.py",
)
"""Each needs only those before it."""
_SUPERVISOR: Final = ("agent/kernels.py", "agent/memory.py", "spawners/local/supervisor.py")
_KEEPER: Final = ("agent/post.py", "agent/environments.py")
_TUNNEL: Final = ("agent/link.py", "agent/tunnel.py")
_AS_THEY_ARE: Final = (
    "job.sh",
    "jupyter_server_config.py",
    "session/package.json",
    "session/perijove_session.json",
    "session/perijove_session.py",
    "session/session.js",
    "session/texts.json",
)


@cache
def job_files() -> Mapping[str, str]:
    """Return the files that a job is delivered with, beside its `spec.json`, by name."""
    agent = _PACKAGE / "agent"
    plain = {Path(name).name: (agent / name).read_text("utf-8") for name in _AS_THEY_ARE}
    programs = {"wrapper.py": program(_WRAPPER), "tunnel.py": program(_TUNNEL), KEEPER: keeper()}
    return MappingProxyType({**plain, **programs})


@cache
def local_files() -> Mapping[str, str]:
    """Return the programs that run a server on the hub's own machine, by name."""
    return MappingProxyType({"supervisor.py": program(_SUPERVISOR), KEEPER: keeper()})


@cache
def keeper() -> str:
    """Return the program that keeps a person's environments."""
    return program(_KEEPER)


def program(names: Sequence[str]) -> str:
    """Return the parts as one program: without their imports of each other, started by the last."""
    parts = []
    for name in names:
        source = (_PACKAGE / name).read_text("utf-8")
        kept = _kept(source, is_last=name == names[-1])
        parts.append(f"# --- {name}\n" + "".join(kept))
    return "\n".join(parts)


def _kept(source: str, *, is_last: bool) -> Iterator[str]:
    dropped: set[int] = set()
    for statement in ast.parse(source).body:
        if _is_internal(statement) or (_starts(statement) and not is_last):
            assert statement.end_lineno is not None
            dropped.update(range(statement.lineno, statement.end_lineno + 1))
    for number, line in enumerate(source.splitlines(keepends=True), 1):
        if number not in dropped:
            yield line


def _is_internal(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("perijove")


def _starts(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and "__name__" in ast.unparse(statement.test)
