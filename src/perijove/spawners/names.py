"""Which platform names a spawner on this machine's file system accepts."""

import re

from perijove.domain.errors import SpawnerRejected

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def is_platform_name(name: str) -> bool:
    """Tell whether `name` can be a file name as it is; others were never started by us."""
    return _NAME.fullmatch(name) is not None


def check_platform_name(name: str) -> None:
    """Raise `SpawnerRejected` for a name that cannot be a file name as it is."""
    if not is_platform_name(name):
        raise SpawnerRejected(
            f"{name[:80]!r} is not a platform name: letters, digits, '.', '_' and '-', at most 128",
            code="bad-platform-name",
        )
