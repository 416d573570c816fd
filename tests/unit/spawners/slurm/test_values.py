"""The notations of Slurm, of which each release and site has its own mixture."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.spawners.slurm.values import (
    MOST_HOSTS,
    expand_hosts,
    gres_request,
    read_duration,
    read_gres,
    read_instant,
    read_memory,
    read_record,
    read_tres,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400),
        ("90:00", 5400),
        ("0:24", 24),
        ("1:30:00", 5400),
        ("1-12", 129_600),
        ("1-12:30", 131_400),
        ("1-12:30:00", 131_400),
        ("7-00:00:00", 604_800),
        ("UNLIMITED", None),
        ("INVALID", None),
        ("Partition_Limit", None),
        ("NONE", None),
        ("", None),
    ],
)
def test_times_are_read_as_slurm_means_them(text: str, seconds: int | None) -> None:
    """A bare number is minutes, and what is no time is no limit."""
    assert read_duration(text) == seconds


def test_instants_of_both_kinds_are_the_same_instant() -> None:
    """Seconds since 1970 and local time without a zone are read alike."""
    local = datetime(2026, 11, 20, 11, 3, 26).astimezone()
    assert read_instant("2026-11-20T11:03:26") == local
    assert read_instant(str(int(local.timestamp()))) == local
    assert read_instant("1795188683") == datetime.fromtimestamp(1795188683, UTC)


@pytest.mark.parametrize("text", ["N/A", "Unknown", "None", "(null)", "", "0", "soon", "9" * 40])
def test_what_is_no_instant_is_none(text: str) -> None:
    """Slurm has several words for an instant that is not known."""
    assert read_instant(text) is None


@pytest.mark.parametrize(
    ("text", "mebibytes"),
    [
        ("4000", 4000),
        ("4000M", 4000),
        ("4Gn", 4096),
        ("4Gc", 4096),
        ("62.50G", 64_000),
        ("1.50G", 1536),
        ("2T", 2 * 2**20),
        ("UNLIMITED", None),
        ("", None),
    ],
)
def test_memory_is_read_in_bytes(text: str, mebibytes: int | None) -> None:
    """A bare number is MiB; a letter behind the unit says per node or per core."""
    assert read_memory(text) == (None if mebibytes is None else mebibytes * 2**20)


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("gpu:4", {"": 4}),
        ("gpu:a100:4(S:0-1)", {"a100": 4}),
        ("gpu:a100_3g.20gb:2(S:0,2)", {"a100_3g.20gb": 2}),
        ("gpu:turing:1,gpu:ampere:3", {"turing": 1, "ampere": 3}),
        ("gpu:nvidia_h200_nvl_4g.71gb:4", {"nvidia_h200_nvl_4g.71gb": 4}),
        ("gpu:rtx-6000:2", {"rtx-6000": 2}),
        ("shard:a100:40", {"shard:a100": 40}),
        ("shard:40", {"shard": 40}),
        ("gpu:4(S:0-1),lustre:1", {"": 4}),
        ("gpu:test:0(IDX:N/A),gpu:mini:1(IDX:2)", {"mini": 1}),
        ("gpu:a100:no_consume:2", {"a100": 2}),
        ("gres:gpu:test:1", {"test": 1}),
        ("gres/gpu:test:1", {"test": 1}),
        ("bandwidth:lustre:no_consume:4G", {}),
        ("gpu", {"": 1}),
        ("gpu:a100", {"a100": 1}),
        ("(null)", {}),
        ("", {}),
    ],
)
def test_gpus_are_counted_by_type(text: str, counts: dict[str, int]) -> None:
    """Types with dots and dashes count, several types count, and other resources do not."""
    assert read_gres(text) == counts


@pytest.mark.parametrize(
    ("key", "argument"),
    [
        ("", "gpu:2"),
        ("a100_3g.20gb", "gpu:a100_3g.20gb:2"),
        ("shard", "shard:2"),
        ("shard:a100", "shard:a100:2"),
    ],
)
def test_what_is_counted_can_be_asked_for(key: str, argument: str) -> None:
    """The keys of a count are those of a request, and back."""
    assert gres_request(key, 2) == argument
    assert read_gres(argument) == {key: 2}


def test_tres_keep_what_is_known() -> None:
    """Cores, memory and GPUs are read; the total of GPUs is none of their types."""
    tres = read_tres("billing=8,cpu=8,gres/gpu:test=1,gres/gpu=3,gres/shard=8,mem=1.50G,node=1")
    assert (tres.cpus, tres.memory_bytes, tres.gpus) == (8, 1536 * 2**20, 3)
    assert tres.gpus_by_type == {"test": 1, "shard": 8}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cpu1", ["cpu1"]),
        ("cpu[1-2],gpu1", ["cpu1", "cpu2", "gpu1"]),
        ("c[008-010,20],gpu-[1-2]", ["c008", "c009", "c010", "c20", "gpu-1", "gpu-2"]),
        ("n[8-11]", ["n8", "n9", "n10", "n11"]),
        ("r[1-2]n[1-2]", ["r1n1", "r1n2", "r2n1", "r2n2"]),
        ("(null)", []),
        ("None assigned", []),
        ("", []),
    ],
)
def test_host_lists_are_expanded(text: str, names: list[str]) -> None:
    """Leading zeros are kept, and brackets may come more than once."""
    assert list(expand_hosts(text)) == names


def test_host_list_stays_within_bounds() -> None:
    """A list that stands for a million names does not become a million names."""
    assert len(expand_hosts("c[1-1000000]")) == MOST_HOSTS
    assert len(expand_hosts("r[1-1000]c[1-1000]")) == MOST_HOSTS


def test_record_is_not_misled_by_free_text() -> None:
    """What stands in the reason of a node, which is last, changes nothing before it."""
    record = read_record("NodeName=a OS=Linux 6.1 #1 State=DOWN+DRAIN Reason=fan State=IDLE")
    assert record["State"] == "DOWN+DRAIN"
    assert record["OS"] == "Linux"


@given(st.text(alphabet="c[]-,0123456789gpu:(S)=./NAT \n\x00٤", max_size=60))
def test_any_text_is_read(text: str) -> None:
    """Nothing that a site prints makes a reader fail."""
    read_duration(text)
    read_instant(text)
    read_memory(text)
    read_gres(text)
    read_tres(text)
    read_record(text)
    assert len(expand_hosts(text)) <= MOST_HOSTS
