"""What the API server's refusals mean, read from a real one's."""

import json

import pytest

from perijove.domain.errors import SpawnerError, SpawnerPending, SpawnerRejected, SpawnerTransient
from perijove.spawners.kubernetes.api import AlreadyThere, NotThere, Outdated, fault_of
from tests.unit.spawners.kubernetes.corpus import read


def fault(name: str) -> Exception:
    """Return what one answer means."""
    answer = read(f"answer-{name}")
    return fault_of(answer["status"], json.dumps(answer["body"]).encode())


@pytest.mark.parametrize(
    ("name", "kind", "code"),
    [
        ("quota-exceeded", SpawnerPending, "namespace-quota"),
        ("quota-claims", SpawnerPending, "namespace-quota"),
        ("forbidden", SpawnerRejected, "platform-forbids"),
        ("anonymous", SpawnerRejected, "platform-forbids"),
        ("limit-range", SpawnerRejected, "container-refused"),
        ("quota-needs-limits", SpawnerRejected, "container-refused"),
        ("priority-class-missing", SpawnerRejected, "container-refused"),
        ("service-account-missing", SpawnerRejected, "container-refused"),
        ("invalid-field", SpawnerRejected, "container-refused"),
        ("invalid-limit", SpawnerRejected, "container-refused"),
        ("bad-request", SpawnerRejected, "container-refused"),
        ("unauthorized", SpawnerTransient, "spawner-away"),
        ("store-silent", SpawnerTransient, "spawner-away"),
        ("conflict", SpawnerTransient, "spawner-away"),
    ],
)
def test_refusals_tell_what_lasts_from_what_passes(
    name: str, kind: type[SpawnerError], code: str
) -> None:
    """A refusal is for good, for as long as a quota lasts, or for now; its words are kept."""
    error = fault(name)

    assert isinstance(error, kind)
    assert error.code == code
    assert read(f"answer-{name}")["body"]["message"][:100] in str(error)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("not-found", NotThere),
        ("already-exists", AlreadyThere),
        ("continue-invalid", SpawnerRejected),
    ],
)
def test_what_is_there_or_not_is_told_apart(name: str, kind: type[Exception]) -> None:
    """That something is there already, or is not, is an answer and no failure."""
    assert isinstance(fault(name), kind)


@pytest.mark.parametrize(
    "words",
    [
        'error looking up service account a/default: serviceaccount "default" not found',
        'pods "x" is forbidden: status unknown for quota: team, resources: limits.memory',
    ],
)
def test_what_was_just_made_is_not_complete_yet(words: str) -> None:
    """What a namespace or a quota lacks in its first moments is waited for."""
    assert isinstance(fault_of(403, json.dumps({"message": words}).encode()), SpawnerTransient)


@pytest.mark.parametrize("content", [b"", b"<html>bad gateway</html>", b"[]", b"\xff"])
def test_answer_of_somebody_between_is_transient(content: bytes) -> None:
    """What a load balancer says when it fails is not taken for the cluster's word."""
    assert isinstance(fault_of(502, content), SpawnerTransient)
    assert isinstance(fault_of(410, content), Outdated)
