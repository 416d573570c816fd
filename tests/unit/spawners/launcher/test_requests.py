"""What the launcher accepts: the checks that stand before every verb."""

import ast
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.spawners.launcher import perijove_launch
from perijove.spawners.launcher.perijove_launch import VERBS, Refusal, check_fields

SOURCE = Path(perijove_launch.__file__)
NAME = "pj-abc23-abcdefghijklmnop"
SPEC = {
    "command": ["server"],
    "environment": {"A": "b"},
    "prefix": "/user/alice/",
    "port_range": [8000, 9000],
    "log_limit": 65536,
    "grace": 1.5,
}
GOOD: dict[str, dict[str, Any]] = {
    "submit": {
        "name": NAME,
        "folder": "/home/alice/jobs",
        "files": {"job.sh": "#!/bin/sh\n"},
        "command": ["sbatch", "--parsable", "job.sh"],
        "listing": ["squeue", f"--name={NAME}"],
        "environment": {"SLURM_CONF": "/etc/slurm.conf"},
        "bin_dir": "/opt/slurm/bin",
        "again": True,
    },
    "adopt": {"name": NAME, "folder": None, "job_id": "17"},
    "cancel": {
        "name": NAME,
        "job_id": "17",
        "command": ["scancel", "17"],
        "check": ["squeue", "-j", "17"],
    },
    "release": {
        "name": NAME,
        "job_id": "17",
        "command": ["scontrol", "release", "17"],
        "check": ["squeue", f"--name={NAME}"],
        "bin_dir": "/opt/slurm/bin",
    },
    "discover": {"commands": [["sinfo"], ["sbatch", "--test-only", "job.sh"]]},
    "log": {"name": NAME, "lines": 10},
    "start": {
        "name": NAME,
        "folder": "/var/lib/perijove-launch/1001-x",
        "label": {"name": NAME},
        "files": {"supervisor.py": ""},
        "spec": SPEC,
        "beside": "/opt/perijove/bin",
        "login": True,
    },
    "survey": {"folder": "/var/lib/perijove-launch/1001-x"},
    "stop": {"name": NAME, "folder": "/x/y", "grace": 3, "force": False},
    "listener": {"name": NAME, "folder": "/x/y", "sockets": ["12345"]},
}
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.sampled_from(["--", "-rf", "$(id)", "a\nb", "../x", "/etc", "\0", "\ud800", NAME, "17"]),
)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
BAD = [
    ("log", "name", "pj-abc23-ABC"),
    ("log", "name", "../pj-abc23-abc"),
    ("log", "name", NAME + "\n"),
    ("log", "name", "my-own-job"),
    ("log", "folder", "relative"),
    ("log", "folder", "/a/../b"),
    ("log", "folder", "//a"),
    ("log", "lines", True),
    ("log", "lines", 0),
    ("log", "seconds", 3600),
    ("adopt", "job_id", "17; id"),
    ("adopt", "job_id", "-u"),
    ("submit", "command", ["/bin/sh", "-c", "id"]),
    ("submit", "command", ["./sbatch"]),
    ("submit", "command", []),
    ("submit", "command", "sbatch job.sh"),
    ("submit", "listing", ["scancel", "-u", "alice"]),
    ("submit", "environment", {"LD_PRELOAD": "/tmp/evil.so"}),
    ("submit", "environment", {"SLURM_CONF=x\nPATH": "y"}),
    ("submit", "files", {"../../.bashrc": ""}),
    ("submit", "files", {".ssh": ""}),
    ("submit", "files", {"cancelled": ""}),
    ("submit", "bin_dir", "bin"),
    ("cancel", "command", ["sbatch", "17"]),
    ("release", "command", None),
    ("release", "command", ["scontrol", "release"]),
    ("release", "command", ["scontrol", "update", "17"]),
    ("release", "command", ["scontrol", "release", "17", "18"]),
    ("release", "command", ["scontrol", "release", "17,18"]),
    ("release", "command", ["scontrol", "release", "jobname=x"]),
    ("release", "command", ["qrls", "-h", "17"]),
    ("release", "command", ["qrls", "-u"]),
    ("release", "command", ["qrls", "all"]),
    ("release", "command", ["qmod", "17"]),
    ("release", "check", ["scancel", "17"]),
    ("release", "job_id", None),
    ("start", "spec", SPEC | {"uid": 0}),
    ("start", "spec", SPEC | {"port_range": [0, 70000]}),
    ("start", "spec", {}),
    ("start", "beside", "bin"),
    ("stop", "grace", float("nan")),
]
ASKS = [
    ["sacctmgr", "-nP", "show", "assoc", "user=alice"],
    ["scontrol", "-o", "show", "node"],
    ["qconf", "-sq", "all.q"],
    ["qsub", "-w", "v", "job.sh"],
    ["qsub", "-verify", "job.sh"],
    ["squeue", "--me"],
]
ACTS = [
    ["sacctmgr", "-i", "add", "user", "alice"],
    ["scontrol", "update", "jobid=1"],
    ["scontrol", "release", "show"],
    ["scontrol"],
    ["qconf", "-aq", "show"],
    ["qconf", "-sq", "all.q", "-dq", "all.q"],
    ["qsub", "job.sh"],
    ["qsub", "-w", "v", "-w", "n", "job.sh"],
    ["qsub", "-w", "e", "job.sh"],
    ["sbatch", "job.sh"],
    ["scancel", "1"],
    ["bash"],
]


