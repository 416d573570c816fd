"""Who may charge what to whom: associations and QOS, as ``sacctmgr`` shows them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from perijove.domain.errors import SpawnerRejected, SpawnerTransient
from perijove.domain.offer import Account, Ceiling, Qos
from perijove.spawners.batch.scheduler import Command, Result
from perijove.spawners.slurm.ceilings import (
    ceiling,
    for_one_job,
    higher,
    looser,
    lower,
    tighter,
)
from perijove.spawners.slurm.rejections import check_answer
from perijove.spawners.slurm.values import optional, read_duration, read_tres, words

_SHOW: Final = ("sacctmgr", "--noheader", "--parsable2", "--readonly", "show")

_OWN: Final = (
    "DefaultAccount", "Account", "Partition", "QOS", "DefaultQOS", "MaxJobs", "MaxSubmitJobs",
    "MaxTRESPerJob", "MaxTRESPerNode", "MaxWall", "GrpTRES",
)  # fmt: skip
_SHARED: Final = ("Account", "MaxWall", "GrpTRES")
_QOS: Final = (
    "Name", "MaxWall", "MaxTRESPerJob", "MaxTRESPerNode", "MaxTRESPerUser", "MaxJobsPerUser",
    "MaxSubmitJobsPerUser", "GrpTRES", "GrpJobs", "GrpSubmitJobs",
)  # fmt: skip

_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@$-]{0,63}", re.ASCII)

Row = Mapping[str, str]


def ask_for_person(user: str, cluster: str) -> Command:
    """
    Return the command for one person's associations with one cluster.

    Raises `SpawnerRejected` for a name that ``sacctmgr`` would read as several, or as an option.
    """
    if _USER.fullmatch(user) is None:
        raise SpawnerRejected(
            f"{user[:40]!r} can have no account of the cluster", code="account-unknown"
        )
    where = [f"name={user}", f"cluster={cluster}"]
    return [*_SHOW, "user", "withassoc", "where", *where, f"format={','.join(_OWN)}"]


def ask_for_accounts(accounts: Sequence[str], cluster: str) -> Command:
    """Return the command for the limits that everybody in these accounts shares."""
    where = [f"account={','.join(accounts)}", f"cluster={cluster}", "user="]
    return [*_SHOW, "assoc", "where", *where, f"format={','.join(_SHARED)}"]


def ask_for_qos() -> Command:
    """Return the command for every QOS."""
    return [*_SHOW, "qos", f"format={','.join(_QOS)}"]


def read_accounts(result: Result) -> dict[str, Account]:
    """Return one person's accounts, by name; several associations with one come together."""
    found: dict[str, Account] = {}
    for row in _rows(result, _OWN):
        account = _account(row)
        known = found.get(account.name)
        found[account.name] = account if known is None else _together(known, account)
    return found


def with_shared_limits(accounts: Mapping[str, Account], result: Result) -> tuple[Account, ...]:
    """Return the accounts, limited as well by what all their members may use together."""
    found = dict(accounts)
    for row in _rows(result, _SHARED):
        account = found.get(row["Account"])
        if account is None:
            continue
        group = ceiling(read_tres(row["GrpTRES"]))
        found[account.name] = replace(
            account,
            max_seconds=lower(account.max_seconds, read_duration(row["MaxWall"])),
            per_job=tighter(account.per_job, for_one_job(group)),
        )
    return tuple(found.values())


def read_qos(result: Result) -> dict[str, Qos]:
    """Return every QOS by name."""
    return {row["Name"]: _qos(row) for row in _rows(result, _QOS) if row["Name"]}


def _account(row: Row) -> Account:
    own = ceiling(read_tres(row["GrpTRES"]))
    return Account(
        name=row["Account"],
        is_default=row["Account"] == row["DefaultAccount"],
        qos=words(row["QOS"]),
        default_qos=optional(row["DefaultQOS"]),
        partitions=words(row["Partition"]),
        max_seconds=read_duration(row["MaxWall"]),
        per_job=tighter(_per_job(row), for_one_job(own)),
        per_person=replace(
            own, jobs=_number(row["MaxJobs"]), submitted=_number(row["MaxSubmitJobs"])
        ),
    )


def _together(one: Account, other: Account) -> Account:
    """Return what somebody has who is associated with one account for several partitions."""
    everywhere = not one.partitions or not other.partitions
    return replace(
        one,
        qos=tuple(dict.fromkeys((*one.qos, *other.qos))),
        default_qos=one.default_qos or other.default_qos,
        partitions=() if everywhere else tuple(dict.fromkeys((*one.partitions, *other.partitions))),
        max_seconds=higher(one.max_seconds, other.max_seconds),
        per_job=looser(one.per_job, other.per_job),
        per_person=looser(one.per_person, other.per_person),
    )


def _qos(row: Row) -> Qos:
    group = ceiling(
        read_tres(row["GrpTRES"]),
        jobs=_number(row["GrpJobs"]),
        submitted=_number(row["GrpSubmitJobs"]),
    )
    person = ceiling(
        read_tres(row["MaxTRESPerUser"]),
        jobs=_number(row["MaxJobsPerUser"]),
        submitted=_number(row["MaxSubmitJobsPerUser"]),
    )
    return Qos(
        name=row["Name"],
        max_seconds=read_duration(row["MaxWall"]),
        per_job=_per_job(row),
        per_person=person,
        group=group,
    )


def _per_job(row: Row) -> Ceiling:
    job, node = (ceiling(read_tres(row[each])) for each in ("MaxTRESPerJob", "MaxTRESPerNode"))
    return tighter(job, node)


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 16 else None


def _rows(result: Result, columns: Sequence[str]) -> list[Row]:
    check_answer(result, "sacctmgr")
    rows = [line.split("|") for line in result.stdout.splitlines() if line]
    if any(len(row) != len(columns) for row in rows):
        raise SpawnerTransient("sacctmgr's answer is garbled")
    return [dict(zip(columns, row, strict=True)) for row in rows]
