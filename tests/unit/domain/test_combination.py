"""Which choices go together on a cluster."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.domain.bounds import unavailable
from perijove.domain.combination import impossible, maintenance, rules
from perijove.domain.faults import Fault, InvalidOptions, RefusedOptions
from perijove.domain.market import Market
from perijove.domain.offer import Account, Ceiling, Offer, Partition, Reservation, Shape
from perijove.domain.options import apply, schema, still_valid
from perijove.domain.policy import Limits, Policy, evaluate
from perijove.domain.profile import Profile
from tests.fakes.offers import GIB, NOW, cluster_offer

OFFER = cluster_offer()
MARKET = Market(now=NOW, kind="slurm", offer=OFFER)
NAMES: dict[str, Any] = {
    name: {} for name in ("account", "partition", "qos", "reservation", "gpu_type", "features")
}


def profile(**fields: dict[str, Any]) -> Profile:
    """Return a profile that leaves everything open, but for these fields."""
    numbers: dict[str, Any] = {
        "cpu": {"default": 1},
        "memory": {"default": GIB},
        "time": {"default": 900},
        "gpu": {},
    }
    body = {"spawner": "slurm", "fields": {**NAMES, **numbers, **fields}}
    return Profile.from_body("batch", body, revision=1)


def limits(**values: object) -> Limits:
    """Return the limits of one policy, by configuration key."""
    return evaluate([Policy.from_body("students", values, id=1, revision=1)], user="ann", groups=())


OPEN = profile()
FREE = limits()


def faults_of(
    asked: Mapping[str, object],
    *,
    offered: Profile = OPEN,
    allowed: Limits = FREE,
    market: Market = MARKET,
) -> list[tuple[str, str]]:
    """Return field and code of what is wrong; nothing when it is accepted."""
    return [(fault.field, fault.code) for fault in _faults(asked, offered, allowed, market)]


def _faults(
    asked: Mapping[str, object], offered: Profile, allowed: Limits, market: Market
) -> list[Fault]:
    try:
        apply(offered, allowed, asked, market)
    except (InvalidOptions, RefusedOptions) as error:
        return list(error.faults)
    return []


@pytest.mark.parametrize(
    ("asked", "faults"),
    [
        ({}, []),
        ({"partition": "cpu", "cpu": 64, "time": "9 h"}, []),
        ({"partition": "gpu", "gpu": 2, "gpu_type": "a100"}, []),
        ({"partition": "gpu", "gpu": 2}, []),
        ({"partition": "gpu", "time": "3 h"}, [("time", "over-partition")]),
        ({"partition": "cpu", "gpu": 2, "gpu_type": "a100"}, [("gpu", "no-such-gpu-in")]),
        ({"gpu": 1}, [("gpu", "no-such-gpu-in")]),
        ({"partition": "gpu", "gpu": 3, "gpu_type": "a100"}, [("gpu", "no-such-gpu-in")]),
        ({"partition": "gpu", "gpu": 7, "gpu_type": "a100_1g.5gb"}, [("gpu", "over-qos")]),
        ({"partition": "gpu", "cpu": 33}, [("cpu", "over-node-in")]),
        ({"cpu": 65}, [("cpu", "over-platform")]),
        ({"memory": "512 GiB", "cpu": 64}, [("cpu", "over-node-in")]),
        ({"memory": "512 GiB", "features": ["ib"]}, [("memory", "over-node-in")]),
        ({"partition": "gpu", "features": ["ib"]}, [("features", "no-such-features-in")]),
        ({"features": ["ib", "bigmem"]}, [("features", "no-such-features-in")]),
        (
            {"partition": "gpu", "features": ["ib"], "time": "3 h"},
            [("features", "no-such-features-in"), ("time", "over-partition")],
        ),
        ({"qos": "high"}, [("qos", "qos-not-for-account")]),
        ({"qos": "high", "account": "biology"}, []),
        ({"qos": "high", "account": "biology", "time": "2 h"}, [("time", "over-qos")]),
        ({"qos": "high", "account": "biology", "cpu": 17}, [("cpu", "over-qos")]),
        ({"partition": "gpu-private", "account": "biology"}, []),
        ({"partition": "gpu-private"}, [("partition", "not-for-account")]),
        ({"partition": "closed"}, [("partition", "down-partition")]),
        ({"time": "590 min"}, []),
        ({"time": "10 h"}, [("time", "over-maintenance")]),
        ({"reservation": "course", "time": "3 h"}, [("time", "over-reservation")]),
        ({"reservation": "course", "time": "1 h"}, []),
        ({"reservation": "course", "features": ["bigmem"]}, [("features", "no-such-features-in")]),
        ({"reservation": "maint"}, [("reservation", "option-choice")]),
        ({"partition": "elsewhere"}, [("partition", "option-choice")]),
        ({"account": "-rf"}, [("account", "option-choice")]),
        ({"features": "amd"}, [("features", "option-choice")]),
        ({"features": ["amd", "amd"]}, []),
        ({"features": [["amd"]]}, [("features", "option-choice")]),
    ],
)
def test_what_goes_together(asked: dict[str, Any], faults: list[tuple[str, str]]) -> None:
    """Each impossible combination names the field to change, and possible ones pass."""
    assert faults_of(asked) == faults
    for fault in _faults(asked, OPEN, FREE, MARKET):
        assert str(fault).isprintable()
        msgspec.json.encode([fault.limit, fault.asked, dict(fault.params)])


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"partition": "gpu", "time": "3 h"}, "Time: 3 h asked, partition gpu allows at most 2 h"),
        ({"qos": "high"}, "account physics may not use QOS high"),
        ({"gpu": 2, "gpu_type": "a100", "partition": "cpu"}, "no node of cpu has 2 x a100"),
        ({"time": "10 h"}, "choose at most 9 h 55 min"),
    ],
)
def test_the_sentence_names_fact_and_limit(asked: dict[str, Any], words: str) -> None:
    """Who reads the answer knows what to ask for instead."""
    with pytest.raises(InvalidOptions, match=words):
        apply(OPEN, FREE, asked, MARKET)


def test_grid_engine_says_queue_and_project() -> None:
    """The words are those of the scheduler that people know."""
    market = replace(MARKET, kind="gridengine")
    asked = {"partition": "gpu", "time": "3 h"}
    assert faults_of(asked, market=market) == [("time", "over-queue")]
    assert faults_of({"partition": "gpu-private"}, market=market) == [
        ("partition", "not-for-project")
    ]
    described = schema(OPEN, FREE, market)["properties"]
    assert (described["partition"]["title"], described["account"]["title"]) == ("Queue", "Project")
    assert described["partition"]["x-source"] == "gridengine.queue"


def test_a_queue_that_is_only_for_projects_asks_for_one() -> None:
    """Where no project is a choice, too, a queue that needs one says so where it is chosen."""
    none = Account(name="", is_default=True, partitions=("cpu",))
    market = replace(
        MARKET, kind="gridengine", offer=replace(OFFER, accounts=(none, *OFFER.accounts))
    )
    assert faults_of({"partition": "gpu"}, market=market) == [("account", "must-name-project")]
    assert faults_of({"partition": "cpu"}, market=market) == []


def test_what_is_left_to_the_scheduler_is_judged_by_what_it_takes() -> None:
    """Where no partition is asked for, the default one's limits hold."""
    slow = replace(OFFER.partitions[0], max_seconds=600)
    market = replace(MARKET, offer=replace(OFFER, partitions=(slow, *OFFER.partitions[1:])))
    assert faults_of({"time": 900}, market=market) == [("time", "over-partition")]
    assert faults_of({"time": 900, "partition": "gpu"}, market=market) == []


