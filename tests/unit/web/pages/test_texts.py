"""The words: complete in every language, for every code that can be shown."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from babel.messages.catalog import Message

from perijove.agent.cannot import EXITS
from perijove.domain import reasons as domain
from perijove.domain.errors import Conflict, HubError, Refused, SpawnerRejected
from perijove.domain.faults import SENTENCES, Fault
from perijove.domain.launch import Cause, Clock, End, Reason, Status
from perijove.domain.policy import Rule
from perijove.domain.profile import FIELDS
from perijove.web.texts import LANGUAGES, PSEUDO, SOURCE, Catalogues, Texts, reasons, sentences
from perijove.web.texts.__main__ import collect, key, load, missing, update
from perijove.web.texts.options import FAULTS, fault_said
from perijove.web.texts.scopes import SCOPES, scope_said

SOURCES = Path(sentences.__file__).parents[2]
TRANSLATED = sorted(set(LANGUAGES) - {SOURCE})
FIELD = re.compile(r"{(\w+)}")
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
PLACEHOLDER = re.compile(r"%\(\w+\)s|%%")
NEVER_ON_A_PAGE = {
    # Errors of the API alone, of the machinery, or of the start of the hub.
    "admin-only",
    "bad-platform-name",
    "local-shared-account-refused",
    "not-a-server",
    "not-registered",
    "not-registering",
    "options-type",
    "profile-type",
    "role-name",
    "role-unknown",
    "scope-name",
    "scope-missing",
    "server-active",
    "server-exists",
    "user-exists",
    "volume-measured",
}
ALL = Catalogues()


@pytest.fixture(params=[*LANGUAGES, PSEUDO])
def texts(request: pytest.FixtureRequest) -> Texts:
    """Give the texts of each language in turn."""
    return ALL.get(request.param)


def forms_of(message: Message) -> list[str]:
    """Return a message's forms in its own language."""
    strings = message.string
    return [str(each) for each in strings] if isinstance(strings, (list, tuple)) else [str(strings)]


def sources_of(message: Message) -> list[str]:
    """Return a message's forms in English."""
    return list(message.id) if isinstance(message.id, (list, tuple)) else [message.id]


@pytest.mark.parametrize("language", TRANSLATED)
def test_a_catalogue_is_complete_and_in_step_with_the_code(language: str) -> None:
    """Every message of code and templates is translated, and no other is kept."""
    fresh = update(language, collect())
    assert {key(each) for each in load(language)} == {key(each) for each in fresh}
    assert [message.id for message in missing(fresh)] == []


@pytest.mark.parametrize("language", TRANSLATED)
def test_a_translation_fills_in_what_the_source_fills_in(language: str) -> None:
    """A translation has the placeholders of its source, each of them, and no markup at all."""
    for message in load(language):
        if not message.id:
            continue
        wanted = set(PLACEHOLDER.findall(sources_of(message)[-1]))
        for form in forms_of(message):
            assert set(PLACEHOLDER.findall(form)) == wanted, message.id
            assert not re.search(r'[<>"&]', form), message.id


@pytest.mark.parametrize("language", TRANSLATED)
def test_a_translation_differs_from_its_source(language: str) -> None:
    """No sentence was left in English."""
    same = [
        message.id
        for message in load(language)
        if isinstance(message.id, str)
        and len(message.id.split()) > 3
        and message.string == message.id
    ]
    assert same == []


def test_no_translation_is_that_of_another_language() -> None:
    """A sentence reads the same in two languages only if somebody copied it."""
    told: dict[str, str] = {}
    for language in TRANSLATED:
        for message in load(language):
            for form in forms_of(message) if message.id else ():
                if len(PLACEHOLDER.sub("", form).split()) > 4:
                    assert told.setdefault(form, language) == language, form


def test_french_keeps_its_signs_with_their_words() -> None:
    """No line of French begins with a colon: a space that does not break stands before it."""
    for message in load("fr"):
        for form in forms_of(message) if message.id else ():
            assert not re.search(r"« | (?:[:;?!»]|%%)|\S[;?!»]", form), form
            assert "'" not in form


