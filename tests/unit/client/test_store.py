"""Tokens on the disk, and to whom they are sent."""

from pathlib import Path

import pytest

from perijove.client.errors import BadValue, ClientError, NotSignedIn
from perijove.client.store import Access, Credential, Store, access

HUB = "https://hub.example.org/"
OTHER = "https://other.example.org/base/"
ANN = Credential(token="secret-of-ann", user="ann")
BOB = Credential(token="secret-of-bob", user="bob")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Give a store in an empty home."""
    return Store.of({"XDG_CONFIG_HOME": str(tmp_path / "config")})


def test_a_token_is_for_its_owner_alone(store: Store) -> None:
    """The file and its directory are closed to others, whatever the umask was."""
    store.path.parent.mkdir(parents=True, mode=0o755)
    store.remember(HUB, ANN)
    assert store.path.stat().st_mode & 0o777 == 0o600
    assert store.path.parent.stat().st_mode & 0o777 == 0o700
    assert [each.name for each in store.path.parent.iterdir()] == ["credentials.json"]
    assert "secret" not in repr(store.read())


def test_a_file_that_others_can_read_is_not_used(store: Store) -> None:
    """What is in it may be known; the message says what to do."""
    store.remember(HUB, ANN)
    store.path.chmod(0o640)
    with pytest.raises(ClientError, match="others can read it") as fault:
        access(store, {}, None)
    assert "chmod 600" in fault.value.hint


def test_a_broken_file_is_said(store: Store) -> None:
    """It is not taken for an empty one, which would lose the other hubs."""
    store.remember(HUB, ANN)
    store.path.write_text("{")
    with pytest.raises(ClientError, match="cannot be read"):
        store.remember(OTHER, BOB)


def test_the_last_hub_is_meant_when_none_is_named(store: Store) -> None:
    """Any other one by its address, however it is written."""
    store.remember(HUB, ANN)
    store.remember(OTHER, BOB)
    assert access(store, {}, None) == Access(url=OTHER, token=BOB.token, user="bob")
    assert access(store, {}, "hub.example.org/hub/home").token == ANN.token
    assert access(store, {"PERIJOVE_URL": HUB}, None).token == ANN.token


def test_a_forgotten_hub_needs_a_new_token(store: Store) -> None:
    """Another one that is kept takes its place."""
    store.remember(OTHER, BOB)
    store.remember(HUB, ANN)
    store.forget(HUB)
    assert access(store, {}, None).url == OTHER
    with pytest.raises(NotSignedIn, match="not signed in to"):
        access(store, {}, HUB)


def test_a_token_of_the_environment_goes_to_its_own_hub_only(store: Store) -> None:
    """Another hub that is named on the command line never sees it."""
    environ = {"PERIJOVE_URL": HUB, "PERIJOVE_TOKEN": "from-outside"}
    assert access(store, environ, None).token == "from-outside"
    with pytest.raises(NotSignedIn):
        access(store, environ, OTHER)
    with pytest.raises(NotSignedIn, match="PERIJOVE_URL"):
        access(store, {"PERIJOVE_TOKEN": "from-outside"}, None)


def test_a_token_of_the_environment_is_not_sent_in_the_clear(store: Store) -> None:
    """Plain HTTP to another machine shows it on the way."""
    environ = {"PERIJOVE_URL": "http://hub.example.org", "PERIJOVE_TOKEN": "from-outside"}
    with pytest.raises(BadValue, match="would show your token"):
        access(store, environ, None)
