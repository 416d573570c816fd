"""The launcher as a process: whom it serves, what it refuses, what it leaves alone."""

import json
import os
import pwd
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perijove.kit.ids import platform_name
from tests import beds
from tests.integration.launcher.conftest import Place
from tests.unit.spawners.launcher.test_requests import ANYTHING, GOOD

pytestmark = pytest.mark.needs("root", "users")

NAME = platform_name("inst")


@pytest.fixture
def folder(place: Place) -> str:
    """Give the path of alice's folder, not made yet."""
    return str(place.launches / "alice")


def test_root_is_not_served(place: Place) -> None:
    """Run as root it does nothing."""
    answer = place.ask("root", "discover", commands=[["sinfo"]])

    assert answer["error"] == "account-refused"


def test_accounts_of_the_system_are_not_served(place: Place) -> None:
    """Accounts below the lowest number of a person's are refused."""
    assert place.ask("daemon", "survey", folder="/tmp/x")["error"] == "account-refused"


def test_who_is_not_in_the_group_is_not_served_through_sudo(place: Place) -> None:
    """The group counts even where a sudo rule was written that lets more people through."""
    request = json.dumps({"verb": "survey", "folder": str(place.launches / "x")}).encode()

    outside = place.run("nobody", request, SUDO_UID="999")
    inside = place.run("alice", request, SUDO_UID="999")

    assert json.loads(outside.stdout)["error"] == "account-refused"
    assert json.loads(inside.stdout) == {"launches": []}


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(request=st.binary(max_size=2000) | ANYTHING.map(lambda one: json.dumps(one).encode()))
def test_any_bytes_are_refused_cleanly(place: Place, request: bytes) -> None:
    """Whatever comes in, out come one JSON object and status 3: no traceback, nothing done."""
    _refuses(place, request)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_request_with_one_fault_is_refused_cleanly(place: Place, data: st.DataObject) -> None:
    """A request that is right but for one unknown field is not carried out."""
    verb = data.draw(st.sampled_from(sorted(GOOD)))
    field = data.draw(st.text(max_size=20)) + "?"

    _refuses(place, json.dumps({"verb": verb, **GOOD[verb], field: data.draw(ANYTHING)}).encode())


def _refuses(place: Place, request: bytes) -> None:
    result = place.run("alice", request)
    assert result.returncode == 3
    assert result.stderr == b""
    assert json.loads(result.stdout)["error"] == "bad-request"
    assert not list(place.launches.iterdir())


def test_endless_requests_are_refused(place: Place) -> None:
    """What is longer than any request is not read to the end."""
    result = place.run("alice", b" " * (5 * 2**20))

    assert json.loads(result.stdout)["error"] == "bad-request"


def test_nothing_of_the_caller_reaches_what_it_runs(place: Place) -> None:
    """Neither variables nor open files of the hub are seen by a program that it runs."""
    programs = _programs("env; ls -l /proc/self/fd; umask")
    try:
        request = {"verb": "discover", "commands": [["sinfo"]], "bin_dir": str(programs)}
        result = place.run("alice", json.dumps(request).encode(), SECRET="42", LD_PRELOAD="")
    finally:
        shutil.rmtree(programs)
    (answer,) = json.loads(result.stdout)["results"]

    names = {line.partition("=")[0] for line in answer["stdout"].splitlines() if "=" in line}
    assert "SECRET" not in names
    assert "HOME=/home/alice" in answer["stdout"]
    assert answer["stdout"].splitlines()[-1] == "0022"


def test_programs_that_others_can_change_are_not_run(place: Place) -> None:
    """A program, or a folder above it, that somebody but root can write is refused."""
    place.root.joinpath("sinfo").write_text("#!/bin/sh\necho owned\n")
    place.root.joinpath("sinfo").chmod(0o755)

    answer = place.ask("alice", "discover", commands=[["sinfo"]], bin_dir=str(place.root))

    assert answer["error"] == "program-refused"  # /var/tmp is everybody's.


