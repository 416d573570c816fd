"""When a quota's refusal is for good: what is asked for is more than all may have together."""

import pytest

from perijove.domain.reasons import WAITING
from perijove.spawners.kubernetes.quotas import hopeless_code
from tests.unit.spawners.kubernetes.corpus import read

GPU = "example.com/gpu"


def words_of(requested: str, limited: str) -> str:
    """Return the words of a refusal in which nothing of the quota is used."""
    used = ",".join(f"{each.split('=')[0]}=0" for each in limited.split(","))
    said = f"requested: {requested}, used: {used}, limited: {limited}"
    return f'pods "pj-a" is forbidden: exceeded quota: team, {said}'


@pytest.mark.parametrize("name", ["quota-exceeded", "quota-claims"])
def test_what_fits_when_others_end_is_waited_for(name: str) -> None:
    """A real refusal for what others use says so of what would fit alone."""
    assert hopeless_code(read(f"answer-{name}")["body"]["message"], gpu_resource=GPU) == ""


@pytest.mark.parametrize(
    ("requested", "limited", "code", "field"),
    [
        ("limits.memory=2Gi", "limits.memory=1500Mi", "over-memory-quota", "memory"),
        ("cpu=1500m", "cpu=1", "over-cpu-quota", "cpu"),
        (f"requests.{GPU}=2", f"requests.{GPU}=1", "over-gpu-quota", "gpu"),
        ("limits.cpu=4,requests.memory=2G", "limits.cpu=4,requests.memory=1G",
         "over-memory-quota", "memory"),
        ("requests.storage=20Gi", "requests.storage=10Gi", "over-quota", ""),
        ("pods=1", "pods=0", "over-quota", ""),
    ],
)  # fmt: skip
def test_what_never_fits_names_the_culprit(
    requested: str, limited: str, code: str, field: str
) -> None:
    """More than a whole quota can never start, and the form comes back with what is too much."""
    assert hopeless_code(words_of(requested, limited), gpu_resource=GPU) == code
    assert WAITING[code].can_never_start
    assert WAITING[code].field == field


@pytest.mark.parametrize(
    ("requested", "limited"),
    [("cpu=1", "cpu=1"), ("cpu=2", "memory=1"), ("cpu", "cpu=1"), ("cpu=many", "cpu=1")],
)
def test_what_says_nothing_is_waited_for(requested: str, limited: str) -> None:
    """What would just fit, or cannot be read, is no reason to give up."""
    assert hopeless_code(words_of(requested, limited), gpu_resource=GPU) == ""
    assert hopeless_code("pj-volume is being removed", gpu_resource=GPU) == ""