def test_an_account_that_must_be_named_is() -> None:
    """Where the scheduler refuses nameless requests, the form leaves no such choice."""
    market = replace(MARKET, offer=replace(OFFER, must_name_account=True))
    assert apply(OPEN, FREE, {}, market).options["account"] == "physics"
    assert faults_of({"account": ""}, market=market) == [("account", "option-choice")]
    silent = Profile.from_body("batch", {"spawner": "slurm"}, revision=1)
    assert apply(silent, FREE, {}, market).options["account"] == "physics"


def test_the_most_is_that_of_the_biggest_node_of_the_partitions_offered() -> None:
    """A profile for one partition shows what its nodes have, not what the cluster has."""
    described = schema(profile(partition={"choices": ["gpu"]}), FREE, MARKET)["properties"]
    assert (described["cpu"]["maximum"], described["memory"]["maximum"]) == (32, 128 * GIB)
    assert described["time"]["maximum"] == 7200
    assert described["gpu_type"]["enum"] == ["", "a100", "a100_1g.5gb"]
    assert schema(OPEN, FREE, MARKET)["properties"]["memory"]["maximum"] == 1024 * GIB
    assert described["cpu"]["x-source"] == "slurm.cpu"
    assert described["cpu"]["x-as-of"] == "2026-11-20T09:59:40.000000Z"