def test_symbolic_links_are_not_followed(place: Place, folder: str) -> None:
    """Neither the folder, nor a launch in it, nor a file of one may lead elsewhere."""
    alice = pwd.getpwnam("alice").pw_uid
    aim = place.root / "aim"
    aim.mkdir()
    os.chown(aim, alice, alice)
    Path(folder).symlink_to(aim)
    through_folder = place.ask("alice", "adopt", name=NAME, folder=folder, job_id="1")
    Path(folder).unlink()
    Path(folder).mkdir(mode=0o700)
    os.chown(folder, alice, alice)
    Path(folder, NAME).symlink_to(aim)
    through_launch = place.ask("alice", "adopt", name=NAME, folder=folder, job_id="1")
    Path(folder, NAME).unlink()
    Path(folder, NAME).mkdir()
    os.chown(Path(folder, NAME), alice, alice)
    Path(folder, NAME, "job.log").symlink_to("/etc/passwd")
    through_file = place.ask("alice", "log", name=NAME, folder=folder, lines=10)

    assert through_folder["error"] == "not-ours"
    assert through_launch["error"] == "not-ours"
    assert through_file == {"text": ""}
    assert not list(aim.iterdir())


def test_directories_of_others_are_not_used(place: Place, folder: str) -> None:
    """Who made alice's folder before she did gets nothing of hers."""
    bob = pwd.getpwnam("bob").pw_uid
    Path(folder).mkdir(mode=0o777)
    os.chown(folder, bob, bob)
    Path(folder).chmod(0o777)

    answer = place.ask("alice", "adopt", name=NAME, folder=folder, job_id="1")

    assert answer["error"] == "not-ours"
    assert not list(Path(folder).iterdir())


def test_what_it_makes_is_for_its_person_alone(place: Place, folder: str) -> None:
    """Directories have mode 0700 and files 0600, also where they were open before."""
    alice = pwd.getpwnam("alice").pw_uid
    Path(folder).mkdir()
    Path(folder).chmod(0o777)
    os.chown(folder, alice, alice)

    place.ask("alice", "adopt", name=NAME, folder=folder, job_id="1")

    assert stat.S_IMODE(Path(folder).stat().st_mode) == 0o700
    assert stat.S_IMODE(Path(folder, NAME).stat().st_mode) == 0o700
    for file in Path(folder, NAME).iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_pipes_do_not_hold_it_up(place: Place, folder: str) -> None:
    """A file that is none, and would make a reader wait for ever, is not read."""
    place.ask("alice", "adopt", name=NAME, folder=folder, job_id="1")
    os.mkfifo(Path(folder, NAME, "job.log"))

    assert place.ask("alice", "log", name=NAME, folder=folder, lines=1)["text"] == ""


def test_it_gives_up_in_time(place: Place, folder: str) -> None:
    """A scheduler that does not answer is ended, and the answer says so."""
    programs = _programs("exec sleep 60")
    try:
        began = time.monotonic()
        answer = place.ask(
            "alice", "discover", commands=[["sinfo"]], bin_dir=str(programs), seconds=1
        )
    finally:
        shutil.rmtree(programs)

    assert answer["error"] == "launcher-timeout"
    assert time.monotonic() - began < 10


def test_log_stays_when_the_launch_is_removed(place: Place, folder: str) -> None:
    """What is removed leaves its last output and that it is over, and nothing else."""
    place.ask("alice", "adopt", name=NAME, folder=folder, job_id="1")
    Path(folder, NAME, "job.log").write_text("one\ntwo\n")
    Path(folder, NAME, "spec.json").write_text("{}")

    place.ask("alice", "cancel", name=NAME, folder=folder)

    assert place.ask("alice", "log", name=NAME, folder=folder, lines=1) == {"text": "two"}
    left = {file.name for file in Path(folder, NAME).iterdir()}
    assert left == {".mutex", "cancelled", "removed", "job.log"}


def test_what_a_job_writes_while_it_ends_is_kept(place: Place, folder: str) -> None:
    """Its log is the job's until it has surely ended; of a long one the end stays then."""
    place.ask("alice", "adopt", name=NAME, folder=folder, job_id="1")
    with Path(folder, NAME, "job.log").open("w") as log:
        log.write("begun\n" + "x" * 2**20 + "\n")
        log.flush()
        place.ask("alice", "cancel", name=NAME, folder=folder)
        log.write("ended\n")
    place.ask("alice", "survey", folder=folder)
    fresh = place.ask("alice", "log", name=NAME, folder=folder, lines=1)
    hours_ago = time.time() - 2 * 3600
    os.utime(Path(folder, NAME, "removed"), (hours_ago, hours_ago))
    place.ask("alice", "survey", folder=folder)
    settled = place.ask("alice", "log", name=NAME, folder=folder, lines=1)

    assert fresh == settled == {"text": "ended"}
    assert not Path(folder, NAME, "job.log").exists()
    assert Path(folder, NAME, "output").stat().st_size < 2**20


