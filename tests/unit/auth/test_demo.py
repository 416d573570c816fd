"""Sign-in for trials: three rules, and where it must not be offered."""

import pytest
from pydantic import ValidationError

from perijove.auth.contract import Credentials
from perijove.auth.demo import DemoSettings
from perijove.domain.errors import ConfigError
from perijove.services.people import StoredPasswords
from tests.doors import demo

pytestmark = pytest.mark.anyio

NO_PASSWORDS: StoredPasswords = None  # type: ignore[assignment] # a demo never looks at it


@pytest.mark.parametrize(
    ("rule", "name", "password", "comes_in"),
    [
        ("same-as-username", "ann", "ann", True),
        ("same-as-username", "ann", "Ann", False),
        ("same-as-username", "ann", "", False),
        ("any", "ann", "", True),
        ("any", "ann", "whatever", True),
        ("fixed:open sesame", "ann", "open sesame", True),
        ("fixed:open sesame", "ann", "ann", False),
        ("fixed:fixed:", "ann", "fixed:", True),
        ("fixed:é", "ann", "é", True),
    ],
)
async def test_demo_rule(rule: str, name: str, password: str, *, comes_in: bool) -> None:
    """Each rule lets in exactly whom it describes."""
    door = demo(NO_PASSWORDS, password=rule)
    proof = await door.authenticate(Credentials(username=name, password=password))
    assert (proof is not None) == comes_in


async def test_demo_takes_spellings_of_a_name_for_one_person() -> None:
    """The subject is the name's one form, so that ANN does not become a second ann."""
    door = demo(NO_PASSWORDS, password="any")
    proof = await door.authenticate(Credentials(username="ANN", password=""))
    assert proof is not None
    assert proof.subject == "ann"


@pytest.mark.parametrize("rule", ["", "fixed:", "Any", "none", "same"])
def test_demo_refuses_an_unknown_rule(rule: str) -> None:
    """The message lists what may stand there."""
    with pytest.raises(ValidationError, match='"same-as-username", "any" or "fixed:"'):
        DemoSettings(password=rule)


def test_demo_refuses_a_public_address_and_names_the_key() -> None:
    """Nobody offers it to others by accident."""
    door = demo(NO_PASSWORDS)
    door.check_address(public=False)
    with pytest.raises(ConfigError, match=r"auth\.demo\.allow_public = true"):
        door.check_address(public=True)


def test_demo_serves_a_public_address_when_told_to() -> None:
    """It is the administrator's word."""
    demo(NO_PASSWORDS, allow_public=True).check_address(public=True)