def test_it_runs_on_old_machines() -> None:
    """The file is one that Python 3.6 can read, and imports the standard library only."""
    tree = ast.parse(SOURCE.read_text(), feature_version=(3, 6))
    names = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }

    assert names <= sys.stdlib_module_names


def test_it_begins_apart_from_its_surroundings() -> None:
    """Run by its first line, it reads no start file, no variable and no folder of the caller."""
    assert SOURCE.read_text().splitlines()[0] == "#!/usr/bin/python3 -I"


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_good_requests_are_accepted(verb: str) -> None:
    """Every verb takes what it is meant to take."""
    fields = check_fields(json.loads(json.dumps(GOOD[verb])), VERBS[verb][1])

    assert {key: fields[key] for key in GOOD[verb]} == GOOD[verb]


@pytest.mark.parametrize(("verb", "field", "value"), BAD)
def test_bad_fields_are_refused(verb: str, field: str, value: object) -> None:
    """What could be misunderstood, reach elsewhere or run something else is refused."""
    with pytest.raises(Refusal) as refusal:
        check_fields(GOOD[verb] | {field: value}, VERBS[verb][1])

    assert refusal.value.code == "bad-request"


@pytest.mark.parametrize("command", ASKS)
def test_questions_may_be_asked(command: list[str]) -> None:
    """What only asks is allowed."""
    check_fields({"commands": [command]}, VERBS["discover"][1])


@pytest.mark.parametrize("command", ACTS)
def test_nothing_is_changed_by_asking(command: list[str]) -> None:
    """What changes something cannot be passed as a question."""
    with pytest.raises(Refusal):
        check_fields({"commands": [command]}, VERBS["discover"][1])


@given(verb=st.sampled_from(sorted(VERBS)), field=st.text(min_size=1), value=ANYTHING)
def test_unknown_fields_are_refused(verb: str, field: str, value: object) -> None:
    """A field that a verb does not have is refused, whatever it holds."""
    if field in VERBS[verb][1] or field == "seconds":
        return
    with pytest.raises(Refusal):
        check_fields(GOOD[verb] | {field: value}, VERBS[verb][1])


@given(st.data())
def test_any_value_is_taken_or_refused(data: st.DataObject) -> None:
    """Whatever a field holds, it is accepted or refused, and nothing else ever happens."""
    verb = data.draw(st.sampled_from(sorted(VERBS)))
    field = data.draw(st.sampled_from(sorted(VERBS[verb][1])))
    value = data.draw(ANYTHING)

    with suppress(Refusal):
        fields = check_fields(GOOD[verb] | {field: value}, VERBS[verb][1])
        assert set(fields) == {*VERBS[verb][1], "seconds"}


@pytest.mark.parametrize(
    ("program", "status", "printed", "job_id"),
    [
        ("sbatch", 0, "53\n", "53"),
        ("sbatch", 0, "a site's greeting 7\n53;cluster\n\n", "53"),
        ("qsub", 0, "warning: 12 slots\n4711\n", "4711"),
        ("qsub", 0, "4711.1-10:1\n", "4711"),
        ("sbatch", 0, "Submitted batch job 53\n", None),
        ("qsub", 0, "4711;cluster\n", None),
        ("sbatch", 0, "", None),
        ("sbatch", 1, "53\n", None),
    ],
)
def test_a_submission_names_its_job_in_its_last_line(
    program: str, status: int, printed: str, job_id: str | None
) -> None:
    """What is no id is not taken for one: then the queue is asked."""
    said = {"status": status, "stdout": printed, "stderr": ""}

    assert perijove_launch.submitted_id(program, said) == job_id


@given(st.text(), st.text())
def test_start_files_of_the_machine_are_only_read(
    tmp_path_factory: pytest.TempPathFactory, name: str, value: str
) -> None:
    """Whatever a file of variables holds, what comes of it are variables."""
    file = tmp_path_factory.mktemp("etc") / "environment"
    file.write_bytes(f"{name}={value}\n".encode(errors="replace"))

    for one in perijove_launch.assignments(os.fspath(file)):
        assert one.isidentifier()
