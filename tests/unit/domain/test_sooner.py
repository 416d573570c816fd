"""What may let a request start sooner: less that fits now, and what is not before a maintenance."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from perijove.domain.market import Market
from perijove.domain.offer import Free, Offer, Reservation
from perijove.domain.sooner import Outlook, outlook
from tests.fakes.offers import GIB, NOW, cluster_offer

HOUR = 3600


def look(offer: Offer | None = None, **options: Any) -> Outlook:
    """Return the outlook of a request on the small cluster."""
    return outlook(Market(now=NOW, kind="slurm", offer=offer or cluster_offer()), options)


@pytest.mark.parametrize(
    ("options", "less"),
    [
        # The node with most of what is asked for: 32 of 40 cores, all of the memory.
        ({"cpu": 40, "memory": 100 * GIB}, {"cpu": 32}),
        ({"cpu": 40, "memory": 2000 * GIB}, {"cpu": 32, "memory": 1000 * GIB}),
        ({"cpu": 64}, {"cpu": 36}),
        ({"cpu": 64, "features": ["amd"]}, {"cpu": 36}),
        ({"cpu": 40, "features": ["intel"]}, {"cpu": 32}),
        # It fits as it is: others are before it.
        ({"cpu": 4, "memory": 8 * GIB}, {}),
        # Only where the GPUs are free that it needs; never fewer of them.
        ({"partition": "gpu", "cpu": 32, "gpu": 2, "gpu_type": "a100"}, {"cpu": 30}),
        ({"partition": "gpu", "cpu": 32, "gpu": 3, "gpu_type": "a100"}, {}),
        ({"partition": "gpu", "cpu": 32, "gpu": 2}, {"cpu": 30}),
        ({"partition": "closed", "cpu": 4}, {}),
        ({"partition": "cpu", "cpu": 40, "reservation": "course"}, {}),
        ({"time": HOUR}, {}),
    ],
)
def test_less_of_it_may_fit_now(options: dict[str, Any], less: dict[str, int]) -> None:
    """As much as one node has free, of what there is too little of."""
    assert look(**options).fits_now == less


def test_what_a_full_cluster_has_is_nothing() -> None:
    """Nodes without a free core offer no smaller request; odd memory is said in whole GiB."""
    offer = cluster_offer()
    full = replace(offer.shapes[0], free=(Free(cpus=0, memory_bytes=8 * GIB),))
    assert look(replace(offer, shapes=(full,)), cpu=4, memory=16 * GIB).fits_now == {}
    odd = replace(offer.shapes[0], free=(Free(cpus=8, memory_bytes=8 * GIB + 12345),))
    less = look(replace(offer, shapes=(odd,)), cpu=4, memory=16 * GIB).fits_now
    assert less == {"memory": 8 * GIB}


def test_a_time_that_ends_before_the_maintenance_is_known() -> None:
    """In whole five minutes, and only where more was asked for."""
    seen = look(partition="cpu", time=12 * HOUR)
    assert seen.maintenance is not None
    assert seen.maintenance.name == "maint"
    assert seen.fits_before == 10 * HOUR - 300
    assert look(partition="cpu", time=2 * HOUR).fits_before is None
    assert look(partition="cpu").fits_before is None


def test_only_a_maintenance_of_its_nodes_counts() -> None:
    """Nor one in weeks; while none of its nodes is up, any may be the one."""
    offer = cluster_offer()
    (maint,) = (each for each in offer.reservations if each.is_maintenance)

    def seen(change: Reservation) -> Reservation | None:
        return look(replace(offer, reservations=(change,)), partition="cpu").maintenance

    assert seen(replace(maint, nodes=("g01",))) is None
    assert seen(replace(maint, nodes=("c90",))) is not None
    weeks = timedelta(days=30)
    assert seen(replace(maint, starts_at=NOW + weeks, ends_at=NOW + 2 * weeks)) is None
    down = replace(offer, shapes=(), reservations=(replace(maint, nodes=("g01",)),))
    assert look(down, partition="cpu").maintenance is not None


def test_the_reservation_is_the_one_asked_for() -> None:
    """With its window; none that is gone, and nothing of a platform that never told."""
    found = look(reservation="course").reservation
    assert found is not None
    assert found.ends_at == NOW + timedelta(hours=2)
    assert look(reservation="gone").reservation is None
    assert look().reservation is None
    assert outlook(Market(now=NOW), {"reservation": "course"}) == Outlook()
