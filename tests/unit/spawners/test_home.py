"""What a server finds around it."""

import os
import pwd
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.domain.errors import SpawnerRejected
from perijove.spawners.local.home import base_environment, find_command, make_home, safe_name

NAMES = st.text(st.characters(codec=None), max_size=300)
SIMILAR = st.text("+-./A a2FDEeé", max_size=90)


@given(NAMES)
def test_safe_name_is_one_visible_file_name(name: str) -> None:
    """Whatever a person is called, the home is one entry of a folder that every system takes."""
    safe = safe_name(name)

    assert safe.isascii()
    assert safe.isprintable()
    assert not set(safe) & set("/ \\'\"$`*?")
    assert safe[0] not in ".~"
    assert 0 < len(safe) <= 255


@given(NAMES | SIMILAR, NAMES | SIMILAR)
def test_safe_names_do_not_collide(one: str, other: str) -> None:
    """Two names share a home only if they are one name."""
    assert (safe_name(one) == safe_name(other)) == (one == other)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("ann", "ann"),
        ("ann.b_c-d@x.org", "ann.b_c-d@x.org"),
        ("A/b", "A+2Fb"),
        ("..", "+2E."),
        ("", "+-"),
        ("+2F", "+2B2F"),
    ],
)
def test_safe_name_is_documented(name: str, safe: str) -> None:
    """The names of homes never change between releases: they are part of the data."""
    assert safe_name(name) == safe


def test_long_names_differ_by_their_ends() -> None:
    """A name that is too long keeps its beginning, and what is cut off still counts."""
    one, other = safe_name("x" * 300 + "1"), safe_name("x" * 300 + "2")

    assert one.startswith("x" * 100 + "+-")
    assert one != other


def test_home_is_private_and_kept(tmp_path: Path) -> None:
    """A home is made for its owner's eyes once, and found again with what is in it."""
    home = make_home(tmp_path / "homes", "ann")
    (home / "work.ipynb").touch()

    again = make_home(tmp_path / "homes", "ann")

    assert (again / "work.ipynb").exists()
    assert home.stat().st_mode & 0o777 == 0o700
    assert home.parent.stat().st_mode & 0o777 == 0o700


def test_command_is_found_beside_python() -> None:
    """The hub's own environment comes before PATH; arguments stay as they are."""
    name = Path(sys.executable).name

    assert find_command([name, "-x", ""]) == [str(Path(sys.executable).parent / name), "-x", ""]


def test_command_is_found_in_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not beside Python is looked for in PATH."""
    program = tmp_path / "own-server"
    program.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert find_command(["own-server"]) == [str(program)]


@pytest.mark.parametrize("command", [["no-such"], ["/no/such"], ["/etc/passwd"], ["."]])
def test_missing_command_is_named(command: list[str]) -> None:
    """What is missing, or cannot be executed, is named with the places where it was looked for."""
    with pytest.raises(SpawnerRejected) as caught:
        find_command(command)

    assert caught.value.code == "command-missing"
    assert caught.value.params["command"] == command[0]
    assert caught.value.params["places"]


def test_empty_command_is_refused() -> None:
    """There is always something to run."""
    with pytest.raises(SpawnerRejected, match="empty"):
        find_command([])


def test_environment_names_an_account_that_no_table_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a bare number, as containers run, there still is a user and a shell."""
    taken = {entry.pw_uid for entry in pwd.getpwall()}
    unknown = next(uid for uid in range(70000, 80000) if uid not in taken)
    monkeypatch.setattr(os, "geteuid", lambda: unknown)

    found = base_environment(tmp_path, "/opt/bin/server")

    assert (found["USER"], found["SHELL"]) == (str(unknown), "/bin/sh")


def test_environment_finds_what_is_beside_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Terminals and kernels find the programs that came with the server's own."""
    monkeypatch.setenv("PATH", "/bin:/opt/bin")

    assert base_environment(tmp_path, "/opt/bin/server")["PATH"] == "/bin:/opt/bin"
    assert base_environment(tmp_path, "/srv/bin/server")["PATH"] == "/srv/bin:/bin:/opt/bin"
