"""What is kept: what a profile says, lessened by what policies say."""

from datetime import timedelta
from typing import Any

import pytest

from perijove.domain.policy import Policy, Rule, evaluate
from perijove.domain.storage import Fullness, Kept, Storage, fullness, storage_under

GIB = 2**30
BODY = {
    "kept": "server",
    "path": "/home/ann",
    "size": 2 * GIB,
    "storage_class": "fast",
    "retention": 60,
}


def _under(body: dict[str, Any] | None, **values: Any) -> Storage | None:
    by_rule = {Rule(name.replace("_", "-")): value for name, value in values.items()}
    limits = evaluate([Policy(name="p", values=by_rule)], user="ann", groups=())
    return storage_under(body, limits)


def test_a_profile_says_what_is_kept() -> None:
    """Without a policy it is as the profile says, in full."""
    assert _under(BODY) == Storage(
        kept=Kept.SERVER,
        path="/home/ann",
        size_bytes=2 * GIB,
        storage_class="fast",
        retention=timedelta(minutes=1),
    )


@pytest.mark.parametrize(
    ("said", "limit", "size"),
    [
        (2 * GIB, GIB, GIB),
        (2 * GIB, 3 * GIB, 2 * GIB),
        (2 * GIB, "unlimited", 2 * GIB),
        (None, GIB, GIB),
        (None, None, None),
    ],
)
def test_a_policy_lessens_the_size(said: int | None, limit: Any, size: int | None) -> None:
    """The smaller of profile and policy holds; what neither limits has no limit."""
    values = {} if limit is None else {"storage": limit}
    found = _under({**BODY, "size": said}, **values)
    assert found is not None
    assert found.size_bytes == size


@pytest.mark.parametrize("said", Kept)
@pytest.mark.parametrize("forced", Kept)
def test_a_policy_says_for_whom_is_kept(said: Kept, forced: Kept) -> None:
    """Whatever the profile says, the policy decides; with `none` nothing is kept."""
    found = _under({**BODY, "kept": said}, storage_kept=forced)
    assert (found.kept if found else Kept.NONE) is forced


def test_a_profile_without_storage_keeps_nothing() -> None:
    """Where the site mounts its own, no policy makes volumes of ours."""
    assert _under(None, storage_kept="user") is None
    assert _under({**BODY, "kept": "none"}) is None


@pytest.mark.parametrize(
    ("used", "size", "how"),
    [
        (None, 100, Fullness.UNKNOWN),
        (1, None, Fullness.UNKNOWN),
        (89, 100, Fullness.ROOMY),
        (90, 100, Fullness.NEARLY_FULL),
        (100, 100, Fullness.FULL),
        (101, 100, Fullness.FULL),
    ],
)
def test_how_full_a_volume_is(used: int | None, size: int | None, how: Fullness) -> None:
    """From nine tenths on it is nearly full; what is not measured is not guessed."""
    assert fullness(used, size) is how