def test_a_fixed_name_the_platform_does_not_have_makes_the_profile_unavailable() -> None:
    """A card says why it cannot be chosen before anybody fills it in."""
    lost = profile(partition={"default": "old", "locked": True})
    refusal = unavailable(lost, FREE, MARKET)
    assert refusal is not None
    assert refusal.field == "partition"
    assert "needs old" in str(refusal)
    assert unavailable(lost, FREE, Market(now=NOW, kind="slurm")) is None


def test_a_profile_too_large_for_the_platform_is_unavailable() -> None:
    """Nobody waits for a node that does not exist."""
    huge = profile(cpu={"default": 500, "locked": True})
    refusal = unavailable(huge, FREE, MARKET)
    assert refusal is not None
    assert (refusal.field, refusal.limit, refusal.asked) == ("cpu", 64, 500)


def test_a_locked_field_cannot_be_asked_for_otherwise() -> None:
    """Fixed account, partition and features take their own value and no other."""
    fixed = profile(
        account={"default": "biology", "locked": True},
        features={"default": ["amd"], "locked": True},
    )
    choice = apply(fixed, FREE, {"account": "biology", "features": ["amd"]}, MARKET)
    assert (choice.options["account"], choice.options["features"]) == ("biology", ["amd"])
    assert faults_of({"account": "physics", "features": []}, offered=fixed) == [
        ("account", "option-locked"),
        ("features", "option-locked"),
    ]


def test_a_policy_holds_for_names_that_nobody_chose() -> None:
    """Left to the scheduler, the partition could be one that a policy forbids: so it is asked."""
    allowed = limits(partitions=["gpu"], accounts=["biology"])
    silent = Profile.from_body("batch", {"spawner": "slurm"}, revision=1)
    for offered in (silent, profile()):
        options = apply(offered, allowed, {}, MARKET).options
        assert (options["partition"], options["account"]) == ("gpu", "biology")
    with pytest.raises(InvalidOptions):
        apply(OPEN, allowed, {"partition": "cpu"}, MARKET)
    nothing = limits(partitions=["elsewhere"])
    assert unavailable(OPEN, nothing, MARKET) is not None


def test_a_policy_on_types_of_gpu_is_not_evaded_by_naming_none() -> None:
    """Who may only have slices gets a slice, also where no type is asked for."""
    allowed = limits(gpu_types=["a100_1g.5gb"])
    asked = {"partition": "gpu", "gpu": 1}
    assert apply(OPEN, allowed, asked, MARKET).options["gpu_type"] == "a100_1g.5gb"
    assert faults_of({**asked, "gpu_type": "a100"}, allowed=allowed) == [
        ("gpu_type", "option-choice")
    ]
    none = limits(gpu_types=["h100"])
    assert faults_of(asked, allowed=none) == [("gpu_type", "refused-option")]


def test_a_limit_that_nobody_asked_for_is_lowered_to_what_is_possible() -> None:
    """A policy of 24 h does not make a start in a partition of 2 h impossible."""
    silent = profile(time={})
    choice = apply(silent, limits(time=86400), {"partition": "gpu"}, MARKET)
    assert choice.resources.time_seconds == 7200


