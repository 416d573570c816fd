"""What pages show, made of plain values: states, cards, steps, colours, devices."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.db.events import Event
from perijove.domain.errors import ConfigError
from perijove.domain.launch import Cause, End, Kind, Launch, Reason, Status, Wanted
from perijove.domain.offer import OwnJob
from perijove.domain.options import schema
from perijove.domain.policy import evaluate
from perijove.domain.profile import Profile
from perijove.domain.sooner import Outlook
from perijove.services.offers import ProfileSection
from perijove.services.overview import Owner, Shown
from perijove.services.profiles import Offer
from perijove.services.waits import Around, Room, Usual
from perijove.web.pages.cards import summary
from perijove.web.pages.colours import contrast, site_css
from perijove.web.pages.left import time_left
from perijove.web.pages.platform import free_said
from perijove.web.pages.suggest import may_help, suggest
from perijove.web.pages.tokens import device_of
from perijove.web.pages.views import Fact, Links, chips_of, launch_chips, state_of, with_query
from perijove.web.pages.waiting import Seen, is_impossible, steps_of, tell
from perijove.web.texts import Catalogues
from perijove.web.texts.sentences import evidence

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


def make_seen(launch: Launch, **given: Any) -> Seen:
    """Return what a launch's page is made of, an hour after noon."""
    given = {"now": NOON + timedelta(hours=1), **given}
    return Seen(launch=launch, base_path="/", **given)


def facts_of(launch: Launch, **given: Any) -> dict[str, Fact]:
    """Return the facts on a launch's page by their labels."""
    told = tell(EN, make_shown(launch), make_seen(launch, **given))
    return {fact.label: fact for fact in told.facts}


def test_every_status_looks_like_something() -> None:
    """A state is a word and a drawing; colour only repeats them."""
    for status in Status:
        state = state_of(EN, make_launch(status=status))
        assert state.word
        assert state.icon
        assert state.tone
    assert state_of(EN, None).word == "Not running"


@pytest.mark.parametrize("status", [each for each in Status if each is not Status.ENDED])
def test_what_is_to_end_is_shown_as_stopping(status: Status) -> None:
    """Who stopped it sees so at once, before the hub has begun to; what has ended stays ended."""
    assert state_of(EN, make_launch(status=status, wanted=Wanted.END)).word == "Stopping"
    ended = make_launch(status=Status.ENDED, wanted=Wanted.END)
    assert state_of(EN, ended) == state_of(EN, replace(ended, wanted=Wanted.RUN))


def test_what_was_asked_for_is_shown_with_units() -> None:
    """Each resource is a chip; what the platform decides is none."""
    texts = [chip.text.replace("\xa0", " ") for chip in chips_of(EN, {"cpu": 1, "gpu": 0})]
    assert texts == ["1 core"]
    everything = {"cpu": 4, "memory_bytes": 2**34, "gpu": 2, "time_seconds": 10800}
    texts = [chip.text.replace("\xa0", " ") for chip in chips_of(EN, everything)]
    assert texts == ["4 cores", "16 GiB", "2 GPUs", "3 h"]


def test_the_type_of_the_gpus_is_on_their_chip() -> None:
    """Two of one type are another thing than two of any; who asked for none has no chip."""
    asked = make_launch(spec={"resources": {"gpu": 2}, "options": {"gpu_type": "a100"}})
    assert [chip.text for chip in launch_chips(EN, asked)] == ["2 × A100"]
    none = make_launch(spec={"resources": {"gpu": 0}, "options": {"gpu_type": "a100"}})
    assert launch_chips(EN, none) == launch_chips(EN, None) == []


@pytest.mark.parametrize(
    ("end", "seen", "codes"),
    [
        (
            End(cause=Cause.CANCELLED_OUTSIDE),
            "cancelled with the tools of the computing system",
            ("cancelled-outside",),
        ),
        (End(cause=Cause.EXITED, code=3), "its program ended with exit code 3", ("exited(3)",)),
    ],
)
def test_the_evidence_of_an_end_is_in_words(end: End, seen: str, codes: Sequence[str]) -> None:
    """What it is called in the reference stands with what one sends to an administrator."""
    launch = make_launch(status=Status.ENDED, end=end, ended_at=NOON)
    told = tell(EN, make_shown(launch), make_seen(launch))
    assert facts_of(launch)["Evidence"].text == seen
    assert tuple(told.codes[:1]) == codes
    assert told.diagnostic == launch.id


