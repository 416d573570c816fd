"""The route table: matching, changes, and what is refused."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.proxy.table import RefusedTable, Routes, canonical, is_usable
from perijove.wire.control import Route, RouteTable

TARGET = "http://127.0.0.1:1"


class Place:
    """A backend that only remembers whether it is still in use."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self.is_retired = False

    def retire(self) -> None:
        """Note that the route is gone."""
        self.is_retired = True


def make_routes(*prefixes: str, hosts: tuple[tuple[str, str], ...] = ()) -> Routes[Place]:
    """Return a table with these prefixes, for any host and for some."""
    routes: Routes[Place] = Routes(Place)
    entries = [Route(prefix, TARGET) for prefix in prefixes]
    entries += [Route(prefix, TARGET, host=host) for host, prefix in hosts]
    routes.apply(RouteTable("one", 1, entries))
    return routes


def found(routes: Routes[Place], path: str, host: str = "h") -> str | None:
    """Return host and prefix of the route that serves `path`."""
    place = routes.find(host.encode(), path.encode())
    return None if place is None else place.route.host + place.route.prefix


@pytest.mark.parametrize(
    ("path", "prefix"),
    [
        ("/", "/"),
        ("/hub", "/"),
        ("/user/a", "/user/a/"),
        ("/user/a/", "/user/a/"),
        ("/user/a/x/y/z", "/user/a/"),
        ("/user/ab", "/"),
        ("/user/a/b", "/user/a/b/"),
        ("/user/a/b/c", "/user/a/b/"),
        ("/user/a/bc", "/user/a/"),
        ("/user", "/"),
        ("/user//a", "/"),
        ("//user/a", "/"),
        ("/User/a", "/"),
        ("/user/%61", "/user/a/"),
        ("/%75ser/a/%62", "/user/a/b/"),
        ("/user/a%2Fb", "/"),
        ("/user/a%2fb", "/"),
        ("/user/a%", "/"),
        ("/user/j%C3%A9", "/user/j%c3%a9/"),
        ("/user/%40c", "/user/@c/"),
        ("/user/d%20e/x", "/user/d%20e/"),
        ("/user/f%2fg/x", "/user/f%2Fg/"),
        ("/user/h%25/x", "/user/h%25/"),
    ],
)
def test_find_takes_the_longest_prefix_of_whole_segments(path: str, prefix: str) -> None:
    """Segments match whole, escapes match what they stand for, an escaped slash divides nothing."""
    routes = make_routes(
        "/", "/user/a/", "/user/a/b/", "/user/j%c3%a9/", "/user/@c/", "/user/d%20e/",
        "/user/f%2Fg/", "/user/h%25/",
    )  # fmt: skip
    assert found(routes, path) == prefix


def test_find_prefers_routes_of_the_host() -> None:
    """A route of the request's host comes before a longer one for any host."""
    routes = make_routes("/", "/user/a/", hosts=(("a.example.org", "/"),))
    assert found(routes, "/user/a/", "A.example.org:80") == "a.example.org/"
    assert found(routes, "/user/a/", "b.example.org") == "/user/a/"
    assert found(routes, "/x", "") == "/"


def test_find_without_a_match() -> None:
    """Without a route for everything, a path may have none."""
    assert found(make_routes("/user/a/"), "/user") is None
    assert found(Routes(Place), "/") is None


def test_find_does_not_slow_down_with_slashes() -> None:
    """A path of many slashes costs no more than its length."""
    routes = make_routes("/user/a/")

    def seconds(size: int) -> float:
        shortest = float("inf")
        for _ in range(3):
            start = time.thread_time()
            for _ in range(20):
                routes.find(b"h", b"/" * size)
                routes.find(b"h", b"/%41" * size)
            shortest = min(shortest, time.thread_time() - start)
        return shortest

    assert seconds(16_000) < 64 * seconds(1_000) + 0.01