def test_what_is_over_is_forgotten_after_a_week(place: Place, folder: str) -> None:
    """The marks of removed launches are swept when they are old, and not before."""
    names = [platform_name("inst") for _ in range(2)]
    for name in names:
        place.ask("alice", "cancel", name=name, folder=folder)
    old = time.time() - 8 * 86400
    os.utime(Path(folder, names[0], "removed"), (old, old))

    place.ask("alice", "survey", folder=folder)

    assert [path.name for path in Path(folder).iterdir()] == [names[1]]


# On the real scheduler


@pytest.fixture
def job(place: Place, folder: str) -> Iterator[dict[str, Any]]:
    """Give the order of a job that waits in Slurm; afterwards it is cancelled."""
    yield {
        "name": NAME,
        "folder": folder,
        "files": {"job.sh": "#!/bin/sh\necho $PWD $SECRET\n"},
        "command": ["sbatch", "--parsable", "--hold", f"--job-name={NAME}", "--export=NONE",
                    "--output=job.log", "job.sh"],
        "listing": ["squeue", f"--name={NAME}", "--noheader", "--format=%i|%j"],
        "environment": {"SLURM_CONF": os.environ["PERIJOVE_TEST_SLURM_CONF"]},
    }  # fmt: skip
    beds.run_as("alice", "scancel", f"--name={NAME}")


def _cancel(place: Place, job: dict[str, Any], job_id: str, **changes: Any) -> Any:
    fields = {
        "name": NAME,
        "folder": job["folder"],
        "environment": job["environment"],
        "job_id": job_id,
        "command": ["scancel", job_id],
        "check": ["squeue", "-j", job_id, "--noheader", "--format=%i|%j"],
    }
    return place.ask("alice", "cancel", **fields | changes)


@pytest.mark.needs("slurm")
def test_jobs_are_submitted_once(place: Place, job: dict[str, Any]) -> None:
    """A repeated submission tells of the first one; the job is the person's."""
    first = place.ask("alice", "submit", **job)
    again = place.ask("alice", "submit", **job)

    assert (first["state"], first["status"], first["is_cancelled"]) == ("submitted", 0, False)
    assert (again["state"], again["job_id"]) == ("known", first["stdout"].strip())
    listed = beds.run_as("alice", "squeue", f"--name={NAME}", "--noheader", "--format=%u")
    assert listed.stdout.split() == ["alice"]


@pytest.mark.needs("slurm")
def test_submission_that_broke_off_is_looked_up(place: Place, job: dict[str, Any]) -> None:
    """Killed between the scheduler's yes and its record, the next call shows the job by name."""
    first = place.ask("alice", "submit", **job)
    Path(job["folder"], NAME, "submitted").unlink()

    unclear = place.ask("alice", "submit", **job)

    assert unclear["state"] == "unclear"
    assert unclear["listing"]["stdout"].strip() == f"{first['stdout'].strip()}|{NAME}"
    assert 0 <= unclear["age"] < 60


@pytest.mark.needs("slurm")
def test_adopted_job_is_the_launchs(place: Place, job: dict[str, Any]) -> None:
    """Once the hub has said which one it is, it is not looked up again."""
    first = place.ask("alice", "submit", **job)
    Path(job["folder"], NAME, "submitted").unlink()

    place.ask("alice", "adopt", name=NAME, folder=job["folder"], job_id=first["stdout"].strip())
    known = place.ask("alice", "submit", **job)

    assert (known["state"], known["job_id"]) == ("known", first["stdout"].strip())


@pytest.mark.needs("slurm")
def test_rejected_submission_may_be_repeated_on_demand(place: Place, job: dict[str, Any]) -> None:
    """After a scheduler's no, only a hub that says so submits again."""
    rejected = place.ask("alice", "submit", **job | {"command": ["sbatch", "--qos=none", "job.sh"]})
    unclear = place.ask("alice", "submit", **job)
    accepted = place.ask("alice", "submit", **job, again=True)

    assert rejected["status"] != 0
    assert "qos" in rejected["stderr"].lower()
    assert (unclear["state"], unclear["listing"]["stdout"]) == ("unclear", "")
    assert (accepted["state"], accepted["status"]) == ("submitted", 0)


@pytest.mark.needs("slurm")
def test_cancelled_name_is_never_submitted(place: Place, job: dict[str, Any]) -> None:
    """A submission that comes after its cancellation does nothing."""
    place.ask("alice", "cancel", name=NAME, folder=job["folder"])

    assert place.ask("alice", "submit", **job) == {"state": "cancelled"}


