"""The scope engine against the tables of the wire and the laws of its algebra."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.domain.errors import Forbidden, Invalid
from perijove.domain.scope_names import (
    INHERIT,
    SELF,
    STANDARD,
    Catalogue,
    CustomScope,
    check_role_name,
)
from perijove.domain.scopes import (
    EVERYWHERE,
    Limit,
    LimitKind,
    Members,
    Owner,
    Scope,
    Scopes,
    Verdict,
    contains,
    covers,
    decide,
    expand,
    identify,
    intersect,
    missing,
    of_token,
    parse,
    restrict,
)

ANN = Owner(user="ann")

ADMIN_ROLE = frozenset(
    {
        "admin-ui", "admin:users", "admin:servers", "admin:services", "tokens", "admin:groups",
        "list:services", "read:services", "read:hub", "proxy", "shutdown", "access:services",
        "access:servers", "read:roles", "read:metrics", "shares",
    }
)  # fmt: skip


def held(*texts: str, owner: Owner = ANN) -> Scopes:
    """Expand scopes written as text."""
    return expand(frozenset(texts), owner)


def limit(text: str) -> Limit:
    """Read ``user=ann``."""
    kind, _, value = text.partition("=")
    return Limit(LimitKind(kind), value)


# --- expansion --------------------------------------------------------------------------------


def test_self_of_a_person_is_the_list_seen_on_the_wire() -> None:
    """An ordinary user holds exactly the fifteen scopes that a real hub answers."""
    assert held(SELF).texts() == [
        f"{name}!user=ann"
        for name in (
            "access:servers", "delete:servers", "read:servers", "read:shares", "read:tokens",
            "read:users", "read:users:activity", "read:users:groups", "read:users:name",
            "read:users:shares", "servers", "start:servers", "tokens", "users:activity",
            "users:shares",
        )
    ]  # fmt: skip


def test_self_of_a_service_is_nothing() -> None:
    """The metascope of people gives a service nothing."""
    assert not held(SELF, owner=Owner(service="culler"))


def test_admin_role_holds_every_scope_everywhere() -> None:
    """The built-in admin role implies every scope of the hierarchy, unlimited."""
    everything = held(*ADMIN_ROLE)

    assert set(everything.held) == set(STANDARD.names())
    assert set(everything.held.values()) == {EVERYWHERE}


@pytest.mark.parametrize(
    ("name", "implied"),
    [
        ("users", "read:users read:users:name read:users:groups read:users:activity list:users "
                  "users:activity"),
        ("list:users", "read:users:name"),
        ("users:activity", "read:users:activity"),
        ("admin:servers", "admin:server_state servers read:servers read:users:name start:servers "
                          "delete:servers"),
        ("groups", "read:groups read:groups:name list:groups"),
        ("admin:services", "list:services read:services read:services:name read:roles:services"),
        ("read:roles", "read:roles:users read:roles:services read:roles:groups"),
        ("shares", "access:servers read:shares users:shares read:users:shares groups:shares "
                   "read:groups:shares"),
        ("read:hub", ""),
    ],
)  # fmt: skip
def test_implied_scopes_follow_the_hierarchy(name: str, implied: str) -> None:
    """A scope implies what stands below it, under the same limit, and no more."""
    assert set(held(name).held) == {name, *implied.split()}
    assert held(f"{name}!group=g").texts() == sorted(
        f"{each}!group=g" for each in {name, *implied.split()}
    )


def test_server_limit_does_not_reveal_the_user() -> None:
    """Implied read:users scopes are left out under a server limit, and only there."""
    assert held("read:servers!server=ann/x").texts() == ["read:servers!server=ann/x"]
    assert held("users:activity!server=ann/").texts() == ["users:activity!server=ann/"]
    assert held("read:users:name!server=ann/").texts() == ["read:users:name!server=ann/"]


def test_bare_limits_are_filled_by_the_owner() -> None:
    """``!user``, ``!service`` and ``!server`` mean the owner's, and nothing without one."""
    owner = Owner(user="ann", service="formgrader", server="ann/x")
    texts = frozenset({"tokens!user", "access:services!service", "access:servers!server"})

    assert expand(texts, owner).texts() == [
        "access:servers!server=ann/x",
        "access:services!service=formgrader",
        "read:tokens!user=ann",
        "tokens!user=ann",
    ]
    assert not expand(texts, Owner())


