"""Accounts of the hub's own: what is checked, how long it takes, what is stored."""

import threading
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Literal

import anyio
import pytest
from argon2 import PasswordHasher

from perijove.auth.contract import Credentials, StoredPassword
from perijove.auth.native import MAX_BYTES, NativeAuthenticator, NativeSettings
from perijove.domain.errors import Invalid, Throttled
from perijove.kit.loops import until
from tests.doors import CHEAP

pytestmark = pytest.mark.anyio

RIGHT = "correct horse battery"


class Passwords:
    """A store with one account."""

    def __init__(self, hash_: str) -> None:
        self.hash = hash_

    async def find(self, name: str) -> StoredPassword | None:
        """Return ann's password."""
        return StoredPassword(subject="17", hash=self.hash) if name == "ann" else None

    async def renew(self, old: StoredPassword, hash_: str) -> None:
        """Change it unless it was changed since."""
        if old.hash == self.hash:
            self.hash = hash_


def native(hasher: PasswordHasher = CHEAP, *, stored: str | None = None) -> NativeAuthenticator:
    """Return an authenticator that knows ann."""
    passwords = Passwords(stored or hasher.hash(RIGHT))
    return NativeAuthenticator(NativeSettings(), name="native", passwords=passwords, hasher=hasher)


async def test_native_proves_the_immutable_id_of_the_user() -> None:
    """The right password gives a proof whose subject is the user's id, not the name."""
    proof = await native().authenticate(Credentials(username="ann", password=RIGHT))
    assert proof is not None
    assert (proof.subject, proof.name) == ("17", "ann")


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("ann", "wrong"),
        ("ann", ""),
        ("nobody", RIGHT),
        ("ann", RIGHT + " "),
        ("ann", "x" * (MAX_BYTES + 1)),
        ("ann", "\ud800"),
    ],
)
async def test_native_refuses_what_is_not_right(name: str, password: str) -> None:
    """A wrong password and an unknown name give the same answer: None."""
    assert await native().authenticate(Credentials(username=name, password=password)) is None


@pytest.mark.parametrize("stored", ["", "garbage", "$argon2id$v=19$m=64,t=1,p=1$AAAA$BBBB"])
async def test_native_refuses_when_the_stored_hash_is_damaged(stored: str) -> None:
    """A hash that cannot be read lets nobody in and is no error of the server."""
    door = native(stored=stored or "x")
    assert await door.authenticate(Credentials(username="ann", password=RIGHT)) is None


async def test_native_takes_as_long_for_an_unknown_name_as_for_a_wrong_password() -> None:
    """An unknown name is checked against a hash of the same cost."""
    door = native(PasswordHasher(time_cost=2, memory_cost=8192, parallelism=1))

    async def seconds(name: str) -> float:
        samples = []
        for _ in range(9):
            begin = time.process_time()
            await door.authenticate(Credentials(username=name, password="wrong"))
            samples.append(time.process_time() - begin)
        return median(samples)

    known, unknown = await seconds("ann"), await seconds("nobody")
    assert 0.4 < unknown / known < 2.5


async def test_native_renews_a_hash_of_other_costs() -> None:
    """Signing in moves an old hash to the costs of today; the password stays."""
    old = PasswordHasher(time_cost=2, memory_cost=64, parallelism=1).hash(RIGHT)
    passwords = Passwords(old)
    door = NativeAuthenticator(NativeSettings(), name="native", passwords=passwords, hasher=CHEAP)
    assert await door.authenticate(Credentials(username="ann", password=RIGHT))
    assert passwords.hash != old
    assert await door.authenticate(Credentials(username="ann", password=RIGHT))


@pytest.mark.parametrize(
    ("password", "code"),
    [
        ("123456789", "password-too-short"),
        ("é" * 600, "password-too-long"),
        ("", "password-too-short"),
    ],
)
async def test_new_password_breaks_a_rule(password: str, code: str) -> None:
    """A refusal names the field, and its code the rule."""
    with pytest.raises(Invalid) as refused:
        native().check_new_password(password)
    assert (refused.value.field, refused.value.code) == ("password", code)


async def test_new_password_of_the_least_length_is_taken() -> None:
    """The limit itself is allowed, and counts characters, not bytes."""
    native().check_new_password("é" * 10)


class Gated(PasswordHasher):
    """Checks nothing before its gate is opened, and counts how many stand before it."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=64, parallelism=1)
        self.gate = threading.Event()
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:
        """Wait for the gate."""
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        self.gate.wait(10)
        with self._lock:
            self._now -= 1
        return super().verify(hash, password)


async def test_native_hashes_at_most_two_at_a_time_and_keeps_the_queue_short() -> None:
    """A crowd waits for two threads; beyond the length of the queue it is told to come back."""
    hasher = Gated()
    door = native(hasher, stored=CHEAP.hash(RIGHT))
    refused: list[str] = []

    async def knock() -> None:
        try:
            await door.authenticate(Credentials(username="ann", password="wrong"))
        except Throttled as error:
            refused.append(error.code)

    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(knock)
        assert await until(is_true(lambda: len(refused) >= 34), seconds=10)
        hasher.gate.set()
    assert refused == ["signin-busy"] * 34
    assert hasher.most == 2


def is_true(check: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    """Make a check one that can be awaited."""

    async def ask() -> bool:
        return check()

    return ask
