"""How often schedulers are asked, whoever wants to know."""

from pathlib import Path

import pytest

from tests.bench.schedulers import NEEDS, count

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.needs(*NEEDS),
    pytest.mark.timeout(400),
]


async def test_a_class_of_jobs_is_watched_with_few_questions(tmp_path: Path) -> None:
    """Twenty jobs are begun, watched and ended, each for itself, at six questions a minute."""
    result = await count(tmp_path / "calls", jobs=20)
    assert result.is_met, f"{result.what}: {result.ours:.1f} a minute"