def test_every_state_has_a_word_and_a_reason(texts: Texts) -> None:
    """Whatever is seen of a launch, the page has a word for it and a sentence."""
    for status in Status:
        assert sentences.state_word(texts, status)
        assert sentences.why(texts, status, None).text
        assert sentences.why(texts, status, Reason(code="of-a-newer-hub")).text


def test_every_cause_of_an_end_has_a_sentence(texts: Texts) -> None:
    """Whatever ended a launch, the page says so, with the code filled in."""
    for cause in Cause:
        said = sentences.end(texts, End(cause=cause, code=137))
        assert said.text
        assert "%(" not in said.text + said.advice
    assert "137" in sentences.end(texts, End(cause=Cause.EXITED, code=137)).text


@pytest.mark.parametrize("clock", list(Clock))
def test_every_clock_names_its_limit_and_the_old_id(clock: Clock) -> None:
    """A start that took too long says which limit it was, and keeps the id people search for."""
    end = End(cause=Cause.NEVER_STARTED, reason=f"{clock}-clock")
    said = sentences.end(ALL.get("en"), end, limit_seconds=300)
    assert "5\N{NO-BREAK SPACE}min" in said.text
    assert said.code == "spawn-timeout"


def test_an_end_by_choice_is_no_fault() -> None:
    """Shutting down from within JupyterLab is told as what it is."""
    said = sentences.end(ALL.get("en"), End(cause=Cause.EXITED, code=0))
    assert said.text == "It was shut down from within."


def test_every_rule_has_a_refusal(texts: Texts) -> None:
    """A refusal names limit and asked for each rule that admission can refuse by."""
    unlimited = {Rule.IDLE_TIMEOUT, Rule.MAX_AGE, Rule.QUEUE_LIMIT, Rule.QUEUE_UNANSWERED}
    lessening = {Rule.STORAGE, Rule.STORAGE_KEPT}
    assert set(sentences.REFUSALS) == set(Rule) - unlimited - lessening
    for rule in sentences.REFUSALS:
        said = sentences.error(texts, Refused("no", rule=str(rule), limit=5, asked=7, policy="p"))
        assert "%(" not in said.text + said.advice
        assert "p" in said.advice


def test_a_refusal_writes_its_numbers_with_their_unit() -> None:
    """Memory is told in GiB, not in bytes."""
    refused = Refused("no", rule="memory", limit=4 * 2**30, asked=2**34)
    text = sentences.error(ALL.get("fr"), refused).text
    assert "16\N{NO-BREAK SPACE}Gio" in text
    assert "4\N{NO-BREAK SPACE}Gio" in text


def test_every_fault_of_an_option_has_a_sentence(texts: Texts) -> None:
    """What is wrong with an option is said for each code the domain has."""
    assert set(FAULTS) == set(SENTENCES)
    for code, english in SENTENCES.items():
        params = dict.fromkeys(["policy", *FIELD.findall(english)], "p")
        if "starts" in params:
            params["starts"] = NOON.isoformat()
        fault = Fault(field="memory", code=code, limit=2**30, asked=2**31, params=params)
        assert "%(" not in fault_said(texts, fault)


def codes_in_source(pattern: str) -> set[str]:
    """Return what a pattern captures anywhere in the program but for the API's own answers."""
    return {
        code
        for path in SOURCES.rglob("*.py")
        if not path.is_relative_to(SOURCES / "web/api")
        for code in re.findall(pattern, path.read_text(), flags=re.DOTALL)
    }


def test_every_code_an_error_carries_has_a_sentence() -> None:
    """A code written anywhere in the program is in the catalogue, or never reaches a page."""
    raised = codes_in_source(
        r"(?:NotFound|Conflict|Forbidden|Throttled|Invalid|SpawnerError)\("
        r"(?:[^()]|\([^()]*\))*?code=\"([a-z-]+)\""
    )
    assert len(raised) > 10
    known = sentences.ERRORS.keys() | reasons.CANNOT.keys() | NEVER_ON_A_PAGE
    assert raised - known == set()


def test_every_class_of_error_has_a_sentence() -> None:
    """An error without a code of its own is told by its class."""
    classes: list[type[HubError]] = [HubError, *HubError.__subclasses__()]
    shown = {each.code for each in classes if each.__module__.startswith("perijove.domain")}
    assert shown - sentences.ERRORS.keys() - {"lease-lost"} == set()