@pytest.mark.needs("slurm")
def test_own_job_is_cancelled(place: Place, job: dict[str, Any]) -> None:
    """The job of the launch is cancelled and what it was given removed, all in one call."""
    job_id = place.ask("alice", "submit", **job)["stdout"].strip()

    cancelled = _cancel(place, job, job_id)

    assert (cancelled["state"], cancelled["status"]) == ("cancelled", 0)
    left = {file.name for file in Path(job["folder"], NAME).iterdir()}
    assert left <= {".mutex", "cancelled", "removed", "job.log"}
    listed = beds.run_as("alice", "squeue", f"--name={NAME}", "--noheader", "--format=%T")
    assert set(listed.stdout.split()) <= {"CANCELLED", "COMPLETING"}


@pytest.mark.needs("slurm")
def test_jobs_of_another_name_are_left_alone(place: Place, job: dict[str, Any]) -> None:
    """A job of the same person that does not carry the launch's name is not cancelled."""
    other = beds.run_as(
        "alice", "sbatch", "--parsable", "--hold", "--job-name=mine", "--wrap=true"
    ).stdout.strip()
    try:
        by_id = _cancel(place, job, other)
        by_name = _cancel(place, job, other, check=job["listing"])
        about_all = _cancel(place, job, other, check=["squeue", "--me"])
        state = beds.run_as("alice", "squeue", "-j", other, "--noheader", "--format=%T")
    finally:
        beds.run_as("alice", "scancel", other)

    assert by_id["state"] == "not-ours"
    assert by_name["state"] == "absent"
    assert about_all["error"] == "bad-request"
    assert state.stdout.strip() == "PENDING"


@pytest.mark.needs("slurm")
def test_jobs_of_another_person_are_left_alone(place: Place, job: dict[str, Any]) -> None:
    """bob cannot cancel alice's job, even by its name."""
    job_id = place.ask("alice", "submit", **job)["stdout"].strip()

    answer = place.ask(
        "bob", "cancel", name=NAME, folder=str(place.launches / "bob"), job_id=job_id,
        environment=job["environment"], command=["scancel", job_id],
        check=["squeue", "-j", job_id, "--noheader", "--format=%i|%j"],
    )  # fmt: skip

    assert answer.get("status") != 0
    listed = beds.run_as("alice", "squeue", "-j", job_id, "--noheader", "--format=%T")
    assert listed.stdout.strip() == "PENDING"


@pytest.mark.needs("slurm")
def test_own_job_is_released_and_no_other(place: Place, job: dict[str, Any]) -> None:
    """The job of the launch begins its wait; one of another name, or another person's, does not."""
    job_id = place.ask("alice", "submit", **job)["stdout"].strip()
    mine = ("sbatch", "--parsable", "--hold", "--job-name=mine", "--output=/dev/null")
    other = beds.run_as("alice", *mine, "--wrap=true").stdout.strip()
    try:
        not_ours = _release(place, job, other)
        mixed = _release(place, job, other, command=["scontrol", "release", job_id])
        about_all = _release(place, job, other, check=["squeue", "--me"])
        of_bob = _release(place, job, job_id, user="bob")
        states = [_reason(each) for each in (job_id, other)]
        released = _release(place, job, job_id)
    finally:
        beds.run_as("alice", "scancel", other)

    assert not_ours["state"] == "not-ours"
    assert (mixed["error"], about_all["error"]) == ("bad-request", "bad-request")
    assert of_bob.get("status") != 0
    assert states == ["JobHeldUser", "JobHeldUser"]
    assert (released["state"], released["status"]) == ("released", 0)
    assert _reason(job_id) != "JobHeldUser"


def _release(
    place: Place, job: dict[str, Any], job_id: str, *, user: str = "alice", **changes: Any
) -> Any:
    fields = {
        "name": NAME,
        "environment": job["environment"],
        "job_id": job_id,
        "command": ["scontrol", "release", job_id],
        "check": ["squeue", "-j", job_id, "--noheader", "--format=%i|%j"],
    }
    return place.ask(user, "release", **fields | changes)


def _reason(job_id: str) -> str:
    listed = beds.run_as("alice", "squeue", "-j", job_id, "--noheader", "--format=%r")
    return listed.stdout.strip()


def _programs(script: str) -> Path:
    """Return a folder, root's all the way up, with a `sinfo` that runs `script`."""
    folder = Path("/opt", f"perijove-test-{os.getpid()}")
    folder.mkdir(mode=0o755)
    (folder / "sinfo").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "sinfo").chmod(0o755)
    return folder
