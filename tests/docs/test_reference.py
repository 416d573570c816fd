"""The documentation tells the truth: generated pages are fresh, examples work, names exist."""

import pytest

from perijove.domain.scope_names import STANDARD
from scripts import reference

PAGES = reference.pages()


@pytest.mark.parametrize("name", PAGES)
def test_a_reference_page_is_fresh(name: str) -> None:
    """A committed reference page is what the code says now; `make docs` renews it."""
    assert (reference.REFERENCE / name).read_text() == PAGES[name].text


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_left_undescribed(name: str) -> None:
    """Every setting, command, option, scope and metric says what it is for."""
    assert PAGES[name].undescribed == []


def test_no_description_is_of_something_gone() -> None:
    """Scopes are described if and only if they exist."""
    assert reference.SCOPES.keys() == set(STANDARD.names())