def test_every_end_has_words_for_its_evidence() -> None:
    """Whatever an end was, something is said; a number that is not known is a question mark."""
    said = {evidence(EN, End(cause=cause)) for cause in Cause}
    assert len(said) == len(Cause)
    assert evidence(EN, End(cause=Cause.SIGNAL)).endswith("?")


def test_numbers_of_what_is_free_agree_with_it() -> None:
    """One core is free, two are; in French and its like also in the adjective."""
    french = Catalogues().get("fr")
    for count, said in ((0, "libre"), (1, "libre"), (2, "libres")):
        assert f"{count} {said} sur 8" in free_said(french, "a100", count, 8)


@pytest.mark.parametrize(("several", "silent"), [(False, ""), (True, "local")])
def test_who_is_silent_is_named_among_several(*, several: bool, silent: str) -> None:
    """Where only one can be silent its name would say nothing."""
    launch = make_launch(status=Status.QUEUED)
    around = Around(silent_since=NOON)
    told = tell(EN, make_shown(launch), make_seen(launch, around=around, is_one_of_several=several))
    assert (told.silent, told.silent_since) == (silent, NOON)


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
    told = tell(EN, make_shown(launch), make_seen(launch, events=events))
    assert {fact.label: fact.text for fact in told.facts}["Ended by"] == said


def test_a_log_in_the_evidence_is_shown_as_a_log() -> None:
    """Several lines are a log; one line is the platform's own words."""
    end = End(cause=Cause.EXITED, code=1, detail="Traceback\nImportError")
    launch = make_launch(status=Status.ENDED, wanted=Wanted.END, end=end, ended_at=NOON)
    shown = make_shown(launch)
    told = tell(EN, shown, make_seen(launch))
    assert (told.words, told.log) == ("", "Traceback\nImportError")
    launch = replace(launch, end=replace(end, detail="no such image"))
    told = tell(EN, shown, make_seen(launch))
    assert (told.words, told.log) == ("no such image", "")


def test_a_place_in_line_is_told() -> None:
    """Who waits on the hub's own limit knows how many are before them."""
    launch = make_launch(status=Status.REQUESTED)
    told = tell(EN, make_shown(launch), make_seen(launch, line=(3, 7)))
    assert "number 3 of 7" in told.why.text


def test_a_forecast_is_never_shown_without_its_age() -> None:
    """There is no estimate, or one with when it was made; a past one is no promise."""
    assert facts_of(make_launch(status=Status.QUEUED))["Expected start"].text == "no estimate yet"
    made = {"status": Status.QUEUED, "estimated_at": NOON + timedelta(minutes=58)}
    coming = make_launch(expected_start=NOON + timedelta(hours=2), **made)
    fact = facts_of(coming)["Expected start"]
    assert (fact.about, fact.as_of) == (coming.expected_start, coming.estimated_at)
    due = make_launch(expected_start=NOON + timedelta(minutes=59), **made)
    fact = facts_of(due)["Expected start"]
    assert (fact.text, fact.about) == ("any moment", None)
    assert fact.as_of == due.estimated_at


def test_what_surrounds_a_wait_is_told() -> None:
    """How long so far, how long it usually takes, what is free, who else is in the way."""
    around = Around(
        silent_since=NOON,
        usual=Usual(seconds=290, count=12),
        room=Room(
            as_of=NOON, cpus=12, of_cpus=64, gpus=1, of_gpus=4, most_cpus=8, most_memory=2**35
        ),
        own_jobs=[OwnJob(id="4711", name="train", state="running", cpus=8, gpus=1)],
        own_servers=[make_shown(make_launch(status=Status.READY), "Mine")],
    )
    launch = make_launch(status=Status.QUEUED)
    told = tell(EN, make_shown(launch), make_seen(launch, around=around))
    texts = {fact.label: fact.text.replace("\xa0", " ") for fact in told.facts}
    assert texts["Waiting for"] == "1 h"
    assert texts["Usual wait"] == "typically 5 min (median of 12 similar starts in 14 d)"
    assert texts["Free now"] == (
        "12 of 64 cores · 1 of 4 GPUs · 8 cores and 32 GiB on the freest node"
    )
    assert told.silent_since == NOON
    assert [job.name for job in told.jobs] == ["4711 train"]
    assert told.jobs[0].stop_url == ""
    assert told.others[0].stop_url == "/hub/server/stop/ann/Mine"