def test_without_gpus_there_is_no_type() -> None:
    """A type that stands in the form without a number of GPUs asks for nothing."""
    assert "gpu_type" not in apply(OPEN, FREE, {"gpu_type": "a100", "gpu": 0}, MARKET).options


def test_shares_of_a_gpu_are_no_gpus() -> None:
    """Forty shares of one GPU are not forty GPUs, and are only had by their own name."""
    shared = Shape(
        nodes=("s1",),
        partitions=("cpu",),
        cpus=64,
        memory_bytes=64 * GIB,
        gpus={"t4": 1, "shard:t4": 40},
    )
    market = replace(MARKET, offer=replace(OFFER, shapes=(shared,)))
    assert faults_of({"gpu": 2}, market=market) == [("gpu", "no-such-gpu-in")]
    assert faults_of({"gpu": 20, "gpu_type": "shard:t4"}, market=market) == []
    assert faults_of({"gpu": 41, "gpu_type": "shard:t4"}, market=market) == [
        ("gpu", "over-platform")
    ]


def test_names_left_to_the_scheduler_are_remembered_but_not_sent() -> None:
    """An empty choice is a choice: the form shows it again, the scheduler never sees it."""
    choice = apply(OPEN, FREE, {"partition": "", "account": "physics"}, MARKET)
    assert choice.asked == {"partition": "", "account": "physics"}
    assert "partition" not in choice.options


def test_what_became_impossible_is_dropped_with_what_it_goes_with() -> None:
    """A remembered choice that no longer fits together never makes the next start fail."""
    remembered = {"partition": "gpu", "gpu": 2, "gpu_type": "a100", "time": 7200}
    assert still_valid(OPEN, FREE, remembered, MARKET) == remembered
    without = replace(OFFER, shapes=OFFER.shapes[:2], partitions=OFFER.partitions[:1])
    market = replace(MARKET, offer=without)
    kept = still_valid(OPEN, FREE, remembered, market)
    assert kept == {"time": 7200}
    assert faults_of(kept, market=market) == []


def test_a_platform_that_never_answered_leaves_the_profile_s_own_bounds() -> None:
    """Nothing is guessed: a name is the profile's, or one for the scheduler to judge."""
    unknown = Market(now=NOW, kind="slurm", silent_since=NOW)
    some = profile(partition={"choices": ["cpu", "gpu"]}, account={"default": "physics"})
    described = schema(some, FREE, unknown)
    assert described["properties"]["partition"]["enum"] == ["cpu", "gpu"]
    assert described["properties"]["account"]["examples"] == ["", "physics"]
    assert described["properties"]["qos"]["examples"] == [""]
    assert described["x-silent-since"] == "2026-11-20T10:00:00.000000Z"
    assert faults_of({"partition": "gpu", "gpu": 4}, offered=some, market=unknown) == []
    assert faults_of({"qos": "high"}, offered=some, market=unknown) == []
    check = jsonschema.Draft202012Validator(described)
    for text in ("--wrap", "a b", "high\n", "x" * 129, "$(id)"):
        assert faults_of({"qos": text}, offered=some, market=unknown)
        assert not check.is_valid({"qos": text})
    assert faults_of({"partition": "other"}, offered=some, market=unknown)
    few = limits(accounts=["physics"])
    assert faults_of({"account": "other"}, offered=some, allowed=few, market=unknown)


def test_names_that_could_be_taken_for_options_are_never_offered() -> None:
    """Whatever a scheduler lists, nothing with a dash in front or a space is passed on."""
    accounts = (Account(name="--wrap"), Account(name="a b"), Account(name="ok"), Account(name=""))
    market = replace(MARKET, offer=replace(OFFER, accounts=accounts))
    assert market.names("account") == ("ok",)


def test_maintenance_that_has_begun_or_leaves_no_time_is_no_fault() -> None:
    """A request during maintenance waits for its end; the form says so."""
    for begins in (timedelta(hours=-1), timedelta(minutes=3)):
        coming = Reservation(
            name="maint",
            starts_at=NOW + begins,
            ends_at=NOW + timedelta(hours=5),
            is_maintenance=True,
        )
        market = replace(MARKET, offer=replace(OFFER, reservations=(coming,)))
        assert faults_of({"time": "4 h"}, market=market) == []
        assert maintenance(market, timedelta(days=1)) == coming


