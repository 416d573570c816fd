"""What pages show, made of plain values: states, cards, steps, colours, devices."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.db.events import Event
from perijove.domain.errors import ConfigError
from perijove.domain.launch import Cause, End, Kind, Launch, Status, Wanted
from perijove.domain.profile import Profile
from perijove.services.overview import Owner, Shown
from perijove.services.profiles import Offer
from perijove.web.pages.cards import summary
from perijove.web.pages.colours import contrast, site_css
from perijove.web.pages.suggest import suggest
from perijove.web.pages.tokens import device_of
from perijove.web.pages.views import Links, chips_of, state_of, with_query
from perijove.web.pages.waiting import steps_of, tell
from perijove.web.texts import Catalogues

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
EN = Catalogues().get("en")
ANN = Owner(id=1, name="ann", admin=False, last_activity=None)


def make_launch(**given: Any) -> Launch:
    """Return a launch of ann's default server, on its way."""
    values: dict[str, Any] = {
        "id": "lch_1",
        "kind": Kind.SERVER,
        "wanted": Wanted.RUN,
        "status": Status.STARTING,
        "name": "pj-1",
        "spawner": "local",
        "user_id": 1,
        "user_name": "ann",
        "server_id": 1,
        "server_name": "",
        "generation": 1,
        "spec": {"profile": {"name": "small"}, "resources": {"cpu": 2, "memory_bytes": 2**32}},
        "requested_at": NOON,
    }
    return Launch(**values | given)


def make_event(code: str, seq: int = 1, actor: str = "hub", **params: Any) -> Event:
    """Return an event of the launch."""
    at = NOON + timedelta(seconds=seq)
    return Event(launch_id="lch_1", seq=seq, at=at, code=code, params=params, actor=actor)


def make_shown(launch: Launch | None, name: str = "") -> Shown:
    """Return a server with this launch."""
    return Shown(owner=ANN, name=name, display_name=name, last_activity=None, launch=launch)


def test_every_status_looks_like_something() -> None:
    """A state is a word and a drawing; colour only repeats them."""
    for status in Status:
        state = state_of(EN, make_launch(status=status))
        assert state.word
        assert state.icon
        assert state.tone
    assert state_of(EN, None).word == "Not running"


def test_what_was_asked_for_is_shown_with_units() -> None:
    """Each resource is a chip; what the platform decides is none."""
    texts = [chip.text.replace("\xa0", " ") for chip in chips_of(EN, {"cpu": 1, "gpu": 0})]
    assert texts == ["1 core"]
    everything = {"cpu": 4, "memory_bytes": 2**34, "gpu": 2, "time_seconds": 10800}
    texts = [chip.text.replace("\xa0", " ") for chip in chips_of(EN, everything)]
    assert texts == ["4 cores", "16 GiB", "2 GPUs", "3 h"]


def test_the_steps_tell_what_was_what_is_and_what_comes() -> None:
    """On the way up the list ends with the steps still ahead."""
    launch = make_launch()
    events = [make_event("requested"), make_event("submitted", 2), make_event("starting", 3)]
    steps = steps_of(EN, launch, events)
    assert [step.kind for step in steps] == ["done", "now", "later", "later"]
    assert steps[1].text == "Starting"


def test_a_launch_without_events_still_has_a_step() -> None:
    """Events are kept for a while only; the page must not be empty without them."""
    steps = steps_of(EN, make_launch(status=Status.REQUESTED), [])
    assert steps[0].kind == "now"


def test_the_last_step_of_a_failure_is_marked() -> None:
    """A bad end is a fault; an end by choice is not."""
    events = [make_event("requested"), make_event("ended", 2)]
    over = {"status": Status.ENDED, "wanted": Wanted.END, "ended_at": NOON}
    bad = make_launch(end=End(cause=Cause.OUT_OF_MEMORY), **over)
    good = make_launch(end=End(cause=Cause.USER), **over)
    assert steps_of(EN, bad, events)[-1].kind == "fault"
    assert steps_of(EN, good, events)[-1].kind == "done"


@pytest.mark.parametrize(
    ("actor", "cause", "said"),
    [
        ("hub", Cause.IDLE, "this site"),
        ("bob", Cause.ADMIN, "bob"),
        (None, Cause.USER, "nobody here: it ended by itself or from outside"),
        ("hub", Cause.SIGNAL, "nobody here: it ended by itself or from outside"),
    ],
)
def test_the_page_says_on_whose_behalf_it_ended(actor: str | None, cause: Cause, said: str) -> None:
    """The one who asked for the end is named; nobody is if it was only seen."""
    events = [make_event("requested", actor="ann")]
    if actor:
        events.append(make_event("end-wanted", 2, actor=actor))
    launch = make_launch(
        status=Status.ENDED, wanted=Wanted.END, end=End(cause=cause), ended_at=NOON
    )
    told = tell(EN, make_shown(launch), launch, events, log="", line=None, settings=None, titles={})
    assert {fact.label: fact.text for fact in told.facts}["Ended by"] == said


def test_a_log_in_the_evidence_is_shown_as_a_log() -> None:
    """Several lines are a log; one line is the platform's own words."""
    end = End(cause=Cause.EXITED, code=1, detail="Traceback\nImportError")
    launch = make_launch(status=Status.ENDED, wanted=Wanted.END, end=end, ended_at=NOON)
    shown = make_shown(launch)
    told = tell(EN, shown, launch, [], log="", line=None, settings=None, titles={})
    assert (told.words, told.log) == ("", "Traceback\nImportError")
    launch = replace(launch, end=replace(end, detail="no such image"))
    told = tell(EN, shown, launch, [], log="", line=None, settings=None, titles={})
    assert (told.words, told.log) == ("no such image", "")


