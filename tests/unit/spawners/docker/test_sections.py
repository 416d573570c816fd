"""What a section of kind docker may say, and what is refused before anything runs."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from perijove.domain.errors import ConfigError
from perijove.spawners.contract import Surroundings
from perijove.spawners.docker import DockerOverrides, DockerSettings, DockerSpawner
from perijove.spawners.docker.engine import open_engine


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "ssh://engine"},
        {"url": "unix://"},
        {"image": "nothing-but-a-name"},
        {"network": "host"},
        {"network": "none"},
        {"network": "container:other"},
        {"user": "root"},
        {"user": "1000:users"},
        {"publish": "0.0.0.0"},
        {"publish": "engine.example.org"},
        {"subnet": "10.0.0.1/8"},
        {"join": ["a/b"]},
        {"tls_cert": "cert.pem"},
        {"tmpfs": {"relative": "1 MiB"}},
        {"pull": "sometimes"},
        {"privileged": True},
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    """A section with a value that cannot work, or gives too much away, is no section."""
    with pytest.raises(ValidationError):
        DockerSettings(**wrong)


@pytest.mark.parametrize(
    "mount",
    [
        {"source": "/srv/{user}/work", "target": "/work"},
        {"source": "/srv/../{user}", "target": "/work"},
        {"source": "/srv/{home}", "target": "/work"},
        {"source": "/srv/{user", "target": "/work"},
        {"source": "srv/data", "target": "/work"},
        {"source": "/srv//data", "target": "/work"},
        {"source": "/", "target": "/work"},
        {"source": "/srv/{user}-{server}", "target": "/work"},
        {"source": "/srv/{server}_{user}", "target": "/work"},
        {"source": "data-{user}{server}", "target": "/work"},
        {"source": "data-{user}--{server}-{user}", "target": "/work"},
        {"source": "/srv/data", "target": "work"},
        {"source": "/srv/data", "target": "/work/../etc"},
    ],
)
def test_mounts_that_could_lead_elsewhere_are_refused(mount: dict[str, Any]) -> None:
    """A path that somebody else's name or link could bend is refused when it is read."""
    with pytest.raises(ValidationError):
        DockerOverrides(mounts=[mount])


@pytest.mark.parametrize("source", ["/srv/homes/{user}", "/srv/{user}--{server}", "data-{user}"])
def test_templates_may_end_in_names(source: str) -> None:
    """Names may stand in the last part of a path, and in the name of a volume."""
    section = DockerOverrides(mounts=[{"source": source, "target": "/work"}])

    assert section.mounts[0].source == source


def test_engine_elsewhere_must_want_certificates() -> None:
    """An engine on another machine is never asked in the clear: who can ask it is root there."""
    for url in ("tcp://10.0.0.1:2375", "http://engine.example.org:2375"):
        with pytest.raises(ConfigError, match="tls_cert"):
            open_engine(url, timeout=1, environ={})
        with pytest.raises(ConfigError, match="tls_cert"):
            open_engine("", timeout=1, environ={"DOCKER_HOST": url})


def test_engine_here_may_be_asked_in_the_clear() -> None:
    """A socket file, or a port of this machine, needs no certificates."""
    for url in ("", "unix:///run/podman/podman.sock", "tcp://127.0.0.1:2375", "tcp://[::1]:2375"):
        open_engine(url, timeout=1, environ={})


def test_files_for_tls_must_be_usable(tmp_path: Path) -> None:
    """A certificate that cannot be read is said when the hub starts."""
    nothing = tmp_path / "nothing.pem"
    with pytest.raises(ConfigError, match="TLS"):
        open_engine("tcp://10.0.0.1:2376", certificate=(nothing, nothing), timeout=1, environ={})


def test_system_accounts_need_a_sign_in_by_them(tmp_path: Path) -> None:
    """Nobody gets a system account's ids by calling themselves like it somewhere else."""
    around = Surroundings(name="here", installation="inst", data_dir=tmp_path)

    with pytest.raises(ConfigError, match=r"auth\.pam"):
        DockerSpawner(DockerSettings(user="system"), around)


@pytest.mark.parametrize(
    ("local", "api_url", "said"),
    [(True, "", ["api-loopback"]), (True, "http://172.17.0.1:1/hub/api", []), (False, "", [])],
)
def test_a_hub_that_containers_cannot_reach_is_said(
    tmp_path: Path, local: bool, api_url: str, said: list[str]
) -> None:
    """A hub that listens on loopback only is told so, unless servers reach it another way."""
    around = Surroundings(name="here", installation="inst", data_dir=tmp_path, api_is_local=local)

    assert DockerSpawner(DockerSettings(api_url=api_url), around).warnings(public=False) == said