def test_unlimited_swallows_the_limited() -> None:
    """Who holds a scope everywhere holds it only so."""
    assert held("read:hub", "read:hub!user=ann").texts() == ["read:hub"]


def test_scopes_that_are_no_longer_known_allow_nothing() -> None:
    """A role may still name a custom scope that the configuration has dropped."""
    assert not held("custom:gone:now")


# --- text -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "", "all", "read:user", "users!", "users!user=", "users!group", "users!team=x",
        "users!server=ann", "self!user=ann", "inherit!user", "custom:not:there", "users !user",
        "Users",
    ],
)  # fmt: skip
def test_parse_names_what_is_wrong(text: str) -> None:
    """A scope that is none is refused with its text."""
    with pytest.raises(Invalid) as caught:
        parse(text)
    assert repr(text) in str(caught.value)


def test_custom_scopes_imply_their_own() -> None:
    """A custom scope carries its subscopes and lives beside the built-in ones."""
    catalogue = Catalogue(
        {
            "custom:lab:admin": CustomScope(description="All", subscopes=("custom:lab:read",)),
            "custom:lab:read": CustomScope(description="Read"),
        }
    )
    scopes = expand(frozenset({"custom:lab:admin!user"}), ANN, catalogue)

    assert scopes.texts() == ["custom:lab:admin!user=ann", "custom:lab:read!user=ann"]


@pytest.mark.parametrize(
    ("name", "definition"),
    [
        ("custom:ab", CustomScope(description="x")),
        ("custom:-abc", CustomScope(description="x")),
        ("custom:abc:", CustomScope(description="x")),
        ("custom:ABC", CustomScope(description="x")),
        ("lab:read", CustomScope(description="x")),
        ("custom:lab", CustomScope(description="")),
        ("custom:lab", CustomScope(description="x", subscopes=("users",))),
    ],
)
def test_custom_scopes_are_checked(name: str, definition: CustomScope) -> None:
    """A wrong name, a missing description or a foreign subscope is refused."""
    with pytest.raises(Invalid, match=name):
        Catalogue({name: definition})


@pytest.mark.parametrize("name", ["ab", "Abc", "abc-", "1ab", "a b", "a" * 256])
def test_role_names_are_checked(name: str) -> None:
    """A role's name keeps to the wire's characters and length."""
    with pytest.raises(Invalid):
        check_role_name(name)
    check_role_name("a~b.c-d_9")


# --- decision ---------------------------------------------------------------------------------

STUDENTS: Members = {"students": frozenset({"ann", "bob"})}


@pytest.mark.parametrize(
    ("outer", "inner", "expected"),
    [
        ("user=ann", "user=ann", True),
        ("user=ann", "server=ann/", True),
        ("user=ann", "server=ann/x", True),
        ("user=ann", "server=anna/x", False),
        ("user=ann", "user=bob", False),
        ("user=ann", "group=students", False),
        ("group=students", "user=bob", True),
        ("group=students", "server=bob/x", True),
        ("group=students", "user=eve", False),
        ("group=students", "group=students", True),
        ("group=none", "user=bob", False),
        ("server=ann/x", "user=ann", False),
        ("server=ann/x", "server=ann/", False),
        ("service=ann", "user=ann", False),
        ("service=s", "service=s", True),
    ],
)
def test_containment_follows_the_wire(outer: str, inner: str, expected: bool) -> None:
    """A user contains their servers, a group its members; a server contains only itself."""
    assert contains(limit(outer), limit(inner), STUDENTS) is expected


