"""What a job finds on its node."""

import os
import socket
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perijove.agent import memory, node, rescue
from perijove.agent.cannot import Cannot


def test_its_address_is_the_one_in_the_sites_network() -> None:
    """With networks the address within them is used; without, the node's name and all of them."""
    assert node.choose_host(["192.0.2.1/32", "127.0.0.0/8"], "n1") == ("127.0.0.1", "127.0.0.1")
    assert node.choose_host([], "n1") == ("n1", "0.0.0.0")
    with pytest.raises(Cannot, match=r"no address within 198\.51\.100\.0/24") as refused:
        node.choose_host(["198.51.100.0/24"], "n1")
    assert refused.value.code == "host-refused"


def test_a_port_is_bound_at_once() -> None:
    """What is returned listens; a range that is taken is said to be full."""
    with node.open_port("127.0.0.1", None) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
        with pytest.raises(Cannot) as full:
            node.open_port("127.0.0.1", [port, port])
    assert full.value.code == "port-range-full"


def test_who_listens_is_told_from_strangers() -> None:
    """A listener that no child of ours holds is not ours."""
    with node.open_port("127.0.0.1", None) as listener:
        sockets = node.listeners(listener.getsockname()[1])

        assert len(sockets) == 1
        assert not node.is_ours(sockets)  # the socket is this process's own, not its child's
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
        os.close(reading)
        assert node.is_ours(sockets)
        os.close(writing)
        os.waitpid(child, 0)


def test_a_home_that_hangs_is_given_up() -> None:
    """A look at a home that does not come back costs its time limit, no more."""

    def hang() -> str:
        time.sleep(60)
        return "late"

    began = time.monotonic()
    assert rescue.with_deadline(hang, 0.2) is None
    assert time.monotonic() - began < 10


def test_homes_are_told_apart(tmp_path: Path) -> None:
    """A good home has no trouble, and leaves nothing behind; a missing one is said."""
    assert node.home_trouble(str(tmp_path)) == ("", "")
    assert list(tmp_path.iterdir()) == []
    code, words = node.home_trouble(str(tmp_path / "gone"))
    assert (code, "gone" in words) == ("home-missing", True)


@pytest.mark.parametrize(
    ("lines", "folder"),
    [
        ("0::/slurm/job_1/step_batch\n", "/slurm/job_1/step_batch"),
        ("4:memory:/slurm/uid_1/job_1\n0::/user\n", "/memory/slurm/uid_1/job_1"),
        ("3:cpu,cpuacct:/x\n7:hugetlb,memory:/y\n", "/memory/y"),
        ("", ""),
    ],
)
def test_the_jobs_memory_group_is_found(tmp_path: Path, lines: str, folder: str) -> None:
    """Version 1 and 2 of control groups are read alike."""
    (tmp_path / "cgroup").write_text(lines)
    found = memory.memory_folder(str(tmp_path), str(tmp_path / "cgroup"))
    assert found == (f"{tmp_path}{folder}" if folder else "")


def test_kills_for_memory_are_counted_from_the_start(tmp_path: Path) -> None:
    """Kills before the job count for nothing; each later one is news once."""
    events = tmp_path / "memory.events"
    events.write_text("low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    (tmp_path / "memory.peak").write_text("1048576\n")
    counted = memory.GroupMemory(str(tmp_path))
    assert (counted.killed(), counted.news(), counted.peak()) == (0, 0, 1048576)

    events.write_text("oom_kill 5\n")

    assert (counted.news(), counted.news(), counted.killed()) == (3, 0, 3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=300), max_size=30), st.integers(64, 400))
def test_output_is_kept_within_its_limit(tmp_path: Path, parts: list[bytes], limit: int) -> None:
    """Whatever is written, the beginning and the end are kept, and the file stays small."""
    log = tmp_path / "job.log"
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    output = node.Output(limit, descriptor)
    for part in parts:
        output.write(part)
    os.close(descriptor)

    written, kept = b"".join(parts), log.read_bytes()
    assert len(kept) <= limit + 7
    assert kept.startswith(written[: limit // 2])
    assert kept.endswith(written[-(limit // 4) :])