@given(st.text("ab/%2Ff5cé .", max_size=20))
def test_canonical_is_settled(path: str) -> None:
    """The canonical form of a path has the segments of the path, and is its own."""
    raw = path.encode()
    once = canonical(raw)
    assert once.count(b"/") == raw.count(b"/")
    assert canonical(once.replace(b"%2F", b"/").replace(b"%25", b"-")).count(b"%2F") == 0


def test_apply_keeps_what_has_not_changed() -> None:
    """A backend whose route stays the same stays; others are retired."""
    routes = make_routes("/", "/user/a/", "/user/b/")
    before = {place.route.prefix: place for place in routes.backends}
    routes.apply(
        RouteTable("one", 2, [Route("/", TARGET), Route("/user/a/", "http://127.0.0.1:2")])
    )
    after = {place.route.prefix: place for place in routes.backends}
    assert after["/"] is before["/"]
    assert not before["/"].is_retired
    assert before["/user/a/"].is_retired
    assert before["/user/b/"].is_retired
    assert after.keys() == {"/", "/user/a/"}


def test_apply_a_change() -> None:
    """A table that is not full adds, replaces and removes, and leaves the rest."""
    routes = make_routes("/", "/user/a/", "/user/b/")
    change = RouteTable(
        "one", 2, [Route("/user/c/", TARGET)], removed=[("", "/user/a/")], full=False
    )
    routes.apply(change)
    assert {place.route.prefix for place in routes.backends} == {"/", "/user/b/", "/user/c/"}
    routes.apply(RouteTable("one", 3, [], full=False))
    assert routes.revision == 3
    assert len(routes) == 3


def test_apply_a_new_launch_at_the_same_port() -> None:
    """The same target for another launch is another backend: no connection is shared."""
    routes: Routes[Place] = Routes(Place)
    routes.apply(RouteTable("one", 1, [Route("/user/a/", TARGET, launch="l1")]))
    (before,) = routes.backends
    routes.apply(RouteTable("one", 2, [Route("/user/a/", TARGET, launch="l2")]))
    assert before.is_retired


@pytest.mark.parametrize("table", [RouteTable("two", 9, []), RouteTable("one", 4, [])])
def test_apply_refuses(table: RouteTable) -> None:
    """A table of another installation, or an older one, changes nothing."""
    routes = make_routes("/")
    routes.apply(RouteTable("one", 5, [], full=False))
    with pytest.raises(RefusedTable):
        routes.apply(table)
    assert (routes.installation, routes.revision, len(routes)) == ("one", 5, 1)


def test_snapshot_makes_the_same_table() -> None:
    """What a snapshot holds is the table it was made from."""
    routes = make_routes("/", "/user/a/", hosts=(("h", "/"),))
    again: Routes[Place] = Routes(Place)
    again.apply(routes.snapshot())
    assert again.snapshot() == routes.snapshot()


@pytest.mark.parametrize(
    ("prefix", "target"),
    [
        ("", TARGET),
        ("user/", TARGET),
        ("/user", TARGET),
        ("/a b/", TARGET),
        ("/é/", TARGET),
        ("//", TARGET),
        ("/", "ftp://127.0.0.1:1"),
        ("/", "http://127.0.0.1:1/path"),
        ("/", "http://user@127.0.0.1"),
        ("/", "http://"),
        ("/", "http://127.0.0.1:99999"),
        ("/", "unix:relative"),
    ],
)
def test_is_usable_refuses(prefix: str, target: str) -> None:
    """A route that cannot be matched or connected to is left out; the others are used."""
    assert not is_usable(Route(prefix, target))
    routes: Routes[Place] = Routes(Place)
    routes.apply(RouteTable("one", 1, [Route(prefix, target), Route("/ok/", TARGET)]))
    assert [place.route.prefix for place in routes.backends] == ["/ok/"]


@pytest.mark.parametrize(
    "target", ["http://[::1]:80", "https://host.example", "unix:/run/a b.sock"]
)
def test_is_usable_accepts(target: str) -> None:
    """Every form of target that the hub may name is used."""
    assert is_usable(Route("/", target))
