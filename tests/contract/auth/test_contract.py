"""What every authenticator keeps, whatever it asks for."""

from collections.abc import Callable
from dataclasses import dataclass

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.auth.contract import Authenticator, Credentials, Proof, StoredPassword
from perijove.kit.config import Section
from tests.doors import CHEAP, demo, native

pytestmark = pytest.mark.anyio

RIGHT = "correct horse battery"
HASH = CHEAP.hash(RIGHT)


class OneAccount:
    """A store in which only ann has a password."""

    async def find(self, name: str) -> StoredPassword | None:
        """Return ann's."""
        is_ann = name.strip().casefold() == "ann"
        return StoredPassword(subject="17", hash=HASH) if is_ann else None

    async def renew(self, old: StoredPassword, hash_: str) -> None:
        """Keep the old one: its costs are today's."""
        raise AssertionError("nothing is to be renewed here")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An authenticator at which ann can come in, and with what."""

    door: Authenticator
    password: str


CASES: dict[str, Callable[[], Case]] = {
    "native": lambda: Case(door=native(OneAccount()), password=RIGHT),
    "demo": lambda: Case(door=demo(OneAccount(), password=f"fixed:{RIGHT}"), password=RIGHT),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    """Give each authenticator in turn."""
    return CASES[request.param]()


async def prove(case: Case, name: str, password: str) -> Proof | None:
    """Ask an authenticator."""
    return await case.door.authenticate(Credentials(username=name, password=password))


async def test_right_credentials_prove_a_subject_that_can_be_bound(case: Case) -> None:
    """A subject has 1 to 255 characters, and comes with a name."""
    proof = await prove(case, "ann", case.password)
    assert proof is not None
    assert 1 <= len(proof.subject) <= 255
    assert proof.name


@pytest.mark.parametrize("spelling", ["ann", "Ann", "ANN"])
async def test_spellings_of_a_name_are_one_subject(case: Case, spelling: str) -> None:
    """However a person types the name, the account is the same."""
    first, again = (
        await prove(case, "ann", case.password),
        await prove(case, spelling, case.password),
    )
    assert first is not None
    assert again is not None
    assert first.subject == again.subject


async def test_wrong_password_proves_nothing(case: Case) -> None:
    """None, and no exception."""
    assert await prove(case, "ann", case.password + "x") is None


@pytest.mark.parametrize("name", CASES)
@given(username=st.text(max_size=30), password=st.text(max_size=30))
def test_no_text_is_an_error(name: str, username: str, password: str) -> None:
    """Whatever is typed, the answer is a proof or None."""

    async def ask() -> None:
        proof = await prove(CASES[name](), username, password)
        assert proof is None or password == RIGHT

    anyio.run(ask)


async def test_credentials_do_not_show_the_password(case: Case) -> None:
    """They may come into a traceback; the password may not."""
    credentials = Credentials(
        username="ann", password=case.password, fields={"otp": "123456", "password": RIGHT}
    )
    assert case.password not in repr(credentials)
    assert "123456" not in repr(credentials)


async def test_authenticator_says_what_it_is_configured_with(case: Case) -> None:
    """Its section is a strict one, and its name that of the section."""
    assert issubclass(case.door.Settings, Section)
    assert case.door.name in CASES
    case.door.check_address(public=False)