def test_maintenance_of_other_nodes_is_no_fault() -> None:
    """As long as one suitable node goes on, so does the session."""
    part = replace(OFFER.reservations[1], nodes=("c00", "c01"))
    market = replace(MARKET, offer=replace(OFFER, reservations=(part,)))
    assert faults_of({"time": "20 h"}, market=market) == []
    assert faults_of({"time": "20 h", "features": ["bigmem"]}, market=market) == []
    big = replace(part, nodes=("c90",))
    market = replace(MARKET, offer=replace(OFFER, reservations=(big,)))
    assert faults_of({"time": "20 h", "features": ["bigmem"]}, market=market) == [
        ("time", "over-maintenance")
    ]


def test_one_row_of_an_account_for_each_partition() -> None:
    """The row for the partition asked for decides, where the scheduler has several."""
    rows = (
        Account(name="lab", is_default=True, partitions=("cpu",), max_seconds=600),
        Account(name="lab", is_default=True, partitions=("gpu",), max_seconds=6000),
    )
    market = replace(MARKET, offer=replace(OFFER, accounts=rows, qos=()))
    assert faults_of({"partition": "gpu", "time": 3600}, market=market) == []
    assert faults_of({"partition": "cpu", "time": 3600}, market=market) == [
        ("time", "over-account")
    ]


# --- any cluster, any request -----------------------------------------------------------------

WORDS = st.sampled_from(["a", "b", "c"])
SOME = st.lists(WORDS, unique=True, max_size=3).map(tuple)
SECONDS = st.none() | st.integers(60, 40_000)
CEILINGS = st.builds(
    Ceiling,
    cpus=st.none() | st.integers(1, 16),
    memory_bytes=st.none() | st.integers(1, 16).map(lambda n: n * GIB),
    gpus=st.none() | st.integers(0, 4),
)
OFFERS = st.builds(
    Offer,
    as_of=st.just(NOW),
    accounts=st.lists(
        st.builds(
            Account,
            name=WORDS,
            is_default=st.booleans(),
            qos=SOME,
            partitions=SOME,
            max_seconds=SECONDS,
            per_job=CEILINGS,
        ),
        max_size=3,
    ).map(tuple),
    partitions=st.lists(
        st.builds(
            Partition,
            name=WORDS,
            is_default=st.booleans(),
            is_up=st.booleans(),
            max_seconds=SECONDS,
            accounts=st.none() | SOME,
            denied_qos=SOME,
            per_job=CEILINGS,
        ),
        unique_by=lambda each: each.name,
        max_size=3,
    ).map(tuple),
    shapes=st.lists(
        st.builds(
            Shape,
            nodes=st.sampled_from([("n1",), ("n2", "n3"), ()]),
            partitions=SOME,
            cpus=st.integers(1, 32),
            memory_bytes=st.integers(1, 32).map(lambda n: n * GIB),
            gpus=st.dictionaries(st.sampled_from(["", "a100", "shard:t4"]), st.integers(0, 4)),
            features=SOME.map(frozenset),
        ),
        max_size=4,
    ).map(tuple),
    reservations=st.lists(
        st.builds(
            Reservation,
            name=WORDS,
            starts_at=st.integers(-3, 9).map(lambda h: NOW + timedelta(hours=h)),
            ends_at=st.integers(1, 12).map(lambda h: NOW + timedelta(hours=h)),
            nodes=st.sampled_from([(), ("n1",), ("n2", "n3")]),
            is_maintenance=st.booleans(),
            is_usable=st.booleans(),
        ),
        max_size=2,
    ).map(tuple),
    must_name_account=st.booleans(),
)
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "account": WORDS | st.just(""),
        "partition": WORDS | st.just(""),
        "qos": WORDS | st.just(""),
        "reservation": WORDS | st.just(""),
        "cpu": st.integers(1, 33),
        "memory": st.integers(1, 33).map(lambda n: n * GIB),
        "time": st.integers(1, 600).map(lambda n: n * 60),
        "gpu": st.integers(0, 5),
        "gpu_type": st.sampled_from(["", "a100", "shard:t4", "h100"]),
        "features": st.lists(WORDS, unique=True, max_size=2),
    },
)