def test_the_question_is_asked_while_it_waits_and_only_then() -> None:
    """The limit of the queue asks; it does not kill, and it does not ask what has begun."""
    asked = {"queue_asked_at": NOON, "queued_at": NOON}
    waits = make_launch(status=Status.QUEUED, **asked)
    told = tell(EN, make_shown(waits), make_seen(waits))
    assert told.question is not None
    assert "1\xa0h" in told.question.text
    begun = make_launch(status=Status.STARTING, **asked)
    assert tell(EN, make_shown(begun), make_seen(begun)).question is None
    ends = make_launch(status=Status.QUEUED, wanted=Wanted.END, **asked)
    assert tell(EN, make_shown(ends), make_seen(ends)).question is None


@pytest.mark.parametrize(
    ("code", "given", "may"),
    [
        ("held-by-user", {"status": Status.HELD}, True),
        ("held-by-user", {"status": Status.QUEUED}, False),
        ("held-by-user", {"status": Status.STARTING}, False),
        ("held-by-user", {"status": Status.HELD, "wanted": Wanted.END}, False),
        ("held-by-admin", {"status": Status.HELD}, False),
        ("held-by-system", {"status": Status.HELD}, False),
    ],
)
def test_only_what_its_owner_holds_may_be_released(
    code: str, given: Mapping[str, Any], may: bool
) -> None:
    """The button is there where pressing it can help."""
    launch = make_launch(reason=Reason(code=code), queued_at=NOON, **given)
    assert tell(EN, make_shown(launch), make_seen(launch)).may_release is may


@pytest.mark.parametrize(
    ("cause", "reason", "impossible"),
    [
        (Cause.NEVER_STARTED, "over-time-limit", True),
        (Cause.NEVER_STARTED, "bad-constraints", True),
        (Cause.NEVER_STARTED, "start-clock", False),
        (Cause.NEVER_STARTED, "cancelled", False),
        (Cause.WALLTIME, "", False),
    ],
)
def test_what_could_never_start_leads_back_to_the_form(
    cause: Cause, reason: str, impossible: bool
) -> None:
    """Trying the same again is offered only where it could end otherwise."""
    end = End(cause=cause, reason=reason)
    launch = make_launch(status=Status.ENDED, wanted=Wanted.END, end=end, ended_at=NOON)
    assert is_impossible(launch) is impossible


@pytest.mark.parametrize(
    ("hours", "minutes_left", "level"),
    [(3, 31, 0), (3, 30, 1), (3, 10, 2), (3, 1, 3), (0.25, 14, 0), (0.25, 9, 1)],
)
def test_a_warning_comes_when_little_time_is_left(
    hours: float, minutes_left: float, level: int
) -> None:
    """Thirty, ten and two minutes before its end; never for what it had from the start."""
    spec = {"resources": {"time_seconds": hours * 3600}}
    launch = make_launch(status=Status.READY, spec=spec, starting_at=NOON, ready_at=NOON)
    now = NOON + timedelta(hours=hours) - timedelta(minutes=minutes_left)
    left = time_left(EN, launch, now)
    assert left is not None
    assert left.level == level
    assert bool(left.warning) is left.low is (level > 0)


def test_what_the_platform_says_of_the_end_counts() -> None:
    """An end that the scheduler has put off is the one that is shown."""
    launch = make_launch(
        status=Status.READY,
        spec={"resources": {"time_seconds": 3600}},
        starting_at=NOON,
        ready_at=NOON,
        ends_at=NOON + timedelta(hours=2),
    )
    left = time_left(EN, launch, NOON + timedelta(hours=1))
    assert left is not None
    assert left.text.replace("\xa0", " ") == "1 h left of 2 h"
    assert time_left(EN, replace(launch, wanted=Wanted.END), NOON) is None


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


