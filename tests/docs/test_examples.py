"""What the documentation shows works: configuration, commands, targets of make."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from perijove.cli.app import app
from tests import beds

PAGES = [
    *sorted(beds.ROOT.glob("*.md")),
    *sorted(beds.ROOT.glob("docs/**/*.md")),
    beds.ROOT / "testbeds/README.md",
]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
COMMANDS: Any = typer.main.get_command(app)


def name_of(page: Path) -> str:
    """Return a page's path in the repository."""
    return str(page.relative_to(beds.ROOT))


def blocks(page: Path, language: str) -> Iterator[str]:
    """Yield the fenced blocks of a page in one language."""
    for found, text in FENCED.findall(page.read_text()):
        if found == language:
            yield text


def code(page: Path) -> Iterator[str]:
    """Yield every line of code that a page shows, in blocks and between words."""
    text = page.read_text()
    for _language, block in FENCED.findall(text):
        yield from block.splitlines()
    yield from INLINE.findall(FENCED.sub("", text))


CONFIGURATIONS = [
    pytest.param(text, id=f"{name_of(page)}-{number}")
    for page in PAGES
    for number, text in enumerate(blocks(page, "toml"))
    if "[project" not in text
]


EXAMPLES = sorted(beds.ROOT.glob("deploy/examples/*.toml"))


@pytest.mark.parametrize("file", EXAMPLES, ids=name_of)
def test_an_example_is_valid(file: Path) -> None:
    """`perijove config check` accepts every example file."""
    result = CliRunner().invoke(app, ["config", "check", "--config", str(file)])

    assert (result.exit_code, result.output.strip()) == (0, "ok")


@pytest.mark.parametrize("text", CONFIGURATIONS)
def test_a_configuration_that_is_shown_is_valid(text: str, tmp_path: Path) -> None:
    """`perijove config check` accepts every configuration that the documentation shows."""
    file = tmp_path / "perijove.toml"
    file.write_text(text.replace('token = "…"', 'token = "0123456789abcdef"'))

    result = CliRunner().invoke(app, ["config", "check", "--config", str(file)])

    assert (result.exit_code, result.output.strip()) == (0, "ok")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_command_that_is_shown_exists(page: Path) -> None:
    """Every `perijove …` that a page shows is a command there is, with its options."""
    shown = [
        words.split()
        for line in code(page)
        for words in re.findall(r"(?:^|/)perijove( +[a-z][^|;&<>#]*)", line)
    ]

    assert [words for words in shown if not is_understood(words)] == []


def is_understood(words: list[str]) -> bool:
    """Tell whether there is such a command, and whether it knows the options it is shown with."""
    command = COMMANDS
    for word in words:
        if not getattr(command, "commands", None) or word.startswith("-"):
            break
        command = command.commands.get(word)
        if command is None:
            return False
    known = {one for parameter in command.params for one in (*parameter.opts, "--help")}
    known |= {one for parameter in command.params for one in parameter.secondary_opts}
    asked = {word.partition("=")[0] for word in words if re.match("--?[a-z]", word)}
    # What a start takes besides is the profile's, and known to a running hub only.
    return command.name == "start" or asked <= known


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_target_that_is_shown_exists(page: Path) -> None:
    """Every `make …` that a page shows is a target of the Makefile."""
    makefile = (beds.ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))

    shown = {target for line in code(page) for target in re.findall(r"^make ([a-z-]+)", line)}

    assert shown - targets == set()


def test_the_readme_shows_its_two_commands() -> None:
    """A newcomer finds how to run it and how to test it."""
    lines = set(code(beds.ROOT / "README.md"))

    assert {"make run", "make test"} <= lines
