"""How far an image is, who may fetch it, and when trying again is useless."""

import json
from pathlib import Path
from typing import Any

import pytest

from perijove.domain.errors import ConfigError
from perijove.spawners.docker.images import (
    Progress,
    full_reference,
    hopeless_code,
    read_credentials,
)


def event(layer: str, status: str, current: int = 0, total: int = 0) -> dict[str, Any]:
    """Return what an engine tells while it fetches."""
    detail = {"current": current, "total": total} if total else {}
    return {"id": layer, "status": status, "progressDetail": detail}


def test_progress_counts_fetching_and_unpacking() -> None:
    """A layer is half done when it is fetched; one that was there is no work and not counted."""
    progress = Progress()
    assert progress.percent is None
    seen: list[int | None] = []
    for each in (
        event("1", "Pulling from test/slow"),
        event("a", "Already exists"),
        event("b", "Pulling fs layer"),
        event("b", "Downloading", 50, 100),
        event("b", "Download complete"),
        event("b", "Extracting", 100, 200),
        event("b", "Pull complete"),
        event("", "Status: Downloaded newer image"),
    ):
        progress.note(each)
        seen.append(progress.percent)

    assert seen == [None, None, 0, 25, 50, 75, 100, 100]


@pytest.mark.parametrize("detail", [None, {}, {"current": 5}, {"current": 9, "total": 3}])
def test_progress_survives_what_makes_no_sense(detail: Any) -> None:
    """A size that is missing or too small is no reason to fail."""
    progress = Progress()
    progress.note({"id": "a", "status": "Downloading", "progressDetail": detail})

    assert progress.percent in (0, 50)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("manifest for a/b:1 not found: manifest unknown: manifest unknown", "image-not-found"),
        (
            "pull access denied for a/b, repository does not exist or may require 'docker login'",
            "image-not-found",
        ),
        (
            'failed to resolve reference "docker.io/a/b:1": docker.io/a/b:1: not found',
            "image-not-found",
        ),
        (
            'short-name "lab" did not resolve to an alias and no unqualified-search registries '
            "are defined",
            "image-not-found",
        ),
        ("unauthorized: authentication required", "image-denied"),
        ("denied: requested access to the resource is denied", "image-denied"),
        ("no basic auth credentials", "image-denied"),
        ("invalid reference format: repository name must be lowercase", "image-invalid"),
        ("dial tcp 10.0.0.1:443: connect: connection refused", ""),
        ("toomanyrequests: You have reached your pull rate limit", ""),
        ("received unexpected HTTP status: 503 Service Unavailable", ""),
    ],
)
def test_only_what_is_hopeless_is_given_up(words: str, code: str) -> None:
    """What may pass is tried again; what cannot is said with its code."""
    assert hopeless_code(words) == code


@pytest.mark.parametrize(
    ("reference", "full"),
    [
        ("debian:12", "docker.io/library/debian:12"),
        ("a/b:1", "docker.io/a/b:1"),
        ("quay.io/a/b:1", "quay.io/a/b:1"),
        ("localhost/a:1", "localhost/a:1"),
        ("registry:5000/a:1", "registry:5000/a:1"),
    ],
)
def test_registry_is_told_from_the_path(reference: str, full: str) -> None:
    """Whom credentials are shown to is what an engine takes for the registry, and nobody else."""
    assert full_reference(reference) == full


def test_credentials_are_read_as_login_writes_them(tmp_path: Path) -> None:
    """The words for each registry are found in a file that is the hub's alone."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"auths": {"quay.io": {"auth": "YTpi"}}}))
    file.chmod(0o600)

    assert read_credentials(file) == {"quay.io": "YTpi"}


def test_credentials_that_others_could_read_are_refused(tmp_path: Path) -> None:
    """A file with secrets that is open to others is not used."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"auths": {"quay.io": {"auth": "YTpi"}}}))
    file.chmod(0o640)

    with pytest.raises(ConfigError, match="chmod 600"):
        read_credentials(file)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"auths": {"quay.io": "sesame"}}'])
def test_credentials_are_not_quoted(tmp_path: Path, content: str) -> None:
    """A file that cannot be understood is named, and nothing of it is told."""
    file = tmp_path / "config.json"
    file.write_text(content)
    file.chmod(0o600)

    with pytest.raises(ConfigError) as refused:
        read_credentials(file)
    assert "sesame" not in str(refused.value)
