"""What the real cluster offers to each person is what it is configured to."""

import pytest

from perijove.domain.offer import Ceiling
from tests.integration.slurm.conftest import MIB, SMALL, Bed

pytestmark = [pytest.mark.anyio, pytest.mark.needs("slurm")]


async def test_offer_is_what_the_cluster_is_configured_to(bed: Bed) -> None:
    """Accounts, QOS, partitions, shapes and addresses are those of the test bed."""
    offer = await bed.scheduler.discover(bed.run, bed.run_as, "alice")
    accounts = {each.name: each for each in offer.accounts}
    assert accounts.keys() == {"def-alice", "rrg-bob", "rrg-spent"}
    assert [name for name, each in accounts.items() if each.is_default] == ["def-alice"]
    qos = {each.name: each for each in offer.qos}
    assert set(accounts["def-alice"].qos) == qos.keys()
    assert qos["strict"].per_job == Ceiling(cpus=2)
    assert qos["interactive"].max_seconds == 8 * 3600
    partitions = {each.name: each for each in offer.partitions}
    assert [name for name, each in partitions.items() if each.is_default] == ["compute"]
    assert partitions["short"].max_seconds == 1800
    assert not partitions["closed"].is_up
    assert partitions["rrgonly"].accounts == ("rrg-bob",)
    shapes = {name: shape for shape in offer.shapes for name in shape.nodes}
    assert shapes.keys() >= {"cpu1", "cpu2", "gpu1"}
    assert "off1" not in shapes
    assert (shapes["cpu1"].cpus, shapes["cpu1"].memory_bytes) == (8, 8000 * MIB)
    assert shapes["cpu1"].features == {"cascade", "avx2"}
    assert shapes["gpu1"].gpus == {"test": 2, "mini": 1}
    assert offer.notes == ()
    assert await bed.scheduler.addresses(bed.run, ["cpu1", "nosuch"]) == {"cpu1": "127.0.0.1"}


async def test_limits_and_jobs_are_the_persons_own(bed: Bed) -> None:
    """Carol has her association's limits, those of her whole account, and her jobs."""
    job_id = await bed.submit("carol", bed.request(extra=["--hold"]))
    offer = await bed.scheduler.discover(bed.run, bed.run_as, "carol")
    (account,) = offer.accounts
    assert (account.name, account.qos) == ("def-carol", ("normal",))
    assert account.per_job.cpus == 2
    assert (account.per_person.jobs, account.per_person.submitted) == (3, 5)
    (job,) = (each for each in offer.own_jobs if each.id == job_id)
    assert (job.state, job.account, job.cpus, job.is_interactive) == ("held", "def-carol", 1, False)


async def test_somebody_without_an_account_is_offered_none(bed: Bed) -> None:
    """Dave may not submit: there is no account to choose, and Slurm refuses him."""
    offer = await bed.scheduler.discover(bed.run, bed.run_as, "dave")
    assert offer.accounts == ()
    assert offer.must_name_account
    (objection,) = await bed.scheduler.dry_run(bed.run_as, "dave", bed.request(SMALL))
    assert objection.code == "invalid-account"


async def test_reservations_are_known_with_whom_they_are_for(bed: Bed) -> None:
    """Maintenance to come and a course of one account are told apart."""
    course, works = (f"{bed.prefix}{name}".replace("-", "_") for name in ("course", "works"))
    create = ["scontrol", "create", "reservation", "starttime=now+2days", "duration=60"]
    try:
        for name, rules in (
            (course, ["nodes=cpu2", "accounts=def-alice"]),
            (works, ["nodes=cpu[1-2]", "users=root", "flags=maint"]),
        ):
            assert (await bed.run([*create, f"reservationname={name}", *rules])).status == 0
        offers = {
            user: await bed.scheduler.discover(bed.run, bed.run_as, user)
            for user in ("alice", "carol")
        }
    finally:
        for name in (course, works):
            await bed.run(["scontrol", "delete", f"reservationname={name}"])
    seen = {
        (user, each.name): each for user, offer in offers.items() for each in offer.reservations
    }
    assert seen["alice", course].is_usable
    assert not seen["carol", course].is_usable
    maintenance = seen["alice", works]
    assert (maintenance.is_maintenance, maintenance.is_usable) == (True, False)
    assert maintenance.nodes == ("cpu1", "cpu2")
