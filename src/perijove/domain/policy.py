"""
Policies: who may have how much. Pure; counting happens in `services/admission.py`.

Policies are read top-down, and for each rule the first one that applies to the person *and*
says something about the rule decides. What no policy speaks about has the built-in limit.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from perijove.domain.names import SERVER_NAME_LENGTH

EVERYONE: Final = "*"
"""As a group's name: whoever there is."""
UNLIMITED: Final = "unlimited"
"""What a policy says to lift a limit that a later policy would set."""
BUILT_IN: Final = "built-in"
"""The policy behind what nobody decided; no policy may have this name."""


class Rule(StrEnum):
    """What a policy can decide. The value is the name that a refusal shows."""

    NAMED_SERVERS = "named-servers"  #: How many named servers a person may have.
    DEFAULT_SERVER = "default-server"  #: Whether a person may start the one without a name.
    SERVER_NAME_LENGTH = "server-name-length"
    SERVER_NAME = "server-name"  #: A pattern that the whole name must match.
    PROFILE = "profile"  #: Which profiles a person may start.
    CPU = "cpu"
    MEMORY = "memory"
    TIME = "time"
    GPU = "gpu"
    GPU_TYPE = "gpu-type"  #: Which types of GPU a person may ask a scheduler for.
    ACCOUNT = "account"  #: Which accounts (projects) of a scheduler.
    PARTITION = "partition"  #: Which partitions (queues) of a scheduler.
    QOS = "qos"  #: Which qualities of service of a scheduler.
    IMAGE = "image"  #: Which container images: patterns of names and references.
    STORAGE = "storage"  #: How much a volume of theirs may hold.
    STORAGE_KEPT = "storage-kept"  #: What is kept, whatever a profile that keeps data says.
    ENVIRONMENTS = "environments"  #: Whether a person may have persistent environments.
    ACTIVE_SERVERS = "active-servers"  #: How many servers of a person may be live at once.
    GROUP_ACTIVE_SERVERS = "group-active-servers"  #: … of all to whom the policy applies.
    TOTAL_ACTIVE_SERVERS = "total-active-servers"  #: … of everybody.
    IDLE_TIMEOUT = "idle-timeout"
    MAX_AGE = "max-age"
    QUEUE_LIMIT = "queue-limit"
    QUEUE_UNANSWERED = "queue-unanswered"  #: What becomes of who does not say whether to wait on.

    @property
    def key(self) -> str:
        """The rule's key in a policy, as configured and stored."""
        return _KEYS.get(self, self.value.replace("-", "_"))


_KEYS: Final[Mapping[Rule, str]] = MappingProxyType(
    {
        Rule.PROFILE: "profiles",
        Rule.SERVER_NAME: "server_name_pattern",
        Rule.GPU_TYPE: "gpu_types",
        Rule.ACCOUNT: "accounts",
        Rule.PARTITION: "partitions",
        Rule.IMAGE: "images",
    }
)

_BUILT_IN: Final[Mapping[Rule, Any]] = MappingProxyType(
    {
        Rule.NAMED_SERVERS: 5,
        Rule.DEFAULT_SERVER: True,
        Rule.ENVIRONMENTS: True,
        Rule.SERVER_NAME_LENGTH: SERVER_NAME_LENGTH,
    }
)
"""What holds without any policy; every other rule is unlimited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What an administrator decided for some people; a rule it does not hold is open."""

    name: str
    id: int = 0
    """Of its row; names what is counted for it."""
    revision: int = 1
    groups: tuple[str, ...] = (EVERYONE,)
    users: tuple[str, ...] = ()
    values: Mapping[Rule, Any] = field(default_factory=dict)
    """JSON values: numbers in cores, bytes and seconds, or `UNLIMITED`."""

    def applies_to(self, user: str, groups: Collection[str]) -> bool:
        """Tell whether the policy speaks about this person."""
        return (
            EVERYONE in self.groups
            or user in self.users
            or any(group in groups for group in self.groups)
        )

    @classmethod
    def from_body(cls, name: str, body: Mapping[str, Any], *, id: int, revision: int) -> "Policy":
        """Return the policy of a stored revision."""
        return cls(
            name=name,
            id=id,
            revision=revision,
            groups=tuple(body.get("groups", (EVERYONE,))),
            users=tuple(body.get("users", ())),
            values={rule: body[rule.key] for rule in Rule if rule.key in body},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What holds for one person under one rule, and who says so."""

    rule: Rule
    value: Any
    """None: no limit."""
    source: Policy | None = None
    """The policy that decides; None for what is built in."""
    overruled: tuple[tuple[str, Any], ...] = ()
    """What policies further down would have said, as (policy, value)."""

    @property
    def policy(self) -> str:
        """The name of the policy that decides."""
        return self.source.name if self.source else BUILT_IN


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """All that holds for one person."""

    user: str
    groups: frozenset[str]
    by_rule: Mapping[Rule, Limit]

    def __getitem__(self, rule: Rule) -> Limit:
        return self.by_rule[rule]

    def value(self, rule: Rule) -> Any:
        """Return the limit of a rule; None when there is none."""
        return self.by_rule[rule].value

    def as_json(self) -> list[dict[str, Any]]:
        """Return which limit holds under each rule and whose it is, for people and records."""
        return [
            {"rule": str(limit.rule), "policy": limit.policy, "limit": limit.value}
            for limit in self.by_rule.values()
        ]


def evaluate(policies: Sequence[Policy], *, user: str, groups: Collection[str]) -> Limits:
    """Return what holds for a person: for each rule, what the first policy that speaks says."""
    mine = [policy for policy in policies if policy.applies_to(user, groups)]
    return Limits(
        user=user,
        groups=frozenset(groups),
        by_rule=MappingProxyType({rule: _decide(rule, mine) for rule in Rule}),
    )


def queue_limit(kept: Mapping[str, Any], usual: float | None) -> float | None:
    """
    Return after how many seconds in the queue a person is asked; None: never.

    `kept` is what a launch keeps of its limits, `usual` its spawner's. A policy comes before the
    spawner, also where it lifts the limit; the person's own wish counts where it is sooner.
    """
    ruled = kept.get("queue_seconds")
    site = None if ruled == UNLIMITED else ruled or usual
    return min((each for each in (site, kept.get("queue_wish")) if each), default=None)


def _decide(rule: Rule, policies: Sequence[Policy]) -> Limit:
    speaking = [policy for policy in policies if rule in policy.values]
    if not speaking:
        return Limit(rule=rule, value=_BUILT_IN.get(rule))
    first, *rest = speaking
    return Limit(
        rule=rule,
        value=_limit(first.values[rule]),
        source=first,
        overruled=tuple((policy.name, _limit(policy.values[rule])) for policy in rest),
    )


def _limit(value: Any) -> Any:
    return None if value == UNLIMITED else value
