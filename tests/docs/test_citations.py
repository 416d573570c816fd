"""Comments cite the design and the protocol by number; who follows a number must find it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
_NUMBER = r"§(?:\d+(?:\.\d+)*|[A-D]\b)"
_CITED = {
    "reference/protocol.md": re.compile(rf"wire ({_NUMBER}(?:(?:,| to| and) {_NUMBER})*)"),
    "design/decisions.md": re.compile(r"(design decision \d+|design §\d[\d.]*\d|design §\d)"),
    "design/failures.md": re.compile(r"failure (5\.\d+)"),
}


def _sources() -> Iterator[Path]:
    for folder, pattern in (("src", "*.py"), ("tests", "*.py"), ("docs", "*.md")):
        yield from sorted((ROOT / folder).rglob(pattern))


def _can_be_found(page: str) -> set[str]:
    """Return what a page can be cited by: numbers of its headings and of its table's rows."""
    text = (DOCS / page).read_text()
    headings = re.findall(r"^#+ (?:Appendix )?(\d[\d.]*\d|\d|[A-D])\.? ", text, re.MULTILINE)
    decisions = re.findall(r"^#+ (Design decision \d+):", text, re.MULTILINE)
    rows = re.findall(r"^\| (5\.\d+) \|", text, re.MULTILINE)
    return {*headings, *(each.lower() for each in decisions), *rows}


def _cited(page: str) -> Iterator[tuple[str, str]]:
    for path in _sources():
        for found in _CITED[page].finditer(path.read_text()):
            cited = found.group(1)
            for number in re.findall(r"design decision \d+|[A-D]\b|\d+(?:\.\d+)*", cited):
                yield number, str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", sorted(_CITED))
def test_a_cited_number_is_on_its_page(page: str) -> None:
    """Whatever is cited by number has a heading, or a row, with that number."""
    there = _can_be_found(page)
    cited = list(_cited(page))
    assert cited
    assert sorted({f"{where}: {number}" for number, where in cited if number not in there}) == []


def _tests() -> Iterator[str]:
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        yield from re.findall(r"^ *(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)


def test_a_test_that_is_named_exists() -> None:
    """The page of failures names files and tests that exist; an ellipsis ends a shortened name."""
    text = (DOCS / "design/failures.md").read_text()
    tests = set(_tests())
    files = set(re.findall(r"\b\w+\.py\b", text))
    named = set(re.findall(r"\b(test_\w+)\b(?!\.py|…)", text))
    shortened = set(re.findall(r"\b(test_\w+)…", text))
    there = {path.name for folder in ("src", "tests") for path in (ROOT / folder).rglob("*.py")}
    assert files
    assert named
    assert shortened
    assert files - there == set()
    assert named - tests == set()
    assert {each for each in shortened if not any(map(re.compile(each).match, tests))} == set()