def test_a_place_in_line_is_told() -> None:
    """Who waits on the hub's own limit knows how many are before them."""
    launch = make_launch(status=Status.REQUESTED)
    told = tell(EN, make_shown(launch), launch, [], log="", line=(3, 7), settings=None, titles={})
    assert "number 3 of 7" in told.why.text


def test_the_summary_counts_what_is_live() -> None:
    """What has ended uses nothing."""
    over = make_launch(status=Status.ENDED, end=End(cause=Cause.USER), ended_at=NOON)
    facts = summary(
        EN, [make_shown(make_launch()), make_shown(over, "b"), make_shown(None, "c")], 5
    )
    told = {fact.label: fact.text.replace("\xa0", " ") for fact in facts}
    assert told == {
        "Running or starting": "1",
        "Cores": "2",
        "Memory": "4 GiB",
        "Named servers": "2 of 5",
    }


def test_links_are_encoded_and_stay_below_the_base_path() -> None:
    """A name is data in a URL, whatever it holds."""
    links = Links("/jupyter/", "o'brien@x.org", "a b")
    assert links.wait == "/jupyter/hub/spawn-pending/o%27brien@x.org/a%20b"
    assert links.act("stop").startswith("/jupyter/hub/server/stop/")
    assert with_query(links.spawn, next="/a?b=c&d", empty="").endswith("?next=%2Fa%3Fb%3Dc%26d")


@given(st.from_regex(r"#[0-9a-f]{6}", fullmatch=True))
def test_any_colour_of_a_site_can_be_read(colour: str) -> None:
    """Whatever an administrator chooses, text in it has contrast in both themes."""
    css = site_css([colour])
    light, dark = css.split("light-dark(")[1].split(")")[0].split(", ")
    assert contrast(parse(light), (0.93, 0.945, 0.96)) >= 4.5
    assert contrast(parse(dark), (0.12, 0.17, 0.22)) >= 4.5


def parse(colour: str) -> tuple[float, float, float]:
    """Return the parts of ``#rrggbb``."""
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return red, green, blue


def test_a_colour_that_is_none_is_refused() -> None:
    """A slip in the configuration is named, not ignored."""
    with pytest.raises(ConfigError, match="blue-ish"):
        site_css(["blue-ish"])


@pytest.mark.parametrize(
    ("agent", "device"),
    [
        (
            "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            "Firefox, Linux",
        ),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X) Version/17 Safari/605.1", "Safari, macOS"),
        ("curl/8.5.0", "curl"),
        ("", ""),
    ],
)
def test_a_device_is_told_shortly(agent: str, device: str) -> None:
    """People recognise their browser by its name, not by its header."""
    assert device_of(agent) == device


def make_offer(**memory: Any) -> Offer:
    """Return the profile `small` with memory to choose as described."""
    profile = Profile(name="small", spawner="local")
    described = {"type": "integer", "x-form": {"unit": "GiB", "factor": 2**30}, **memory}
    return Offer(profile=profile, schema={"properties": {"memory": described}}, refusal=None)


def make_starved(cause: Cause = Cause.OUT_OF_MEMORY, code: int | None = None) -> Launch:
    """Return a launch that ended with 4 GiB."""
    end = End(cause=cause, code=code)
    return make_launch(status=Status.ENDED, wanted=Wanted.END, end=end, ended_at=NOON)


def test_more_memory_is_suggested_where_it_was_lacking() -> None:
    """Twice as much is offered, as a link that fills in the form."""
    offer = make_offer(minimum=2**30, maximum=2**36)
    for launch in (make_starved(), make_starved(Cause.SIGNAL, 9)):
        found = suggest(EN, launch, [offer], "/hub/spawn/ann")
        assert found is not None
        assert found.text.replace("\xa0", " ") == "Start with 8 GiB"
        assert found.url == "/hub/spawn/ann?form=1&opt-profile=small&opt-memory=8"


@pytest.mark.parametrize(
    ("launch", "memory"),
    [
        (make_starved(Cause.IDLE), {"minimum": 1, "maximum": 2**36}),
        (make_starved(Cause.SIGNAL, 15), {"minimum": 1, "maximum": 2**36}),
        (make_starved(), {"minimum": 1, "maximum": 2**32}),
        (make_starved(), {"readOnly": True, "minimum": 2**32, "maximum": 2**32}),
        (make_launch(), {"minimum": 1, "maximum": 2**36}),
    ],
)
def test_nothing_is_suggested_that_would_not_help(
    launch: Launch, memory: Mapping[str, Any]
) -> None:
    """No suggestion where memory was not the trouble, or no more of it can be had."""
    assert suggest(EN, launch, [make_offer(**memory)], "/hub/spawn/ann") is None


def test_a_suggestion_takes_the_next_of_the_choices() -> None:
    """Where memory is chosen from a list, the suggestion is on the list."""
    offer = make_offer(minimum=2**32, maximum=2**35, enum=[2**32, 2**35])
    found = suggest(EN, make_starved(), [offer], "/s")
    assert found is not None
    assert found.url.endswith("opt-memory=32")
