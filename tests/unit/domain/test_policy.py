"""Which policy decides."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from perijove.domain.policy import BUILT_IN, UNLIMITED, Policy, Rule, evaluate

TOP_DOWN = [
    Policy(name="teachers", groups=("teachers",), values={Rule.MEMORY: UNLIMITED}),
    Policy(name="students", groups=("students",), values={Rule.MEMORY: 4 * 2**30, Rule.GPU: 0}),
    Policy(name="everyone", values={Rule.MEMORY: 8 * 2**30, Rule.NAMED_SERVERS: 2, Rule.GPU: 1}),
]


def test_first_policy_that_speaks_decides() -> None:
    """A policy that says nothing about a rule leaves it to the next one."""
    limits = evaluate(TOP_DOWN, user="ann", groups={"students"})
    assert (limits.value(Rule.MEMORY), limits[Rule.MEMORY].policy) == (4 * 2**30, "students")
    assert (limits.value(Rule.NAMED_SERVERS), limits[Rule.NAMED_SERVERS].policy) == (2, "everyone")


def test_unlimited_lifts_what_a_later_policy_would_set() -> None:
    """Who stands higher up can be freed of a limit that everybody else has."""
    limits = evaluate(TOP_DOWN, user="ann", groups={"students", "teachers"})
    assert limits.value(Rule.MEMORY) is None
    assert limits[Rule.MEMORY].policy == "teachers"
    assert limits.value(Rule.GPU) == 0


def test_what_nobody_speaks_about_has_the_built_in_limit() -> None:
    """Without policies five named servers and names of thirty characters hold."""
    limits = evaluate([], user="ann", groups=set())
    assert limits.value(Rule.NAMED_SERVERS) == 5
    assert limits.value(Rule.SERVER_NAME_LENGTH) == 30
    assert limits.value(Rule.DEFAULT_SERVER) is True
    assert limits.value(Rule.CPU) is None
    assert {limit.policy for limit in limits.by_rule.values()} == {BUILT_IN}


def test_a_policy_for_one_person_is_for_nobody_else() -> None:
    """`users` names people; with no groups it is only about them."""
    policy = Policy(name="ann", groups=(), users=("ann",), values={Rule.CPU: 1})
    assert evaluate([policy], user="ann", groups={"x"}).value(Rule.CPU) == 1
    assert evaluate([policy], user="bob", groups={"ann"}).value(Rule.CPU) is None


def test_decision_names_who_was_overruled() -> None:
    """An administrator sees which policies would have decided otherwise."""
    limit = evaluate(TOP_DOWN, user="ann", groups={"students", "teachers"})[Rule.MEMORY]
    assert limit.overruled == (("students", 4 * 2**30), ("everyone", 8 * 2**30))


def test_stored_body_gives_the_policy_back() -> None:
    """Every rule is stored under its configuration key, and nothing is invented."""
    body: dict[str, Any] = {"groups": ["a"], "users": ["u"], "profiles": ["p"], "idle_timeout": 60}
    policy = Policy.from_body("x", body, id=7, revision=3)
    assert policy.values == {Rule.PROFILE: ["p"], Rule.IDLE_TIMEOUT: 60}
    assert (policy.groups, policy.users, policy.id, policy.revision) == (("a",), ("u",), 7, 3)


GROUPS = st.sampled_from(["a", "b", "c", "*"])
POLICIES = st.lists(
    st.builds(
        Policy,
        name=st.text(min_size=1, max_size=3),
        groups=st.lists(GROUPS, max_size=2).map(tuple),
        values=st.dictionaries(st.sampled_from(Rule), st.integers(0, 9) | st.just(UNLIMITED)),
    ),
    max_size=6,
)


@given(POLICIES, st.sets(GROUPS))
def test_every_rule_has_one_answer_and_its_author(policies: list[Policy], groups: set[str]) -> None:
    """Whatever the policies, each rule is decided by the first that applies and speaks."""
    limits = evaluate(policies, user="ann", groups=groups)
    assert set(limits.by_rule) == set(Rule)
    for rule, limit in limits.by_rule.items():
        speaking = [
            policy
            for policy in policies
            if rule in policy.values and policy.applies_to("ann", groups)
        ]
        assert limit.source is (speaking[0] if speaking else None)
        if speaking:
            said = speaking[0].values[rule]
            assert limit.value == (None if said == UNLIMITED else said)