def test_more_time_is_suggested_where_it_was_over() -> None:
    """After the wall time the form comes with twice as much, as far as that is allowed."""
    described = {"minimum": 60, "maximum": 5400, "x-form": {"unit": "h", "factor": 3600}}
    offer = Offer(
        profile=Profile(name="small", spawner="local"),
        schema={"properties": {"time": described}},
        refusal=None,
    )
    launch = make_starved(Cause.WALLTIME)
    spec = {**launch.spec, "resources": {"time_seconds": 3600}}
    found = suggest(EN, replace(launch, spec=spec), [offer], "/s")
    assert found is not None
    assert found.text.replace("\xa0", " ") == "Start with 1 h 30 min"
    assert found.url == "/s?form=1&opt-profile=small&opt-time=1.5"


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


def test_a_suggestion_takes_the_next_bigger_size() -> None:
    """Where a choice of the profile's own sets the memory, the next bigger one is suggested."""
    sizes = {
        name: {"set": {"memory": f"{size} GiB"}}
        for name, size in {"large": 16, "medium": 8, "small": 4}.items()
    }
    section = ProfileSection.model_validate(
        {"name": "small", "choices": {"size": {"options": sizes}}}
    )
    profile = Profile.from_body("small", section.body("local"), revision=1)
    limits = evaluate([], user="ann", groups=())
    offer = Offer(profile=profile, schema=schema(profile, limits), refusal=None)
    found = suggest(EN, make_starved(), [offer], "/s")
    assert found is not None
    assert found.text.replace("\xa0", " ") == "Start with 8 GiB"
    assert found.url.endswith("opt-profile=small&opt-size=medium")


def make_waiting(code: str, **options: Any) -> Launch:
    """Return a launch that waits for a reason."""
    spec = {"profile": {"name": "small"}, "options": options}
    return make_launch(status=Status.QUEUED, reason=Reason(code=code), spec=spec)


def make_number(**described: Any) -> dict[str, Any]:
    """Return how a number is described in a form."""
    return {"type": "integer", "minimum": 1, "maximum": 64, **described}


@pytest.mark.parametrize(
    ("cpu", "asks"),
    [
        (make_number(), "9"),
        (make_number(multipleOf=4), "8"),
        (make_number(enum=[2, 6, 12]), "6"),
        (make_number(maximum=7), "7"),
        (make_number(minimum=10), None),
        (make_number(enum=[12, 24]), None),
        (make_number(readOnly=True), None),
        ({}, None),
    ],
)
def test_a_smaller_request_is_one_that_may_be_made(cpu: dict[str, Any], asks: str | None) -> None:
    """What is free is cut to what the form takes; nothing is suggested that it would refuse."""
    offer = Offer(
        profile=Profile(name="small", spawner="local"),
        schema={"properties": {"cpu": cpu}},
        refusal=None,
    )
    seen = Outlook(fits_now={"cpu": Fraction(9)})
    found = suggest(EN, make_waiting("resources", cpu=16), [offer], "/s", seen)
    assert (found.url if found else None) == (
        f"/s?form=1&opt-profile=small&opt-cpu={asks}" if asks else None
    )
    assert suggest(EN, make_waiting("max-cpus", cpu=16), [offer], "/s", seen) is None


@pytest.mark.parametrize(
    ("described", "is_helped"),
    [
        ({"type": "string", "enum": ["", "course"]}, True),
        ({"type": "string", "pattern": ".*"}, True),
        ({"type": "string", "enum": ["course"]}, False),
        ({"type": "string", "enum": ["course"], "readOnly": True}, False),
    ],
)
def test_a_reservation_is_left_out_where_it_may_be(
    described: dict[str, Any], is_helped: bool
) -> None:
    """While it waits for it, and after it could not start because there is none any more."""
    offer = Offer(
        profile=Profile(name="small", spawner="local"),
        schema={"properties": {"reservation": described}},
        refusal=None,
    )
    waits = make_waiting("reservation", reservation="course")
    end = End(cause=Cause.NEVER_STARTED, reason="reservation-gone")
    for launch in (
        waits,
        replace(waits, status=Status.ENDED, wanted=Wanted.END, end=end, ended_at=NOON),
    ):
        assert may_help(launch)
        found = suggest(EN, launch, [offer], "/s")
        assert (found is not None) is is_helped
        assert found is None or found.url == "/s?form=1&opt-profile=small&opt-reservation="
    assert suggest(EN, make_waiting("reservation"), [offer], "/s") is None