@pytest.mark.parametrize(
    ("texts", "any_of", "target", "expected"),
    [
        (["read:users"], ["read:users"], "user=bob", Verdict.ALLOWED),
        (["read:users!user=bob"], ["read:users"], "user=bob", Verdict.ALLOWED),
        (["read:users!group=students"], ["read:users"], "user=bob", Verdict.ALLOWED),
        (["servers!user=bob"], ["start:servers"], "server=bob/x", Verdict.ALLOWED),
        (["read:servers!server=bob/x"], ["read:servers"], "server=bob/x", Verdict.ALLOWED),
        (["read:hub", "users!user=ann"], ["tokens", "users"], "user=ann", Verdict.ALLOWED),
        (["read:users!user=ann"], ["read:users"], "user=bob", Verdict.NOT_FOUND),
        (["read:servers!server=bob/x"], ["read:servers"], "server=bob/", Verdict.NOT_FOUND),
        (["read:users"], ["delete:users"], "user=bob", Verdict.FORBIDDEN),
        (["admin:users!user=ann"], ["admin:users"], None, Verdict.FORBIDDEN),
        (["read:hub"], ["read:hub"], None, Verdict.ALLOWED),
        ([], ["read:hub"], None, Verdict.FORBIDDEN),
    ],
)
def test_decide_tells_allowed_hidden_and_forbidden_apart(
    texts: list[str], any_of: list[str], target: str | None, expected: Verdict
) -> None:
    """Held there: allowed; held elsewhere: not found; held nowhere: forbidden."""
    verdict = decide(held(*texts), any_of, limit(target) if target else None, STUDENTS)

    assert verdict is expected


def test_restrict_never_takes_a_foreign_limit_for_everything() -> None:
    """A list is restricted by the kinds it can select by; any other kind is refused."""
    kinds = {LimitKind.USER, LimitKind.GROUP}

    assert restrict(held("list:users"), "list:users", kinds) == EVERYWHERE
    assert restrict(held("list:users!user=b", "list:users!group=g"), "list:users", kinds) == {
        limit("user=b"),
        limit("group=g"),
    }
    for texts in (["list:users!server=b/"], ["list:users!user=b", "list:users!server=b/"], []):
        with pytest.raises(Forbidden, match=r"requires any of \[list:users\]"):
            restrict(held(*texts), "list:users", kinds)


# --- tokens -----------------------------------------------------------------------------------


def test_inherit_is_what_the_owner_has_now() -> None:
    """An inheriting token allows exactly what its owner may do."""
    owned = held(SELF, "read:hub")

    assert of_token(frozenset({INHERIT}), ANN, owned) == owned


def test_token_loses_what_its_owner_loses() -> None:
    """A token's scopes count only as far as the owner has them at the time."""
    asked = frozenset({"admin:users", "read:servers"})

    assert of_token(asked, ANN, held(SELF)).texts() == [
        "read:servers!user=ann",
        "read:users!user=ann",
        "read:users:activity!user=ann",
        "read:users:groups!user=ann",
        "read:users:name!user=ann",
        "users:activity!user=ann",
    ]
    assert not of_token(asked, ANN, Scopes())


def test_intersection_keeps_the_narrower_side_through_groups() -> None:
    """A group on either side meets its members on the other."""
    group, member = held("read:servers!group=students"), held("read:servers!server=bob/x")

    for one, other in ((group, member), (member, group)):
        assert intersect(one, other, STUDENTS).texts() == ["read:servers!server=bob/x"]
        assert not intersect(one, other)


def test_identify_names_the_owner_only() -> None:
    """Everybody may learn who they are, and nothing else comes with it."""
    assert identify(ANN).texts() == ["read:users:groups!user=ann", "read:users:name!user=ann"]
    assert identify(Owner(service="s")).texts() == ["read:services:name!service=s"]
    assert not identify(Owner())


