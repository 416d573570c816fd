"""PAM: what is never asked, and what the configuration must name."""

import pytest
from pydantic import ValidationError

from perijove.auth.contract import Credentials
from perijove.auth.pam import MAX_BYTES, PamAuthenticator, PamSettings
from perijove.domain.errors import ConfigError
from perijove.services.people import StoredPasswords

NO_PASSWORDS: StoredPasswords = None  # type: ignore[assignment] # PAM has its own


@pytest.fixture
def door() -> PamAuthenticator:
    """Give the authenticator as it is without any setting."""
    return PamAuthenticator(PamSettings(), name="pam", passwords=NO_PASSWORDS)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("", "secret"),
        ("-alice", "secret"),
        ("../alice", "secret"),
        ("alice:x", "secret"),
        ("al\0ice", "secret"),
        ("al\nice", "secret"),
        ("al\udc80ice", "secret"),
        ("a" * 256, "secret"),
        ("alice", "sec\0ret"),
        ("alice", "sec\udc80ret"),
        ("alice", "x" * (MAX_BYTES + 1)),
    ],
)
async def test_what_cannot_be_a_name_or_a_password_is_wrong(
    door: PamAuthenticator, name: str, password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such texts reach neither PAM nor the system's files: no program is started at all."""
    monkeypatch.setattr("sys.executable", "/nonexistent")
    assert await door.authenticate(Credentials(username=name, password=password)) is None


@pytest.mark.parametrize("service", ["no-such-service", "../passwd", ".", "a/b"])
def test_a_service_that_does_not_exist_is_a_fault(service: str) -> None:
    """PAM would take its `other` stack in silence."""
    with pytest.raises(ConfigError, match="there is no PAM service"):
        PamAuthenticator(PamSettings(service=service), name="pam", passwords=NO_PASSWORDS)


@pytest.mark.parametrize("setting", [{"min_uid": 0}, {"timeout": "0 s"}, {"timeout": "26 s"}])
def test_limits_of_the_settings(setting: dict[str, object]) -> None:
    """Root never comes in, and the hub's own patience is longer than PAM's."""
    with pytest.raises(ValidationError):
        PamSettings.model_validate(setting)
