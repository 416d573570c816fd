"""What our objects are called and labelled: identity in exact labels, people's names beside it."""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from perijove.domain.errors import SpawnerRejected
from perijove.spawners.contract import LaunchSpec
from perijove.spawners.kubernetes.objects import Object, labels_of

INSTALLATION: Final = "perijove.org/installation"
SPAWNER: Final = "perijove.org/spawner"
NAME: Final = "perijove.org/name"
LAUNCH: Final = "perijove.org/launch"
USER: Final = "perijove.org/user"
SERVER: Final = "perijove.org/server"
PART: Final = "perijove.org/part"
DAY: Final = "perijove.org/day"

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_NOT_IN_VALUES = re.compile(r"[^A-Za-z0-9_.]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """Which objects belong to one spawner of one installation, and to nobody else."""

    installation: str
    spawner: str

    def labels(self, part: str) -> dict[str, str]:
        """Return what each of our objects carries; `part` says what it is for."""
        return {
            INSTALLATION: exact(self.installation),
            SPAWNER: exact(self.spawner),
            PART: part,
        }

    def selector(self, part: str, name: str = "") -> str:
        """Return what selects our objects of one part, or only those of one launch."""
        wanted = self.labels(part) | ({NAME: name} if name else {})
        return ",".join(f"{key}={value}" for key, value in wanted.items())

    def owns(self, one: Object, part: str) -> bool:
        """Tell whether an object is ours."""
        return self.labels(part).items() <= labels_of(one).items()


def is_object_name(name: str) -> bool:
    """Tell whether `name` can be an object's name and a label as it is."""
    return _DNS_LABEL.fullmatch(name) is not None


def check_object_name(name: str) -> None:
    """Raise `SpawnerRejected` for a name that no object can have."""
    if not is_object_name(name):
        raise SpawnerRejected(
            f"{name[:80]!r} is not a platform name: 1 to 63 of a-z, 0-9 and '-'",
            code="bad-platform-name",
        )


def exact(value: str) -> str:
    """Return `value` as a label from which it can be told from every other."""
    if _VALUE.fullmatch(value):
        return value
    return f"{readable(value)[:40]}-{_digest(value)}".lstrip("-")


def readable(value: str) -> str:
    """Return a label for people to read; not for telling anything apart."""
    return _NOT_IN_VALUES.sub("-", value[:63]).strip("-_.")


def launch_labels(spec: LaunchSpec) -> dict[str, str]:
    """Return what an object of one launch carries besides being ours."""
    return {
        NAME: spec.name,
        LAUNCH: exact(spec.launch_id),
        USER: readable(spec.user_name),
        SERVER: readable(spec.server_name),
    }


def namespace_for(installation: str, user_name: str) -> str:
    """Return the name of a person's own namespace; different for people however alike."""
    return f"pj-{installation}-{_digest(user_name)}"


def mark_name(ours: Ours, name: str) -> str:
    """Return under which name is noted that `name` was stopped."""
    return f"{name}.{_digest(f'{ours.installation}/{ours.spawner}')[:8]}.over"


def day(now: datetime) -> str:
    """Return the label of what was made on a day."""
    return now.astimezone(UTC).date().isoformat()


def old_days(now: datetime) -> str:
    """Return what selects all that was made before yesterday."""
    return f"{DAY} notin ({day(now)},{day(now - timedelta(days=1))})"


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()[:16]