def test_missing_lists_what_the_owner_lacks() -> None:
    """What a token asks beyond its owner's is listed by name."""
    assert missing(held("read:hub", "tokens!user"), held(SELF)) == ["read:hub"]
    assert missing(held("servers!server=ann/x"), held(SELF)) == []


# --- laws -------------------------------------------------------------------------------------

_users = st.sampled_from(["ann", "bob", "eve"])
_limits = st.none() | st.one_of(
    st.builds(Limit, st.just(LimitKind.USER), _users),
    st.builds(Limit, st.just(LimitKind.GROUP), st.sampled_from(["g", "h"])),
    st.builds(Limit, st.just(LimitKind.SERVER), st.sampled_from(["ann/", "ann/x", "bob/x"])),
    st.builds(Limit, st.just(LimitKind.SERVICE), st.sampled_from(["s", "ann"])),
)  # fmt: skip
_names = st.sampled_from(sorted(STANDARD.names()))
_texts = st.frozensets(st.builds(lambda n, f: str(Scope(n, f)), _names, _limits), max_size=6)
_scopes = st.builds(lambda texts: expand(texts, ANN), _texts)
_members = st.fixed_dictionaries({"g": st.frozensets(_users), "h": st.frozensets(_users)})


def below(small: Scopes, large: Scopes, members: Members) -> bool:
    """Tell whether everything that `small` allows is allowed by `large`."""
    return not missing(small, large, members)


@given(_limits, _limits, _limits, _members)
def test_containment_is_a_partial_order(
    a: Limit | None, b: Limit | None, c: Limit | None, members: Members
) -> None:
    """Containment is reflexive, transitive, and antisymmetric."""
    assert contains(a, a, members)
    if contains(a, b, members) and contains(b, c, members):
        assert contains(a, c, members)
    if contains(a, b, members) and contains(b, a, members):
        assert a == b


@given(_scopes, _scopes, _members)
def test_intersection_is_below_both_and_symmetric(a: Scopes, b: Scopes, members: Members) -> None:
    """What an intersection allows, each side allows; the order of the sides does not matter."""
    both = intersect(a, b, members)

    assert below(both, a, members)
    assert below(both, b, members)
    assert both == intersect(b, a, members)


@given(_scopes, _members)
def test_union_and_intersection_are_idempotent(a: Scopes, members: Members) -> None:
    """Nothing is won or lost by counting the same scopes twice."""
    assert a | a == a
    assert below(a, intersect(a, a, members), members)
    assert below(intersect(a, a, members), a, members)


@given(_scopes, _scopes, _members)
def test_union_allows_what_either_allows(a: Scopes, b: Scopes, members: Members) -> None:
    """A union lies above both sides."""
    assert below(a, a | b, members)
    assert below(b, a | b, members)


@given(_texts)
def test_expansion_is_idempotent(texts: frozenset[str]) -> None:
    """Expanding what was expanded changes nothing."""
    once = expand(texts, ANN)

    assert expand(frozenset(once.texts()), ANN) == once


@given(_texts, _names, _limits, _members)
def test_decision_agrees_with_containment(
    texts: frozenset[str], name: str, target: Limit | None, members: Members
) -> None:
    """A request is allowed exactly when some held limit contains its target."""
    scopes = expand(texts, ANN)
    verdict = decide(scopes, [name], target, members)

    assert (verdict is Verdict.ALLOWED) == covers(scopes, Scope(name, target), members)
    if not scopes.limits(name):
        assert verdict is Verdict.FORBIDDEN


@given(_texts, _texts, _members)
def test_token_never_exceeds_its_owner(
    token: frozenset[str], role: frozenset[str], members: Members
) -> None:
    """Whatever a token is given, it allows no more than its owner has."""
    owned = expand(role, ANN)

    assert below(of_token(token, ANN, owned, members=members), owned, members)


@given(st.text(max_size=30))
def test_parse_round_trips_or_refuses(text: str) -> None:
    """Any text is either a scope that prints as it was read, or refused."""
    try:
        scope = parse(text)
    except Invalid:
        return
    assert str(scope) == text
