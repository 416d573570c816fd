"""The installation's keys: where they may be, what they derive, and what is never said."""

import base64
import threading
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from perijove.kit.keyring import VARIABLE, Keyring, KeyringError, load_keyring, parse_keyring

OLD = base64.b64encode(b"o" * 32).decode()
NEW = base64.b64encode(b"n" * 32).decode()
RING = Keyring({"old": b"o" * 32, "new": b"n" * 32})
PARTS = st.lists(st.text(max_size=8), max_size=4)


def test_a_keyring_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    """The first run makes a key, every later one finds it."""
    path = tmp_path / "keyring"
    made = load_keyring(path, {})

    assert path.stat().st_mode & 0o777 == 0o600
    assert load_keyring(path, {}) == made
    assert len(made.keys) == 1
    assert len(made.keys[made.newest]) == 32


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_keyring_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    """A key that somebody else may have read is no secret."""
    path = tmp_path / "keyring"
    load_keyring(path, {})
    path.chmod(mode)

    with pytest.raises(KeyringError, match=f"mode {mode:o}"):
        load_keyring(path, {})


def test_programs_that_start_at_once_have_one_keyring(tmp_path: Path) -> None:
    """Whoever comes first makes it; nobody sees half of it, and nothing else is left."""
    path = tmp_path / "keyring"
    found: list[Keyring] = []
    threads = [
        threading.Thread(target=lambda: found.append(load_keyring(path, {}))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [load_keyring(path, {})] * 8
    assert [each.name for each in tmp_path.iterdir()] == ["keyring"]


def test_the_environment_takes_the_place_of_the_file(tmp_path: Path) -> None:
    """Several hubs on several machines share one text, and nothing is written."""
    ring = load_keyring(tmp_path / "keyring", {VARIABLE: f"old {OLD};new {NEW}"})

    assert ring == RING
    assert list(tmp_path.iterdir()) == []


def test_the_newest_key_makes_and_all_keys_check() -> None:
    """While keys are exchanged, what the old one made can still be made again."""
    ring = parse_keyring(f"# two keys\nold {OLD}\n\nnew {NEW}\n")

    assert ring == RING
    assert ring.newest == "new"
    assert ring.derive("x") == ring.derive("x", key_id="new")
    assert ring.derive("x", key_id="old") == Keyring({"old": b"o" * 32}).derive("x")
    assert ring.derive("x", key_id="old") != ring.derive("x")


@given(one=PARTS, other=PARTS)
def test_different_parts_give_different_bytes(one: list[str], other: list[str]) -> None:
    """No way of cutting one text into parts is like another."""
    assume(one != other)
    assert RING.derive("p", *one) != RING.derive("p", *other)


@given(text=st.text(min_size=1, max_size=6), cut=st.integers(0, 5))
def test_a_purpose_is_no_part(text: str, cut: int) -> None:
    """What is derived for one purpose is never what is derived for another."""
    assert RING.derive(text) != RING.derive(text[:cut], text[cut:])


def test_a_server_token_belongs_to_one_launch_and_generation() -> None:
    """Any replica makes the same one again, and no other launch has it."""
    token = RING.server_token("lch_a", 1)

    assert token == RING.server_token("lch_a", 1)
    assert len(token) == 32
    assert len({token, RING.server_token("lch_a", 2), RING.server_token("lch_a1", 1)}) == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no key"),
        ("# nothing\n\n", "no key"),
        ("k hush!!", "line 1 of the keyring is not base64"),
        (f"a {OLD}\nb {base64.b64encode(b'hush').decode()}", "line 2 of the keyring has 4 bytes"),
        ("k", "line 1 of the keyring has 0 bytes"),
        (f"k {OLD}\nk {NEW}", "line 2 of the keyring has the id of another"),
    ],
)
def test_a_faulty_keyring_is_refused_without_showing_it(text: str, says: str) -> None:
    """The message says which line is wrong, and nothing that stands there."""
    with pytest.raises(KeyringError, match=says) as refused:
        parse_keyring(text)

    assert "hush" not in str(refused.value)
    assert "aHVzaA" not in str(refused.value)
