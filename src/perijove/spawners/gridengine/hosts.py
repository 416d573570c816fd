"""Reading ``qhost``: the hosts, the queues on them, and what is free there now."""

from collections.abc import Mapping
from dataclasses import dataclass

from perijove.domain.errors import SpawnerTransient
from perijove.spawners.batch.scheduler import Result
from perijove.spawners.gridengine.markup import Element, parse
from perijove.spawners.gridengine.values import first_line, is_nothing, read_count, read_memory


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueInstance:
    """A queue on one host."""

    slots: int
    used: int
    state: str
    """Grid Engine's letters; empty: jobs start there."""

    @property
    def is_up(self) -> bool:
        """Nobody and nothing has closed it; being loaded (``a``) is no closure."""
        return not set(self.state) & set("dDsSCEuoc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One execution host."""

    name: str
    is_up: bool
    memory_bytes: int
    queues: Mapping[str, QueueInstance]
    free: Mapping[str, str]
    """What is left of its consumables."""


def read_hosts(result: Result) -> tuple[Host, ...]:
    """Return the hosts of ``qhost -q -F … -xml``; raises `SpawnerTransient`."""
    if result.status != 0:
        raise SpawnerTransient(f"qhost: {first_line(result.stderr)}")
    found = (_read_host(each) for each in parse(result.stdout).iterfind("host"))
    return tuple(host for host in found if host.name != "global")


def _read_host(element: Element) -> Host:
    about = {each.get("name", ""): each.text or "" for each in element.iterfind("hostvalue")}
    return Host(
        name=element.get("name", ""),
        # A host whose execd is silent has no load.
        is_up=not is_nothing(about.get("load_avg", "-")),
        memory_bytes=read_memory(about.get("mem_total", "")) or 0,
        queues={each.get("name", ""): _instance(each) for each in element.iterfind("queue")},
        free={
            each.get("name", ""): (each.text or "").strip()
            for each in element.iterfind("resourcevalue")
        },
    )


def _instance(element: Element) -> QueueInstance:
    about = {each.get("name", ""): each.text or "" for each in element.iterfind("queuevalue")}
    used = read_count(about.get("slots_used", "")) or 0
    return QueueInstance(
        slots=read_count(about.get("slots", "")) or 0,
        used=used + (read_count(about.get("slots_resv", "")) or 0),
        state=about.get("state_string", "").strip(),
    )
