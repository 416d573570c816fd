"""
Slowing down whoever guesses passwords, by rows that all replicas see.

Every attempt is counted before the password is looked at, so that many at once gain nothing;
a right one is taken out again. Counted are the *place* (this name from this address), the
*name* from anywhere, and the *address* for any name. Beyond a free number each further failure
doubles the pause before the next attempt, up to five minutes; what is refused meanwhile does
not count, so nobody is ever kept out for longer. A quarter of an hour without a failure
forgets them.

A stranger who fails on purpose must not keep the owner of a name out: where the name is signed
in already, only failures of that name from that very address count.
"""

import hashlib
import ipaddress
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, case, delete, exists, select, update

from perijove.db.core import upsert
from perijove.db.tables import sessions, signin_failures, users
from perijove.domain.errors import Throttled
from perijove.kit.backoff import backoff

FREE: Final[Mapping[str, int]] = {"place": 5, "name": 10, "address": 30}
"""Failures without a pause. Many people may share an address; few share a name."""
CAP_SECONDS: Final = 300.0
"""Longest pause."""
FORGET_AFTER: Final = timedelta(minutes=15)
"""Without a failure for this long, counting begins anew."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """The counters of one attempt."""

    place: str
    name: str
    address: str

    @property
    def keys(self) -> Sequence[str]:
        """All of them, always in the same order, so that two attempts cannot deadlock."""
        return sorted((self.place, self.name, self.address))


def attempt_of(name: str, address: str) -> Attempt:
    """Return the counters of a name in its one form and an address; neither can be read back."""
    network = _network(address)
    return Attempt(
        place=_key("place", name, network),
        name=_key("name", name),
        address=_key("address", network),
    )


def count_attempt(
    connection: Connection, attempt: Attempt, *, name: str, address: str, now: datetime
) -> None:
    """Count an attempt as a failure, or raise `Throttled` when it comes too early."""
    for key in attempt.keys:
        # Made or locked at once: what only was there may be forgiven before it is read.
        upsert(
            connection,
            signin_failures,
            key={"key": key},
            values={"failures": 0, "last_at": now},
            on_update={"failures": signin_failures.c.failures},
        )
    found = {
        row.key: row
        for row in connection.execute(
            select(signin_failures).where(signin_failures.c.key.in_(attempt.keys))
        )
    }
    counts = {
        key: 0 if now - row.last_at > FORGET_AFTER else row.failures for key, row in found.items()
    }
    # Another replica's clock may be ahead, and any clock may be put back.
    waits = [
        (min(found[key].last_at, now) + _pause(key, counts[key]) - now).total_seconds()
        for key in _that_hold(connection, attempt, name=name, address=address)
    ]
    if (seconds := max(waits)) > 0:
        raise Throttled(
            "Too many failed attempts.",
            retry_after=seconds,
            code="signin-throttled",
            retry_after_seconds=math.ceil(seconds),
        )
    for key in attempt.keys:
        connection.execute(
            update(signin_failures)
            .where(signin_failures.c.key == key)
            .values(failures=counts[key] + 1, last_at=now)
        )


def forgive(connection: Connection, attempt: Attempt) -> None:
    """
    Take a successful attempt out: its place and name begin anew, the address is as before.

    The address keeps its earlier failures, else one account of their own would let somebody
    try the passwords of everybody else for ever.
    """
    _uncount(connection, [attempt.address])  # first, in the order of `Attempt.keys`
    connection.execute(
        delete(signin_failures).where(signin_failures.c.key.in_((attempt.place, attempt.name)))
    )


def discount(connection: Connection, attempt: Attempt) -> None:
    """Take an attempt out that nobody could judge: it was no failure."""
    _uncount(connection, attempt.keys)


def _uncount(connection: Connection, keys: Iterable[str]) -> None:
    count = signin_failures.c.failures
    connection.execute(
        update(signin_failures)
        .where(signin_failures.c.key.in_(list(keys)))
        .values(failures=case((count > 0, count - 1), else_=0))
    )


def _that_hold(
    connection: Connection, attempt: Attempt, *, name: str, address: str
) -> Sequence[str]:
    is_known = connection.scalar(
        select(
            exists().where(
                sessions.c.user_id == users.c.id,
                users.c.name == name,
                sessions.c.address == address,
            )
        )
    )
    return (attempt.place,) if is_known else attempt.keys


def _pause(key: str, failures: int) -> timedelta:
    beyond = failures - FREE[key.partition(":")[0]] + 1
    return backoff(beyond, cap=CAP_SECONDS) if beyond > 0 else timedelta()


def _network(address: str) -> str:
    """Return what one person cannot change at will: of IPv6 the first half of the address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    prefix = 32 if parsed.version == 4 else 64
    return str(ipaddress.ip_network((parsed, prefix), strict=False))


def _key(kind: str, *parts: str) -> str:
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return f"{kind}:{hashlib.sha256(text.encode()).hexdigest()}"