def test_every_event_that_is_recorded_has_a_sentence() -> None:
    """What the reconciler writes down can be read."""
    recorded = codes_in_source(r"record\(\s*connection,\s*[\w.]+,\s*\"([a-z-]+)\"")
    recorded |= codes_in_source(r"event=\"([a-z-]+)\"")
    assert len(recorded) > 5
    untold = {"end-wanted", "request", "reason", "usage"}  # told by the page itself
    assert recorded - sentences.EVENTS.keys() - untold == set()


def test_every_reason_the_hub_gives_has_a_sentence() -> None:
    """Why a launch waits on us, and why it never started, are in the catalogue."""
    waits = codes_in_source(r"Reason\(\s*code=\"([a-z-]+)\"")
    assert waits - reasons.WAITING.keys() == set()
    never = codes_in_source(r"NEVER_STARTED, reason=\"([a-z-]+)\"")
    assert never - reasons.CANNOT.keys() - {"null"} == set()


def test_the_catalogue_of_reasons_is_large_and_complete(texts: Texts) -> None:
    """Every code of every reason has a sentence and an advice in every language."""
    assert reasons.WAITING.keys() == domain.WAITING.keys()
    assert reasons.CANNOT.keys() == domain.CANNOT.keys()
    assert set(domain.ENDS) == set(Cause) == sentences.CAUSES.keys()
    assert len(domain.WAITING) + len(domain.CANNOT) + len(domain.ENDS) >= 60
    for code in domain.WAITING:
        said = sentences.why(texts, Status.QUEUED, Reason(code=code))
        assert said.text, code
        assert said.advice, code
        assert said.code == code
    for code in domain.CANNOT:
        said = sentences.end(texts, End(cause=Cause.NEVER_STARTED, reason=code))
        assert said.text, code
        assert said.advice, code
    for cause, sentence in sentences.CAUSES.items():
        assert sentence.advice, cause


def test_a_reason_is_told_as_precisely_as_its_params_allow(texts: Texts) -> None:
    """What a platform did not tell is never shown as a question mark where there is a choice."""
    full = {"percent": 43, "server": "lab", "node": "n7"}
    for code, choices in reasons.PRECISE.items():
        for params in ({}, dict.fromkeys(full, ""), {"node": "n7"}, {"server": "lab"}):
            told = sentences.why(texts, Status.QUEUED, Reason(code=code, params=params))
            assert not set("?%(") & set(told.text)
        precise = sentences.why(texts, Status.QUEUED, Reason(code=code, params=full))
        assert precise == sentences.say(texts, choices[0], full, code)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"server": "lab", "node": "n7"}, ["lab", "n7"]),
        ({"server": "lab"}, ["lab"]),
        ({"server": ""}, ["Default server"]),
    ],
)
def test_own_server_that_holds_storage_is_named(
    texts: Texts, params: dict[str, str], said: list[str]
) -> None:
    """Which of one's own servers to stop is said also where its machine is not known."""
    told = sentences.why(texts, Status.QUEUED, Reason(code="volume-held", params=params)).text

    assert all(texts.gettext(word) in told or word in told for word in said)


def test_every_reason_a_scheduler_or_a_job_gives_is_in_the_catalogue() -> None:
    """What drivers make of a scheduler's words, and what a job reports, can be told."""
    drivers = codes_in_source(r"\(rf?[\"'][^\n]*?[\"'], \"([a-z]+(?:-[a-z]+)*)\"[,)]")
    drivers -= set(FIELDS)
    assert len(drivers) > 25
    assert drivers - reasons.WAITING.keys() - reasons.CANNOT.keys() == set()
    assert EXITS.keys() - reasons.CANNOT.keys() == set()


def test_what_can_never_start_is_told_as_why_it_did_not() -> None:
    """A request that was ended because it could never start says which limit it was."""
    end = End(cause=Cause.NEVER_STARTED, reason="over-time-limit")
    said = sentences.end(ALL.get("en"), end)
    assert "would never start" in said.text
    assert said.code == "never-started(over-time-limit)"
    assert domain.of_end(end).field == "time"


def test_an_error_of_a_spawner_with_a_known_reason_is_told_by_it() -> None:
    """What a driver refuses with a code of the catalogue is said in a person's language."""
    said = sentences.error(ALL.get("fr"), SpawnerRejected("no", code="invalid-account"))
    assert "compte" in said.text


