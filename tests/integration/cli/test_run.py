"""``perijove run``, ``hub`` and ``proxy``: what they refuse, in words, and how they end."""

import base64
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psutil
import pytest

from perijove.kit.clock import monotonic
from perijove.kit.places import locked
from tests.integration.cli.programs import PATIENCE, refusal


@contextmanager
def taken_address() -> Iterator[str]:
    """Listen somewhere, as another program would."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def free_address() -> str:
    """Return an address where nobody listens at this moment."""
    with taken_address() as address:
        return address


def write(directory: Path, text: str) -> Path:
    """Write a configuration file."""
    file = directory / "perijove.toml"
    file.write_text(text)
    return file


@pytest.mark.parametrize("command", ["run", "proxy"])
def test_an_address_in_use_is_named(tmp_path: Path, command: str) -> None:
    """Who starts a second hub by mistake learns which address is taken."""
    with taken_address() as address:
        said = refusal(command, "--bind", address, "--data-dir", tmp_path / "data", code=2)

    assert address in said
    assert "in use" in said.lower()


def test_a_certificate_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A proxy that cannot speak HTTPS as it was told to does not speak HTTP instead."""
    file = write(tmp_path, "[proxy]\ntls_cert = '/nonexistent.crt'\ntls_key = '/nonexistent.key'\n")
    command = ("proxy", "--config", file, "--bind", free_address(), "--data-dir", tmp_path / "data")

    assert "error: proxy: " in refusal(*command, code=2)


def test_an_address_of_the_api_in_use_is_named(tmp_path: Path) -> None:
    """The address on which servers reach the hub may be taken too."""
    with taken_address() as address:
        environ = {"PERIJOVE__HUB__API_BIND": address}
        said = refusal("hub", "--data-dir", tmp_path / "data", code=2, environ=environ)

    assert f"cannot listen at {address}" in said


@pytest.mark.parametrize("command", ["run", "hub"])
def test_a_data_directory_in_use_is_named(tmp_path: Path, command: str) -> None:
    """Two hubs on one SQLite file would each believe to be alone."""
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o700)
    with locked(data_dir, "hub"):
        said = refusal(command, "--bind", free_address(), "--data-dir", data_dir, code=2)

    assert f"{data_dir} is in use by another hub" in said


def test_a_directory_that_others_use_is_not_closed_to_them(tmp_path: Path) -> None:
    """A data directory given by mistake, such as a home directory, is left as it is."""
    data_dir = tmp_path / "home"
    data_dir.mkdir(mode=0o755)
    (data_dir / "letter.txt").touch()
    data_dir.chmod(0o755)

    assert "chmod 700" in refusal("hub", "--data-dir", data_dir, code=2)
    assert data_dir.stat().st_mode & 0o777 == 0o755


def test_a_keyring_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """Who can read the keys can make every token."""
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o700)
    keyring = data_dir / "keyring"
    keyring.write_text(f"k {base64.b64encode(b'x' * 32).decode()}\n")
    keyring.chmod(0o640)

    said = refusal("hub", "--data-dir", data_dir, code=2)
    assert f"{keyring} can be read by others (mode 640): chmod 600" in said


def test_a_keyring_that_is_none_is_refused_without_showing_it(tmp_path: Path) -> None:
    """Neither a key nor half of one is printed."""
    environ = {"PERIJOVE_KEYRING": "k c2VjcmV0LWtleQ=="}
    said = refusal("hub", "--data-dir", tmp_path / "data", code=2, environ=environ)

    assert "line 1 of the keyring has 10 bytes, not 32" in said
    assert "c2VjcmV0" not in said


@pytest.mark.parametrize(
    "public", ["bind = '0.0.0.0:0'", "bind = '[::]:0'", "url = 'https://hub.example.org/'"]
)
def test_trial_accounts_are_refused_in_public(tmp_path: Path, public: str) -> None:
    """Where others can reach the hub, anyone could be anyone; the message says what to set."""
    file = write(
        tmp_path,
        f"[hub]\n{public}\n[auth.demo]\n[spawners.local]\nshared_account = true\n",
    )
    said = refusal("hub", "--config", file, "--data-dir", tmp_path / "data", code=2)

    assert "auth.demo.allow_public = true" in said


def test_servers_under_one_account_are_refused_in_public(tmp_path: Path) -> None:
    """People who share an account can read each other's files: one has to say that one knows."""
    file = write(tmp_path, "[hub]\nbind = '0.0.0.0:0'\n")
    said = refusal("hub", "--config", file, "--data-dir", tmp_path / "data", code=2)

    assert "shared_account = true" in said


def test_a_fault_of_the_configuration_ends_run_at_once(tmp_path: Path) -> None:
    """What cannot become better by trying again is not tried again."""
    file = write(tmp_path, "[hub]\nbnid = 1\n")

    assert "did you mean 'bind'" in refusal("run", "--config", file, code=2)


def test_a_fault_that_only_the_hub_finds_ends_run(tmp_path: Path) -> None:
    """The supervisor does not start a hub again that says its configuration is wrong."""
    file = write(tmp_path, f"[hub]\nbind = '{free_address()}'\nadmins = ['a/b']\n")
    said = refusal("run", "--config", file, "--data-dir", tmp_path / "data", code=2)

    assert "a/b" in said
    assert "starting it again" not in said


# --- a run ------------------------------------------------------------------------------------


@contextmanager
def running(data_dir: Path, address: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run hub and proxy until the block ends; they serve when this is entered."""
    program = subprocess.Popen(
        [sys.executable, "-m", "perijove", "run", "--bind", address, "--data-dir", data_dir],
        env={name: value for name, value in os.environ.items() if "PERIJOVE" not in name},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until_it_serves(address)
        yield program
    finally:
        program.kill()
        program.wait()


def wait_until_it_serves(address: str) -> None:
    """Ask the health page until it answers 200."""
    end = monotonic() + PATIENCE
    with httpx2.Client(trust_env=False, timeout=20) as client:
        while True:
            try:
                if client.get(f"http://{address}/hub/health").status_code == 200:
                    return
            except httpx2.HTTPError:
                pass
            assert monotonic() < end, "the hub does not serve"


def test_run_serves_restarts_its_parts_and_ends_whole(tmp_path: Path) -> None:
    """A killed part comes back; SIGTERM ends everything with code 0 and leaves no process."""
    address = free_address()
    with running(tmp_path / "data", address) as program:
        parts = psutil.Process(program.pid).children()
        assert len(parts) == 2
        for part in parts:
            part.kill()
            part.wait(PATIENCE)
            wait_until_it_serves(address)

        everything = psutil.Process(program.pid).children(recursive=True)
        program.send_signal(signal.SIGTERM)
        assert program.wait(PATIENCE) == 0
        assert psutil.wait_procs(everything, timeout=PATIENCE)[1] == []


def test_run_that_is_killed_takes_its_parts_along(tmp_path: Path) -> None:
    """No hub and no proxy is left that nobody watches."""
    address = free_address()
    with running(tmp_path / "data", address) as program:
        everything = psutil.Process(program.pid).children(recursive=True)
        program.kill()
        program.wait()

        assert psutil.wait_procs(everything, timeout=PATIENCE)[1] == []
