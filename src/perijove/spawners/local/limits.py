"""What holds a launch to its limits on this machine."""

from perijove.spawners.local.cgroups import ControlGroups
from perijove.spawners.local.scopes import Scopes

Limits = Scopes | ControlGroups
"""
Both put a command before a command: `enclose` returns it, with the limits of a launch, and raises
`OSError`; `remove` drops what is left of a launch of which nothing lives any more.
"""


def find_limits() -> Limits | None:
    """Return what this hub may use of this machine; None when it is nothing."""
    return Scopes.find() or ControlGroups.find()
