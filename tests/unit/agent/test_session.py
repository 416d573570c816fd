"""What is news in a session, and the texts that tell it."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import perijove.agent.session as delivered
from perijove.agent import board

session = pytest.importorskip("perijove.agent.session.perijove_session")
FOLDER = Path(delivered.__file__).parent
NOW = 1_000_000.0


def _codes(journal: Any, at: float = NOW) -> list[str]:
    return [each["code"] for each in journal.news(at)]


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [
        (31, None),
        (29.5, ("time-30", 29, False)),
        (9, ("time-10", 9, False)),
        (1.5, ("time-2", 1, True)),
    ],
)
def test_the_most_urgent_warning_is_due(minutes: float, expected: Any) -> None:
    """At 30, 10 and 2 minutes there is one warning, the last of them urgent."""
    found = session.time_notices(NOW + minutes * 60, NOW)
    told = [(each["id"].rpartition("-")[0], each["minutes"], each["is_urgent"]) for each in found]
    assert told == ([] if expected is None else [expected])


def test_an_extended_session_is_warned_anew() -> None:
    """A notice's id depends on the end, which an administrator may move."""
    first, second = (session.time_notices(NOW + 500 + more, NOW)[0]["id"] for more in (0, 60))
    assert first != second


def test_memory_is_warned_about_once_for_each_level() -> None:
    """At 80 and 95 per cent there is a notice; again only after it was calm."""
    journal = session.Journal()
    for used in (50, 81, 85, 79, 82, 96, 97, 60, 83):
        journal.take({"memory": {"used": used, "limit": 100}}, NOW)
    assert [each["percent"] for each in journal.news(NOW)] == [80, 95, 80]


def test_a_kill_is_laid_at_a_kernels_door() -> None:
    """A kernel that died about when the kernel killed for memory was killed for it."""
    journal = session.Journal()
    journal.take({"kills": [NOW]}, NOW)
    assert _codes(journal) == []
    journal.note_death("k1", "big.ipynb", NOW + 3)
    journal.take({"kills": [NOW]}, NOW + 5)
    assert [(each["code"], each["name"]) for each in journal.news(NOW)] == [
        ("kernel-killed", "big.ipynb")
    ]


def test_a_kill_of_another_program_is_told_too() -> None:
    """Where no kernel died, it was some other program; a death without a kill is not ours."""
    journal = session.Journal()
    journal.note_death("k1", "a.ipynb", NOW - 500)
    journal.take({"kills": [NOW]}, NOW + 60)
    assert _codes(journal) == ["killed"]


def test_what_was_heard_is_told_once_and_not_for_ever() -> None:
    """A notice of the scheduler is news for a while."""
    journal = session.Journal()
    for _ in range(2):
        journal.take({"heard": [{"code": "ending-soon", "at": NOW}]}, NOW)
    assert _codes(journal) == ["ending-soon"]
    assert _codes(journal, NOW + 3600) == []


def test_texts_say_the_same_in_every_language() -> None:
    """Each language has every text, with the same values in it, and the code uses no other."""
    texts: Mapping[str, Mapping[str, str]] = json.loads((FOLDER / "texts.json").read_text())
    assert sorted(texts) == ["en", "es", "fr", "pt"]
    for language in texts.values():
        assert language.keys() == texts["en"].keys()
        for name, text in language.items():
            values = re.findall(r"\{(\w+)\}", text)
            assert sorted(values) == sorted(re.findall(r"\{(\w+)\}", texts["en"][name]))
    script = (FOLDER / "session.js").read_text()
    assert set(re.findall(r"texts\.(\w+)\b", script)) - {"json", "texts"} <= texts["en"].keys()


def test_memory_is_that_of_the_group_with_the_limit(tmp_path: Path) -> None:
    """Of nested control groups the one with the lowest limit counts, without its file cache."""
    job, step = tmp_path / "job", tmp_path / "job/step"
    step.mkdir(parents=True)
    (job / "memory.max").write_text("1000\n")
    (job / "memory.current").write_text("700\n")
    (job / "memory.stat").write_text("anon 500\ninactive_file 200\n")
    (step / "memory.max").write_text("max\n")
    (step / "memory.current").write_text("600\n")
    assert board.memory_usage(str(step), 5) == {"used": 500, "limit": 1000}
    assert board.memory_usage(str(tmp_path), 5)["limit"] == 5
