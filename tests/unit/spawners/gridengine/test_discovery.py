"""What a person can have, from what qconf and qhost print."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.domain.errors import SpawnerTransient
from perijove.domain.offer import Ceiling, Free, Offer
from perijove.spawners.batch.scheduler import Result
from perijove.spawners.gridengine.configuration import (
    Configuration,
    named_of,
    naming,
    read_capacities,
    read_complexes,
    read_configuration,
    read_members,
    read_overview,
    read_projects,
    read_queues,
    read_settings,
)
from perijove.spawners.gridengine.hosts import read_hosts
from perijove.spawners.gridengine.offers import Person
from perijove.spawners.gridengine.queue import read_listing
from perijove.spawners.gridengine.quotas import limits_of, read_rules
from tests.unit.spawners.gridengine.corpus import COMPLEXES, said

NOW = datetime(2026, 11, 20, 11, 6, tzinfo=UTC)
ALL = said("qconf-sq-all.q").stdout
RSE = (
    ALL.replace("all.q", "rse.q")
    .replace("projects              NONE", "projects              rse", 1)
    .replace("slots                 12", "slots                 4")
)


QUEUES = ALL + said("qconf-sq-short.q").stdout + RSE
COMPLEX_TABLE = said("qconf-sc").stdout
NAMED = "".join(said(f"qconf-{name}").stdout for name in ("se", "sprj-rse", "su"))


def overview(
    *, queues: str = QUEUES, rules: str = said("qconf-srqs").stdout, complexes: str = ""
) -> Result:
    """Return what qconf prints when it is asked all at once."""
    table = COMPLEX_TABLE + complexes
    settings = said("qconf-sconf").stdout + said("qconf-ssconf").stdout
    parts = [settings, queues, "allowed_rse\n", rules, said("qconf-sprjl").stdout]
    return Result(status=0, stdout=table.join(parts), stderr="")


def configuration(**changed: str) -> Configuration:
    """Return the samples' cell, the queue of the project included."""
    return read_configuration(read_overview(overview(**changed)), NAMED)


def offer(user_name: str, cell: Configuration | None = None) -> Offer:
    """Return what a person of the samples' cell can have."""
    hosts = said("qhost-q-j-xml").stdout
    free = said("qhost-F-xml").stdout.partition("<resourcevalue")
    left = (free[1] + free[2]).partition("</host>")[0]
    hosts = hosts.replace(" <queue name='all.q'>", left + " <queue name='all.q'>", 1)
    own = read_listing(said("qstat-xml-r-all"), UTC).of_user(user_name)
    person = Person(cell or configuration(), COMPLEXES, user_name, "people")
    return person.offer(read_hosts(Result(status=0, stdout=hosts, stderr="")), own, NOW)


def test_queues_are_partitions_with_their_limits() -> None:
    """A member of the project's access list sees its queue; limits are per queue."""
    found = {each.name: each for each in offer("alice").partitions}
    assert {name: each.max_seconds for name, each in found.items()} == {
        "all.q": 345600, "short.q": 1800, "rse.q": 345600,
    }  # fmt: skip
    assert found["rse.q"].accounts == ("rse",)
    assert found["short.q"].per_job.cpus == 2
    assert all(each.is_up for name, each in found.items() if name != "nosuch.q")


def test_projects_are_accounts_of_those_who_may_use_them() -> None:
    """A stranger to the access list has neither project nor its queue, only "" for none."""
    assert [each.name for each in offer("alice").accounts] == ["", "rse"]
    assert offer("alice").accounts[0].partitions == ("all.q", "short.q")
    assert [each.name for each in offer("bob").accounts] == [""]
    assert [each.name for each in offer("bob").partitions] == ["all.q", "short.q"]


def test_quotas_bound_the_person_they_are_about() -> None:
    """Bob may use two slots; nobody else is bound."""
    assert offer("bob").accounts[0].per_person == Ceiling(cpus=2)
    assert {each.per_job.cpus for each in offer("bob").partitions} == {2}
    assert offer("carol").accounts[0].per_person == Ceiling()


def test_hosts_are_shapes_with_what_is_free() -> None:
    """Capacity from the host's complex values, what is left from qhost."""
    (shape,) = offer("carol").shapes
    assert (shape.nodes, shape.cpus, shape.gpus) == (("vm",), 12, {"": 2})
    assert shape.memory_bytes == 16 * 2**30
    assert shape.free == (Free(cpus=3, memory_bytes=int(8.023 * 2**30), gpus={"": 0}),)


def test_own_jobs_are_told_with_their_state() -> None:
    """The person's other jobs take of the same limits."""
    found = {each.name: each.state for each in offer("bob").own_jobs}
    assert found == {"rqs-a": "running", "gpu-busy": "queued", "gpu-never": "queued",
                     "rqs-b": "queued"}  # fmt: skip


def test_a_queue_with_a_forced_resource_is_not_offered() -> None:
    """Only jobs that ask for it may run there, and no option of ours does."""
    forced = ALL.replace("all.q", "many.q").replace(
        "complex_values        NONE", "complex_values        many=TRUE"
    )
    row = "many many BOOL == FORCED NO FALSE 0\n"
    names = [
        each.name
        for each in offer("carol", configuration(queues=ALL + forced, complexes=row)).partitions
    ]
    assert names == ["all.q"]