@given(OFFERS, REQUESTS)
def test_whatever_passes_fits_some_node_and_obeys_every_rule(
    offer: Offer, asked: dict[str, Any]
) -> None:
    """No accepted request is one that no node could run, or that the published rules forbid."""
    market = Market(now=NOW, kind="slurm", offer=offer)
    if faults := _faults(asked, OPEN, FREE, market):
        msgspec.json.encode([[each.limit, each.asked, dict(each.params)] for each in faults])
        return
    options = apply(OPEN, FREE, asked, market).options
    place = options.get("partition") or market.preferred("partition")
    if not market.names("partition"):
        place = ""  # Of none is known that it is open: what is named, the scheduler itself judges.
    if offer.shapes:
        assert any(_fits(shape, options, place) for shape in offer.shapes)
    for rule in rules(market):
        [(field, value)] = rule["when"].items()
        if options.get(field) == value:
            for name, limit in rule["then"].items():
                assert _obeys(options.get(name), limit), (rule, name)


def _fits(shape: Shape, options: Mapping[str, Any], place: str) -> bool:
    count, kind = options.get("gpu", 0), options.get("gpu_type")
    return (
        bool(shape.nodes)
        and (not place or place in shape.partitions)
        and options["cpu"] <= shape.cpus
        and options["memory"] <= shape.memory_bytes
        and count <= (shape.gpus.get(kind, 0) if kind else _whole_gpus(shape))
        and set(options.get("features", ())) <= shape.features
    )


def _whole_gpus(shape: Shape) -> int:
    return sum(count for kind, count in shape.gpus.items() if not kind.startswith("shard"))


def _obeys(value: Any, limit: Mapping[str, Any]) -> bool:
    if value is None:
        return True
    if "maximum" in limit:
        return bool(value <= limit["maximum"])
    return set(value if isinstance(value, list) else [value]) <= set(limit["enum"])


@given(OFFERS, REQUESTS)
def test_the_schema_accepts_what_the_check_accepts(offer: Offer, asked: dict[str, Any]) -> None:
    """Field by field the published schema and the check agree; together the check is stricter."""
    market = Market(now=NOW, kind="slurm", offer=offer)
    if unavailable(OPEN, FREE, market):
        return
    described = schema(OPEN, FREE, market)
    jsonschema.Draft202012Validator.check_schema(described)
    valid = jsonschema.Draft202012Validator(described).is_valid(asked)
    faults = faults_of(asked, market=market)
    single = {"option-choice", "over-platform", "option-too-large", "option-too-small"}
    assert valid == single.isdisjoint(code for _, code in faults)


@given(OFFERS, REQUESTS)
def test_what_is_still_valid_can_be_started_or_nothing_can(
    offer: Offer, remembered: dict[str, Any]
) -> None:
    """What is left of an earlier choice fails only where a start without any choice fails too."""
    market = Market(now=NOW, kind="slurm", offer=offer)
    kept = still_valid(OPEN, FREE, remembered, market)
    if faults_of(kept, market=market):
        assert faults_of({}, market=market)


@given(OFFERS, REQUESTS)
def test_a_fault_names_a_limit_that_would_do(offer: Offer, asked: dict[str, Any]) -> None:
    """Who follows what a fault about a number says, is not told the same again."""
    market = Market(now=NOW, kind="slurm", offer=offer)
    values: dict[str, Any] = {
        name: Fraction(value) if isinstance(value, int) else value for name, value in asked.items()
    }
    values["features"] = tuple(asked.get("features", ()))
    for fault in impossible(market, "batch", values):
        if isinstance(fault.limit, int) and fault.code.startswith("over-"):
            less = {**values, fault.field: Fraction(fault.limit)}
            again = impossible(market, "batch", less)
            assert fault.field not in {each.field for each in again}
