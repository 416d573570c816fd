"""How the command of a container with volumes begins: see `begin.py`."""

from collections.abc import Sequence
from functools import cache

from perijove.agent import keeper, program

_PARTS = (
    "agent/rescue.py",
    "agent/kernels.py",
    "agent/post.py",
    "agent/measure.py",
    "agent/begin.py",
)


def wrapped(command: Sequence[str]) -> list[str]:
    """
    Return a container's command with `begin.py` before it; it needs `python3` in the image.

    The program is the same for every launch; ``PERIJOVE_VOLUMES`` tells it where volumes are,
    ``PERIJOVE_MEASURE`` whether to count what is on them, and ``PERIJOVE_ENVIRONMENTS`` where
    environments lie, which its first argument keeps.
    """
    return ["python3", "-I", "-c", _source(), keeper(), *command]


@cache
def _source() -> str:
    return program(_PARTS)