@pytest.mark.parametrize(
    ("environments", "cores"),
    [
        ("make smp", 12),
        ("make", 1),
        ("NONE", 1),
        ("NONE,[vm=smp]", 12),
        ("make,[@big=smp mpi]", 12),
    ],
)
def test_more_than_one_core_takes_the_parallel_environment(environments: str, cores: int) -> None:
    """A queue without the site's own has one core for a job, however many slots it has."""
    text = ALL.replace("pe_list               make smp", f"pe_list               {environments}")
    found = offer("carol", configuration(queues=text))
    assert [each.per_job.cpus for each in found.partitions] == [cores]
    assert [each.cpus for each in found.shapes] == [cores]


def test_a_queue_with_the_environment_lends_no_cores_to_another() -> None:
    """Each queue offers its own, though both are on the same host."""
    other = ALL.replace("all.q", "short.q").replace("make smp", "NONE")
    found = {
        each.name: each for each in offer("carol", configuration(queues=ALL + other)).partitions
    }
    assert (found["all.q"].per_job.cpus, found["short.q"].per_job.cpus) == (12, 1)


def test_settings_that_do_not_fit_are_noted() -> None:
    """A complex that the cell has not, or counts otherwise, is an administrator's to mend."""
    assert offer("carol").notes == ("gpu-counted-otherwise",)
    silent = Configuration(explains=False)
    assert configuration().explains
    person = Person(silent, COMPLEXES, "carol", "")
    assert person.offer((), (), NOW).notes == (
        "no-memory-complex", "no-gpu-complex", "no-scheduling-info", "no-parallel-environment",
    )  # fmt: skip


def test_values_of_single_hosts_are_heeded() -> None:
    """A queue's slots are the most on one host; without a limit anywhere it has none."""
    text = ALL.replace("slots                 12", "slots  1,[big=64],[@small=4]")
    text = text.replace("h_rt                  96:00:00", "h_rt  1:0:0,[big=INFINITY]")
    (queue,) = read_queues(text)
    assert (queue.slots, queue.max_seconds) == (64, None)


def test_access_lists_of_queues_and_groups_count() -> None:
    """A list admits by user name or by @group; an xuser_list shuts out."""
    text = ALL.replace("user_lists            NONE", "user_lists            staff", 1)
    cell = configuration(queues=text)
    assert offer("carol", cell).partitions == ()
    members = {**cell.members, "staff": frozenset({"@people"})}
    admitting = Configuration(queues=cell.queues, members=members)
    assert [q.name for q in Person(admitting, COMPLEXES, "carol", "people").queues()] == ["all.q"]


RULES = """{
   name         a
   description  NONE
   enabled      TRUE
   limit        users {@students} queues big.q to slots=4,rmem=8G
   limit        users bob,!carol projects * to slots=10
   limit        users {*} hosts {h1} to slots=1
   limit        users {*} to slots=50, \\
                gpu=$num_proc*2
}
{
   name         off
   enabled      FALSE
   limit        to slots=0
}
"""


@pytest.mark.parametrize(
    ("user", "lists", "project", "queue", "slots"),
    [
        ("dan", {"students"}, "", "big.q", "4"),
        ("dan", {"students"}, "", "all.q", "50"),
        ("bob", set(), "rse", "all.q", "10"),
        ("bob", set(), "", "all.q", "50"),
        ("carol", set(), "rse", "all.q", "50"),
    ],
)
def test_the_first_rule_that_fits_counts(
    user: str, lists: set[str], project: str, queue: str, slots: str
) -> None:
    """Filters by user, list, project and queue; disabled sets and rules of hosts do not count."""
    (limits,) = limits_of(
        read_rules(RULES), user_name=user, lists=frozenset(lists), project=project, queue=queue
    )
    assert limits["slots"] == slots


@given(st.text(max_size=300))
def test_any_configuration_can_be_read(text: str) -> None:
    """A line that nobody knows changes nothing but what it is about."""
    read_rules(text)
    read_rules("{\nenabled TRUE\nlimit " + text + "\n}")
    assert "all.q" in {queue.name for queue in read_queues("qname all.q\n" + text)}
    for read in (read_settings, read_complexes, read_projects, read_members, read_capacities):
        assert isinstance(read(text), dict)


def test_the_overview_is_taken_apart() -> None:
    """Answers that follow each other without a mark come to their own questions."""
    found = read_overview(overview())
    assert (found.lists, found.projects) == (("allowed_rse",), ("rse",))
    assert naming(found, ["vm"]) == ["-se", "vm", "-sprj", "rse", "-su", "allowed_rse"]
    cell = configuration()
    assert len(cell.queues) == 3
    assert cell.complexes["gpu"].consumable == "YES"
    assert len(cell.rules) == 1


def test_a_cell_without_quotas_and_projects_is_one() -> None:
    """qconf then fails, and has printed the rest."""
    text = overview(rules="").stdout.removesuffix(said("qconf-sprjl").stdout)
    said_so = "No resource quota set found\nno project defined\n"
    found = read_overview(Result(status=1, stdout=text, stderr=said_so))
    assert (found.rules, found.projects) == ("", ())
    assert found.queues


def test_a_silent_qmaster_is_no_empty_cell() -> None:
    """Half an answer and none at all raise, whatever the exit status."""
    for stdout in ("", overview().stdout[:9000]):
        with pytest.raises(SpawnerTransient):
            read_overview(Result(status=0, stdout=stdout, stderr="error: unable to send"))
    with pytest.raises(SpawnerTransient):
        named_of(Result(status=1, stdout="", stderr="zz is not known as a project"))