def test_an_error_of_a_plug_in_keeps_its_own_words() -> None:
    """An unknown code shows the error's English rather than nothing."""
    said = sentences.error(ALL.get("fr"), Conflict("the moon is in the way", code="moon"))
    assert said.text == "the moon is in the way"


def test_a_scope_is_said_in_plain_words() -> None:
    """A scope with a filter reads as the one without."""
    assert scope_said(ALL.get("en"), "servers!user=ann") == SCOPES["servers"]
    assert scope_said(ALL.get("en"), "proxy") == ""


@pytest.mark.parametrize(
    ("language", "size", "written"),
    [
        ("en", 16 * 2**30, "16 GiB"),
        ("fr", 16 * 2**30, "16 Gio"),
        ("fr", 3 * 2**29, "1,5 Gio"),
        ("es", 512 * 2**20, "512 MiB"),
        ("en", 4 * 10**9, "4 GB"),
        ("pt", 100, "100 B"),
    ],
)
def test_sizes_are_written_as_people_read_them(language: str, size: int, written: str) -> None:
    """The largest unit that fits, in the language's own sign and decimal point."""
    assert ALL.get(language).size(size).replace("\N{NO-BREAK SPACE}", " ") == written


@pytest.mark.parametrize(
    ("language", "seconds", "written"),
    [
        ("en", 0, "0 s"),
        ("en", 7500, "2 h 5 min"),
        ("en", 3600, "1 h"),
        ("fr", 90061, "1 j 1 h"),
        ("es", 59.6, "1 min"),
    ],
)
def test_durations_are_written_with_two_units(language: str, seconds: float, written: str) -> None:
    """Two units at most, none of them zero but for nothing at all."""
    assert ALL.get(language).duration(seconds).replace("\N{NO-BREAK SPACE}", " ") == written


@pytest.mark.parametrize(
    ("language", "count", "written"),
    [
        ("en", 1, "1 core"),
        ("en", 0.5, "0.5 cores"),
        ("fr", 0.5, "0,5 cœur"),
        ("es", 4, "4 núcleos"),
    ],
)
def test_counts_take_the_form_of_the_language(language: str, count: float, written: str) -> None:
    """Half a core is several in English and one in French."""
    assert ALL.get(language).cores(count) == written


def test_an_instant_of_another_day_shows_the_day() -> None:
    """Only today's times stand alone."""
    now = datetime(2026, 11, 20, 12, tzinfo=UTC)
    assert ALL.get("fr").when(now.replace(hour=9, minute=5), now) == "09:05"
    assert ALL.get("fr").when(now.replace(day=1), now) == "1 nov., 12:00"
    assert "2025" in ALL.get("en").when(now.replace(year=2025), now)


@pytest.mark.parametrize(
    ("wishes", "header", "language"),
    [
        (("fr", ""), "es", "fr"),
        (("tlh", ""), "pt-BR,pt;q=0.9,en;q=0.8", "pt"),
        (("",), "de, es;q=0.5, fr;q=0.9", "fr"),
        (("",), "de", "en"),
        (("",), "fr;q=0, es;q=nonsense", "en"),
        (("",), "xx", "en"),
        (("xx",), "", "xx"),
    ],
)
def test_the_language_is_the_one_wished_for(
    wishes: tuple[str, ...], header: str, language: str
) -> None:
    """A choice comes before the browser, and English is what is left."""
    assert ALL.choose(*wishes, accept_language=header).language == language


def test_the_pseudo_language_keeps_what_must_be_kept() -> None:
    """Placeholders come through its accents, or nothing could be filled in."""
    assert ALL.get(PSEUDO).gettext("%(left)s left", left="1 h") == "⟦1 h léft⟧"


def test_an_administrators_text_is_chosen_by_language() -> None:
    """A title falls back to English, then to any, then to the name."""
    french = ALL.get("fr")
    assert french.choose({"en": "Small", "fr": "Petit"}) == "Petit"
    assert french.choose({"en": "Small"}) == "Small"
    assert french.choose({"es": "Pequeño"}) == "Pequeño"
    assert french.choose({}, fallback="small") == "small"
