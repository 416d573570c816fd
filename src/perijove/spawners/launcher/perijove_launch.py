#!/usr/bin/python3 -I
"""
Do one thing for one person on this machine, as that person: nothing here ever runs as root.

A program, not a module of the hub: one file, standard library only, Python 3.6 or later. It is
installed as ``/usr/libexec/perijove-launch`` and reached through sudo, or run by a hub that is
root and has become the person. One JSON object on standard input says what is wanted, one JSON
object on standard output what came of it; a refusal is ``{"error": CODE, "message": TEXT}`` and
exit status 3. The verbs and their fields are in the table `VERBS`; docs/design/spawners.md tells
what the files in a launch directory mean.

What it keeps to: it works in directories of the person's own only, never through a symbolic
link; a launch's name has our pattern; only programs of an allow-list are run, from places that
root alone can change; a job or process is touched only if it carries the launch's name.
"""
# pathlib would add much to what this small program needs to start:
# ruff: noqa: PTH100, PTH112, PTH113, PTH115, PTH116, PTH118, PTH119, PTH120, PTH123, PTH208

import contextlib
import errno
import fcntl
import grp
import json
import os
import pwd
import re
import shutil
import signal
import stat
import struct
import subprocess
import sys
import time
import types

TYPE_CHECKING = False  # As in `typing`, whose import would cost more than all the rest.
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from typing import Any

    Check = Callable[[object, str], Any]
    Answer = dict[str, Any]

CONFIGURATION = "/etc/perijove-launch.json"  # Optional: {"group": NAME, "lowest_uid": NUMBER}.
GROUP = "perijove-users"
LOWEST_UID = 1000
UMASK = 0o022

REQUEST_BYTES = 4 * 2**20
OUTPUT_BYTES = 8 * 2**20
FILE_BYTES = 2**20
LOG_BYTES = 256 * 1024
READ_SECONDS = 30
LONGEST_SECONDS = 300
SHELL_SECONDS = 5.0
ADDRESS_SECONDS = 3.0
POLL_SECONDS = 0.005
KEPT_SECONDS = 7 * 86400
SETTLED_SECONDS = 3600

NAME = re.compile(r"pj-[a-z0-9]{1,32}-[a-z0-9]{1,32}(-[a-z0-9]{1,16})?\Z")
FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
JOB_ID = re.compile(r"[0-9]{1,18}([._][0-9A-Za-z._-]{1,40})?\Z")
VARIABLE = re.compile(r"(SLURM|SGE)_[A-Z0-9_]{1,60}\Z")
WORD = re.compile(r"[A-Za-z0-9._-]+")
MARKS = {"submitting", "submitted", "cancelled", "removed", "started", "end.json", "output", "lock"}
MARKER = b"PERIJOVE_LAUNCH="

PATHS = ("/usr/bin", "/bin", "/usr/local/bin", "/opt/slurm/bin", "/opt/sge/bin/lx-amd64")
# What submits, and the last line it prints when it has: a job's id, and what is no part of it.
SUBMITTING = {
    "sbatch": re.compile(r"([0-9]{1,18})(;[A-Za-z0-9_.-]+)?\Z"),
    "qsub": re.compile(r"([0-9]{1,18})(\.[0-9]+-[0-9]+:[0-9]+)?\Z"),
}
CANCELLING = {"scancel", "qdel"}
RELEASING = (["scontrol", "release"], ["qrls"])  # And then the job, nothing else.
LISTING = {"squeue", "sacct", "qstat", "qacct"}
# What may be asked besides: a program, and what has to be among its arguments.
ASKING = {
    "sacctmgr": re.compile("show|list"),
    "scontrol": re.compile("show|ping"),
    "sbatch": re.compile("--test-only"),
    "qconf": re.compile("-s[a-z]+"),
    "qsub": re.compile("-w|-verify"),
    "squeue": None,
    "sinfo": None,
    "sshare": None,
    "sprio": None,
    "sacct": None,
    "qstat": None,
    "qhost": None,
    "qquota": None,
    "quota": None,
}
SHELLS = {"sh", "bash", "dash", "zsh", "ksh"}

FLOCK = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux: type, whence, start, length, pid.


class Refusal(Exception):
    """The request is not carried out; nothing was done unless the message says so."""

    def __init__(self, code: str, message: str, **params: str) -> None:
        super().__init__(message)
        self.code = code
        self.params = params


def main() -> int:
    """Read a request, carry it out, answer; never a traceback."""
    signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(READ_SECONDS)
    status = 3
    try:
        through_sudo = "SUDO_UID" in os.environ
        leave_caller_behind()
        person = check_person(through_sudo)
        verb, fields = read_request()
        signal.alarm(fields.pop("seconds"))
        answer = VERBS[verb][0](person, types.SimpleNamespace(**fields))
        status = 0
    except Refusal as refusal:
        answer = {"error": refusal.code, "message": str(refusal), "params": refusal.params}
    except OSError as error:
        answer = {"error": error_code(error), "message": str(error)}
    except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets an answer
        answer = {"error": "internal", "message": type(error).__name__}
    signal.alarm(0)
    text = json.dumps(answer).encode("ascii")
    with contextlib.suppress(OSError):
        while text:
            text = text[os.write(1, text) :]
    return status


def on_alarm(*_: object) -> None:
    """Give up."""
    raise Refusal("launcher-timeout", "not done in time; it may have been done in part")


def error_code(error: OSError) -> str:
    """Return what is wrong with the file system."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "home-full"
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return "not-ours"
    return "file-system"


# Who asks, and what


def leave_caller_behind() -> None:
    """Hold on to nothing of the caller but the request and the answer."""
    os.closerange(3, 1024)
    os.environ.clear()
    os.environ.update(LC_ALL="C", PATH="/usr/bin:/bin")
    os.umask(0o077)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.chdir("/")


def check_person(through_sudo: bool) -> "pwd.struct_passwd":
    """Return who we are; refuse root, accounts of the system, and who may not be served."""
    ids = os.getresuid()
    group, lowest = read_configuration()
    if len(set(ids)) != 1 or len(set(os.getresgid())) != 1:
        raise Refusal("account-refused", "the account is not taken on as a whole")
    if ids[0] < max(lowest, 1):
        raise Refusal("account-refused", "accounts of the system are not served")
    try:
        person = pwd.getpwuid(ids[0])
    except KeyError:
        raise Refusal("account-unknown", "this account has no name") from None
    if through_sudo and not is_member(person, group):
        raise Refusal("account-refused", "the account is not in the group " + group)
    return person


def read_configuration() -> "tuple[str, int]":
    """Return the group that is served through sudo, and the lowest account number."""
    group, lowest = GROUP, LOWEST_UID
    with contextlib.suppress(OSError), open("/etc/login.defs", encoding="utf-8") as file:
        for line in file:
            words = line.split()
            if len(words) == 2 and words[0] == "UID_MIN" and words[1].isdigit():
                lowest = int(words[1])
    if os.path.lexists(CONFIGURATION):
        check_root_owns(CONFIGURATION)
        with open(CONFIGURATION, encoding="utf-8") as file:
            found = json.load(file)
        group = text(found.get("group", group), "group")
        lowest = number(0, 2**31)(found.get("lowest_uid", lowest), "lowest_uid")
    return group, lowest


def is_member(person: "pwd.struct_passwd", group: str) -> bool:
    """Tell whether a person is in a group, by the system's tables."""
    try:
        wanted = grp.getgrnam(group).gr_gid
    except KeyError:
        return False
    return wanted in os.getgrouplist(person.pw_name, person.pw_gid)


def read_request() -> "tuple[str, dict[str, Any]]":
    """Return the verb and its fields, each of which is as it should be."""
    given = bytearray()
    while len(given) <= REQUEST_BYTES:
        part = os.read(0, 65536)
        if not part:
            break
        given += part
    else:
        raise Refusal("bad-request", "the request is too long")
    try:
        request = json.loads(given.decode("utf-8"))
    except (ValueError, RecursionError):
        raise Refusal("bad-request", "the request is not JSON") from None
    if not isinstance(request, dict) or not isinstance(request.get("verb"), str):
        raise Refusal("bad-request", "the request is not an object with a verb")
    verb = request.pop("verb")
    if verb not in VERBS:
        raise Refusal("bad-request", "there is no such verb")
    return verb, check_fields(request, VERBS[verb][1])


def check_fields(request: "dict[str, Any]", checks: "dict[str, Check]") -> "dict[str, Any]":
    """Return every field, checked; refuse fields that are unknown."""
    checks = dict(checks, seconds=optional(number(1, LONGEST_SECONDS), READ_SECONDS))
    if not set(request) <= set(checks):
        raise Refusal("bad-request", "the request has a field that its verb does not have")
    return {field: check(request.get(field), field) for field, check in checks.items()}


# What a field may be


def wrong(field: str) -> Refusal:
    """Return the refusal of a field."""
    return Refusal("bad-request", "the field " + field + " is missing or wrong")


def text(value: object, field: str, limit: int = 4096) -> str:
    """Return a text without NUL that can be encoded."""
    if not isinstance(value, str) or len(value) > limit or "\0" in value:
        raise wrong(field)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise wrong(field) from None
    return value


def matching(pattern: "re.Pattern[str]") -> "Check":
    """Return the check of a text that has to have a pattern."""

    def check(value: object, field: str) -> str:
        if not pattern.match(text(value, field)):
            raise wrong(field)
        return str(value)

    return check


def number(lowest: float, highest: float) -> "Check":
    """Return the check of a whole number."""

    def check(value: object, field: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            raise wrong(field)
        return value

    return check


def flag(value: object, field: str) -> bool:
    """Return a truth value; without one it is false."""
    if value is not None and not isinstance(value, bool):
        raise wrong(field)
    return bool(value)


def optional(check: "Check", default: object = None) -> "Check":
    """Return the check of a field that may be left out."""
    return lambda value, field: default if value is None else check(value, field)


def path(value: object, field: str) -> str:
    """Return an absolute path without tricks."""
    found = text(value, field)
    if not found.startswith("/") or os.path.normpath(found) != found or found.startswith("//"):
        raise wrong(field)
    return found


def texts(value: object, field: str) -> "list[str]":
    """Return a list of texts: a command."""
    if not isinstance(value, list) or not 1 <= len(value) <= 500:
        raise wrong(field)
    return [text(one, field, 32768) for one in value]


def command_of(programs: "Collection[str]") -> "Check":
    """Return the check of a command whose program is one of `programs`."""

    def check(value: object, field: str) -> "list[str]":
        found = texts(value, field)
        if found[0] not in programs:
            raise Refusal("bad-request", "the program in " + field + " is not allowed")
        return found

    return check


def releasing(value: object, field: str) -> "list[str]":
    """Return a command that releases one job."""
    command = texts(value, field)
    if command[:-1] not in RELEASING or not JOB_ID.match(command[-1]):
        raise Refusal("bad-request", "this command of " + field + " is not allowed")
    return command


def questions(value: object, field: str) -> "list[list[str]]":
    """Return commands that only ask."""
    if not isinstance(value, list) or not 1 <= len(value) <= 20:
        raise wrong(field)
    return [question(one, field) for one in value]


def question(value: object, field: str) -> "list[str]":
    """Return a command that only asks."""
    command = texts(value, field)
    program, arguments = command[0], command[1:]
    if program not in ASKING or not only_asks(program, arguments):
        raise Refusal("bad-request", "this command of " + field + " is not allowed")
    return command


def only_asks(program: str, arguments: "Sequence[str]") -> bool:
    """Tell whether these arguments make a program ask and nothing else."""
    needed = ASKING[program]
    if needed is None:
        return True
    if program == "sbatch":
        return "--test-only" in arguments
    if program == "qsub":
        modes = [after for one, after in zip(arguments, arguments[1:]) if one == "-w"]  # noqa: B905,RUF007 - Python 3.6
        return "-verify" in arguments or modes in (["v"], ["p"])
    if program == "qconf":
        options = [one for one in arguments if one.startswith("-")]
        return bool(options) and all(needed.fullmatch(one) for one in options)
    words = [one for one in arguments if not one.startswith("-")]
    return bool(words) and needed.fullmatch(words[0]) is not None


def variables(pattern: "re.Pattern[str] | None") -> "Check":
    """Return the check of an environment whose names have a pattern."""

    def check(value: object, field: str) -> "dict[str, str]":
        if not isinstance(value, dict) or len(value) > 2000:
            raise wrong(field)
        for name, content in value.items():
            if not name or "=" in text(name, field) or (pattern and not pattern.match(name)):
                raise wrong(field)
            text(content, field, 131072)
        return value

    return check


def files(value: object, field: str) -> "dict[str, str]":
    """Return texts by file name, none of which is a name of ours."""
    if not isinstance(value, dict) or len(value) > 20:
        raise wrong(field)
    for name, content in value.items():
        matching(FILE)(name, field)
        if name in MARKS:
            raise wrong(field)
        text(content, field, FILE_BYTES)
    return value


def order(value: object, field: str) -> "dict[str, Any]":
    """Return what a supervisor is told to run."""
    if not isinstance(value, dict):
        raise wrong(field)
    if set(value) != {"command", "environment", "prefix", "port_range", "log_limit", "grace"}:
        raise wrong(field)
    texts(value["command"], field)
    variables(None)(value["environment"], field)
    text(value["prefix"], field)
    number(4096, 2**40)(value["log_limit"], field)
    seconds(value["grace"], field)
    ports = value["port_range"]
    if ports is not None:
        if not isinstance(ports, list) or len(ports) != 2:
            raise wrong(field)
        for port in ports:
            number(1, 65535)(port, field)
    return value


def seconds(value: object, field: str) -> float:
    """Return a time, also as a fraction."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 86400:
        raise wrong(field)
    return value


# The person's directories


@contextlib.contextmanager
def open_folder(
    person: "pwd.struct_passwd", folder: "str | None", make: bool = True
) -> "Iterator[int]":
    """Open the directory of a person's launches, made if need be; it is theirs alone."""
    if folder is None:
        start, parts = person.pw_dir, [".perijove", "launches"]
    else:
        start, name = os.path.split(folder)
        parts = [name]
    try:
        here = os.open(start, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        code = "home-missing" if folder is None else "folder-missing"
        raise Refusal(code, start + " is not there") from None
    except PermissionError:
        # A directory that may be entered and not be read, as those shared by all people are.
        here = os.open(start, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            try:
                inner = open_own(here, part, make)
            except FileNotFoundError:
                raise Refusal("folder-missing", f"{folder} is not there") from None
            os.close(here)
            here = inner
        yield here
    finally:
        os.close(here)


def open_own(folder: int, name: str, make: bool = True) -> int:
    """Open a directory of our own, and see to it that nobody else can look into it."""
    if make:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=folder)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    opened = os.open(name, flags, dir_fd=folder)
    found = os.fstat(opened)
    if found.st_uid != os.getuid():
        os.close(opened)
        raise Refusal("not-ours", name + " belongs to the account " + str(found.st_uid))
    if found.st_mode & 0o077:
        os.fchmod(opened, 0o700)
    return opened


@contextlib.contextmanager
def open_launch(folder: int, name: str, make: bool = True) -> "Iterator[int]":
    """Open the directory of a launch and be the only one that changes it."""
    opened = open_own(folder, name, make)
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        mutex = os.open(".mutex", flags, 0o600, dir_fd=opened)
        try:
            # Some network file systems have no such locks. The marks are made exclusively, so
            # that even then two calls at once end in one job; they only understand less.
            with contextlib.suppress(OSError):
                fcntl.flock(mutex, fcntl.LOCK_EX)
            yield opened
        finally:
            os.close(mutex)
    finally:
        os.close(opened)


def exists(folder: int, name: str) -> bool:
    """Tell whether there is something of this name."""
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def read(folder: int, name: str, limit: int, from_end: bool = False) -> bytes:
    """Return what a regular file holds, at most `limit` bytes of it."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    opened = os.open(name, flags, dir_fd=folder)
    with os.fdopen(opened, "rb") as file:
        found = os.fstat(opened)
        if not stat.S_ISREG(found.st_mode):
            raise Refusal("not-ours", name + " is not a file")
        if from_end:
            file.seek(max(found.st_size - limit, 0))
        return file.read(limit)


def read_object(folder: int, name: str) -> "dict[str, Any] | None":
    """Return the JSON object in a file; None without the file, empty if it is damaged."""
    try:
        found = json.loads(read(folder, name, FILE_BYTES).decode("utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def write(folder: int, name: str, content: bytes) -> None:
    """Replace a file, mode 0600, as a whole and durably."""
    draft = ".new-" + name
    remove(folder, draft)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(draft, flags, 0o600, dir_fd=folder), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.rename(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)


def mark(folder: int, name: str, **content: object) -> None:
    """Write one of the marks by which a launch is known."""
    write(folder, name, json.dumps(dict(content, at=time.time())).encode("ascii"))


def remove(folder: int, name: str) -> None:
    """Remove a file if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def clear(folder: int, name: str, keep: "Sequence[str]") -> None:
    """Remove all that is in the launch directory `name` but the files `keep`."""
    with contextlib.suppress(FileNotFoundError):
        launch = open_own(folder, name, make=False)
        try:
            for entry in os.listdir(launch):
                if entry in keep:
                    continue
                try:
                    os.unlink(entry, dir_fd=launch)
                except IsADirectoryError:
                    clear(launch, entry, ())
                    os.rmdir(entry, dir_fd=launch)
        finally:
            os.close(launch)


def retire(folder: int, launch: int, name: str, **content: object) -> None:
    """Leave of a launch that it is over, and its last output, for a week."""
    write(launch, "output", output_of(launch, LOG_BYTES))
    mark(launch, "removed", **content)
    clear(folder, name, ("removed", "cancelled", "output", ".mutex"))


def retire_job(folder: int, launch: int, name: str) -> None:
    """
    Leave of a job what its end may still be written into, and that it is over.

    It may still be ending, and has read by now whatever it needs; a job that comes later than
    its cancellation finds nothing to run.
    """
    mark(launch, "removed")
    clear(folder, name, ("removed", "cancelled", "output", "job.log", ".mutex"))


def sweep(folder: int) -> None:
    """Keep of a job's log the end when nobody writes it any more; forget all after a week."""
    now = time.time()
    for name in os.listdir(folder):
        if not NAME.match(name):
            continue
        with contextlib.suppress(OSError, Refusal):
            removed = os.stat(name + "/removed", dir_fd=folder, follow_symlinks=False)
            if removed.st_mtime < now - KEPT_SECONDS:
                clear(folder, name, ())
                os.rmdir(name, dir_fd=folder)
            elif removed.st_mtime < now - SETTLED_SECONDS and exists(folder, name + "/job.log"):
                with open_launch(folder, name, make=False) as launch:
                    write(launch, "output", output_of(launch, LOG_BYTES))
                    remove(launch, "job.log")


def output_of(launch: int, limit: int) -> bytes:
    """Return the last bytes that a job or a server wrote."""
    parts = []
    for name in ("output", "job.log", "log", "log.tail.1", "log.tail"):
        with contextlib.suppress(OSError, Refusal):
            parts.append(read(launch, name, limit, from_end=True))
    return b"".join(parts)[-limit:]


# Programs of the scheduler


def check_root_owns(file: str) -> None:
    """Refuse a file that somebody other than root could change or replace."""
    here = os.path.realpath(file)
    while True:
        found = os.stat(here)
        if found.st_uid != 0 or found.st_mode & 0o022:
            raise Refusal("program-refused", here + " can be changed by others than root")
        if here == "/":
            return
        here = os.path.dirname(here)


def find_program(program: str, bin_dir: "str | None") -> str:
    """Return the path of a scheduler's program, at a place that root alone can change."""
    folders = (bin_dir,) if bin_dir else PATHS
    for folder in folders:
        found = os.path.join(folder, program)
        if os.path.isfile(found) and os.access(found, os.X_OK):
            check_root_owns(folder)
            check_root_owns(found)
            return found
    raise missing(program, ", ".join(folders))


def missing(command: str, places: str) -> Refusal:
    """Return the refusal of a command that is nowhere."""
    message = f"the command {command} is not there or cannot be executed; looked at {places}"
    return Refusal("command-missing", message, command=command, places=places)


def run(person: "pwd.struct_passwd", ask: "Any", command: "list[str]") -> "Answer":
    """Run a scheduler's program and return its status and what it wrote."""
    program = find_program(command[0], ask.bin_dir)
    environment = dict(
        ask.environment,
        LC_ALL="C",
        PATH=os.path.dirname(program) + ":/usr/bin:/bin",
        HOME=person.pw_dir,
        USER=person.pw_name,
        LOGNAME=person.pw_name,
    )
    ours = os.umask(UMASK)  # A scheduler passes it on to the job.
    process = subprocess.Popen(  # noqa: S603 - of the allow-list, no shell
        [program, *command[1:]],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    os.umask(ours)
    try:
        out, err = process.communicate()
    except BaseException:
        process.kill()
        raise
    return {
        "status": process.returncode,
        "stdout": out[:OUTPUT_BYTES].decode("utf-8", "replace"),
        "stderr": err[:LOG_BYTES].decode("utf-8", "replace"),
    }


# Verbs for jobs


def submit(person: "pwd.struct_passwd", ask: "Any") -> "Answer":
    """
    Submit the job of a launch, once.

    The mark ``submitting`` is there before the scheduler hears of it, ``submitted`` when it has
    named the job. Between them nobody knows: then the jobs of this name are listed for the hub,
    which says by `adopt` which one it is, or by `again` that there is none.
    """
    with open_folder(person, ask.folder) as launches:
        sweep(launches)
        with open_launch(launches, ask.name) as launch:
            if exists(launch, "cancelled"):
                return {"state": "cancelled"}
            known = read_object(launch, "submitted")
            if known is not None and "job_id" in known:
                return dict(known, state="known")
            doubt = read_object(launch, "submitting")
            if doubt is not None and not ask.again:
                age = max(time.time() - doubt.get("at", 0), 0)
                return {"state": "unclear", "listing": run(person, ask, ask.listing), "age": age}
            find_program(ask.command[0], ask.bin_dir)  # Missing: known before there is a mark.
            for file, content in ask.files.items():
                write(launch, file, content.encode("utf-8"))
            mark(launch, "submitting")
            os.fchdir(launch)
            result = run(person, ask, ask.command)
            job_id = submitted_id(ask.command[0], result)
            if job_id is not None:
                mark(launch, "submitted", job_id=job_id)
            return dict(result, state="submitted", is_cancelled=exists(launch, "cancelled"))


def submitted_id(program: str, result: "Answer") -> "str | None":
    """Return the job's id that a submission printed; None when it failed or said none."""
    if result["status"] != 0:
        return None
    found = SUBMITTING[program].match(result["stdout"].strip().rpartition("\n")[2].strip())
    return found.group(1) if found else None


def adopt(person: "pwd.struct_passwd", ask: "Any") -> "Answer":
    """Write down which job is the launch's, where a submission was cut off."""
    with open_folder(person, ask.folder) as launches, open_launch(launches, ask.name) as launch:
        mark(launch, "submitted", job_id=ask.job_id)
        return {"state": "cancelled" if exists(launch, "cancelled") else "known"}


def cancel(person: "pwd.struct_passwd", ask: "Any") -> "Answer":
    """
    Make a submission of this name impossible, cancel the job if it carries the name, and remove.

    Of the directory the marks and the job's log stay. Said again it does the same again: whether
    the scheduler has heard of it, is in the answer, and whether it helped, in the queue.
    """
    if len({ask.command is None, ask.check is None, ask.job_id is None}) != 1:
        raise Refusal("bad-request", "job_id, command and check belong together")
    with open_folder(person, ask.folder) as launches:
        launch = open_own(launches, ask.name)
        if not exists(launch, "cancelled"):
            mark(launch, "cancelled")  # Without waiting for a submission that may be under way.
        os.close(launch)
        with open_launch(launches, ask.name) as launch:
            answer = {"state": "marked"}
            if ask.job_id is not None:
                answer = run_on_own(person, ask, "cancelled")
            retire_job(launches, launch, ask.name)
            return answer


def release(person: "pwd.struct_passwd", ask: "Any") -> "Answer":
    """Take the person's own hold off the job if it carries the name."""
    return run_on_own(person, ask, "released")


def run_on_own(person: "pwd.struct_passwd", ask: "Any", state: str) -> "Answer":
    """Run a command on a job after the scheduler has said that it has the launch's name."""
    # The question names the job or the launch, so that the answer can be about nothing else.
    asked = {word for argument in ask.check[1:] for word in WORD.findall(argument)}
    if not asked & {ask.name, ask.job_id} or ask.job_id not in ask.command[1:]:
        raise Refusal("bad-request", "the commands do not name the job")
    checked = run(person, ask, ask.check)
    words = set(WORD.findall(checked["stdout"]))
    if not words & {ask.name, ask.job_id}:
        return {"state": "absent", "check": checked}
    if not {ask.name, ask.job_id} <= words:
        return {"state": "not-ours", "check": checked}
    return dict(run(person, ask, ask.command), state=state)


def discover(person: "pwd.struct_passwd", ask: "Any") -> "Answer":
    """Run commands that only ask, one after the other."""
    return {"results": [run(person, ask, one) for one in ask.commands]}


def log(person: "pwd.struct_passwd", ask: "Any") -> "Answer":
    """Return the last lines of output, also for a while after the launch was removed."""
    with open_folder(person, ask.folder) as launches:
        try:
            launch = open_own(launches, ask.name, make=False)
        except FileNotFoundError:
            return {"text": ""}
        output = output_of(launch, LOG_BYTES)
        os.close(launch)
    return {"text": "\n".join(output.decode("utf-8", "replace").splitlines()[-ask.lines :])}


# Verbs for servers on this machine; the other side of the files is the supervisor


def start(person: "pwd.struct_passwd", ask: "Any") -> "Answer":
    """Start a launch once, in what the person finds after signing in, and tell what is known."""
    environment, umask = login_environment(person, ask.login)
    environment.update(ask.spec["environment"])
    command = find_command(ask.spec["command"], environment, ask.beside)
    spec = dict(
        ask.spec,
        command=command,
        environment=environment,
        umask=umask,
        home=find_home(person),
    )
    with open_folder(person, ask.folder) as launches:
        with open_launch(launches, ask.name) as launch:
            if not is_settled(launch):
                for file, content in ask.files.items():
                    write(launch, file, content.encode("utf-8"))
                write(launch, "label.json", json.dumps(ask.label).encode("ascii"))
                write(launch, "spec.json", json.dumps(spec).encode("ascii"))
                hand_over(launch, ask.folder + "/" + ask.name)
        latest = time.monotonic() + ADDRESS_SECONDS
        while True:
            found = look(launches, ask.name)
            if is_telling(found) or time.monotonic() >= latest:
                return {"launch": found}
            time.sleep(POLL_SECONDS)


def is_settled(launch: int) -> bool:
    """Tell whether nothing may be started any more."""
    marks = ("started", "cancelled", "removed", "end.json")
    return holder_of(launch) is not None or any(exists(launch, one) for one in marks)


def is_telling(found: "Answer | None") -> bool:
    """Tell whether a launch is further than being on its way."""
    return found is None or any(found[key] is not None for key in ("address", "end", "removed"))


def hand_over(launch: int, directory: str) -> None:
    """Have the supervisor that came with the launch take it; it outlives us."""
    os.fchdir(launch)
    # The process we wait for forks and leaves.
    status = subprocess.call(  # noqa: S603 - came with the launch, runs as its person
        [sys.executable, "-I", "-S", "supervisor.py", directory],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    if status != 0:
        raise Refusal("supervisor-failed", "the supervisor did not begin")


def survey(person: "pwd.struct_passwd", ask: "Any") -> "Answer":
    """
    Tell about all launches that are not removed.

    One that is written down and was not taken is handed over now; what is left of one whose
    supervisor was killed is killed. A folder that has been there and is away, as when a file
    system is not mounted, tells nothing: it is refused with `known`.
    """
    found = []
    with open_folder(person, ask.folder, make=not ask.known) as launches:
        sweep(launches)
        for name in sorted(os.listdir(launches)):
            if not NAME.match(name) or exists(launches, name + "/removed"):
                continue
            with contextlib.suppress(FileNotFoundError):
                with open_launch(launches, name, make=False) as launch:
                    if exists(launch, "spec.json") and not is_settled(launch):
                        hand_over(launch, ask.folder + "/" + name)
                seen = look(launches, name)
                if seen is not None:
                    found.append(seen)
    return {"launches": found}


def look(folder: int, name: str) -> "Answer | None":
    """Return what the files prove of a launch; None when there is nothing to tell."""
    try:
        launch = open_own(folder, name, make=False)
    except FileNotFoundError:
        return None
    try:
        # The order is the proof. The supervisor takes the lock, then writes `started`; it writes
        # the end, then lets go of the lock. So: started, and then nobody at the lock, means that
        # an end that is not there now will never be.
        removed = read_object(launch, "removed")
        label = read_object(launch, "label.json")
        started = read_object(launch, "started")
        holder = holder_of(launch)
        end = None if holder else read_object(launch, "end.json")
        is_lost = started is not None and holder is None and end is None and removed is None
        return {
            "name": name,
            "label": label,
            "started": started,
            "holder": holder,
            "address": read_object(launch, "address.json") if holder else None,
            "end": end,
            "cancelled": exists(launch, "cancelled"),
            "removed": removed,
            "leftovers": bool(is_lost and kill_marked(name)),
        }
    finally:
        os.close(launch)


def stop(person: "pwd.struct_passwd", ask: "Any") -> "Answer":
    """
    Make a start impossible and end what runs; call again until it is over.

    Answers ``ending`` with the process to wait for, ``over`` with the evidence, or ``absent``
    when nothing ever carried the name.
    """
    with open_folder(person, ask.folder) as launches, open_launch(launches, ask.name) as launch:
        removed = read_object(launch, "removed")
        if removed is not None:
            return {"state": "absent", "removed": removed}
        mark(launch, "cancelled", grace=ask.grace)
        remove(launch, "spec.json")  # It holds the server's token.
        found = look(launches, ask.name)
        assert found is not None
        if found["holder"]:
            end_holder(launch, found["holder"], signal.SIGKILL if ask.force else signal.SIGTERM)
            return {"state": "ending", "launch": found}
        if found["leftovers"]:
            return {"state": "ending", "launch": found}
        retire(launches, launch, ask.name, end=found["end"], started=found["started"])
        return {"state": "over" if found["label"] else "absent", "launch": found}


def end_holder(launch: int, holder: "dict[str, int]", number: int) -> None:
    """Signal the supervisor, if it still is the one that has the launch."""
    if holder["pid"] == 0:
        raise Refusal("other-namespace", "the supervisor runs in another process namespace")
    if holder_of(launch) == holder:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(holder["pid"], number)


def listener(person: "pwd.struct_passwd", ask: "Any") -> "Answer":
    """Tell whether every one of some sockets is held by a process of the launch."""
    with open_folder(person, ask.folder) as launches:
        found = look(launches, ask.name)
    if found is None or not found["holder"]:
        return {"owns": False}
    strange = set(ask.sockets)
    for pid in descendants(found["holder"]["pid"]):
        strange -= held_sockets(pid)
    return {"owns": not strange}


# What a person finds after signing in


def find_home(person: "pwd.struct_passwd") -> str:
    """Return the person's home directory."""
    if not os.path.isdir(person.pw_dir) or not os.access(person.pw_dir, os.R_OK | os.X_OK):
        raise Refusal("home-missing", person.pw_dir + " is not there or cannot be entered")
    return person.pw_dir


def find_command(command: "list[str]", environment: "dict[str, str]", beside: str) -> "list[str]":
    """
    Return the command with its program as an absolute path, whose folder is in PATH after that.

    It is looked for in `beside` before PATH: what a person has installed must not stand in for
    what the site runs.
    """
    places = environment.get("PATH", os.defpath)
    found = shutil.which(command[0], path=beside + ":" + places)
    if found is None:
        looked_at = command[0] if "/" in command[0] else (beside + ":" + places).replace(":", ", ")
        raise missing(command[0], looked_at)
    program = os.path.abspath(found)
    if os.path.dirname(program) not in places.split(":"):
        environment["PATH"] = os.path.dirname(program) + ":" + places
    return [program, *command[1:]]


def login_environment(person: "pwd.struct_passwd", login: bool) -> "tuple[dict[str, str], int]":
    """Return the environment and the umask of the person's login shell, if that has one in time."""
    plain = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
    }
    for file in ("/etc/default/locale", "/etc/locale.conf", "/etc/environment"):
        plain.update(assignments(file))
    plain.update(
        HOME=person.pw_dir,
        USER=person.pw_name,
        LOGNAME=person.pw_name,
        SHELL=person.pw_shell or "/bin/sh",
    )
    if login and os.path.basename(plain["SHELL"]) in SHELLS:
        with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
            return ask_shell(plain)
    return plain, UMASK


def ask_shell(plain: "dict[str, str]") -> "tuple[dict[str, str], int]":
    """Return what a login shell makes of an environment; raises `ValueError` for nonsense."""
    separator = "--perijove--"
    script = 'cd; printf "%s\\n" ' + separator + "; umask; exec /usr/bin/env -0"
    process = subprocess.Popen(  # noqa: S603 - the person's own shell
        [plain["SHELL"], "-l", "-c", script],
        env=plain,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=SHELL_SECONDS)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    # What the person's start files print comes before.
    _, found, rest = output[-FILE_BYTES:].decode("utf-8", "replace").rpartition(separator + "\n")
    umask, newline, block = rest.partition("\n")
    if not found or not newline:
        raise ValueError("the shell did not answer")
    pairs = [entry.split("=", 1) for entry in block.split("\0") if "=" in entry]
    kept = {name: value for name, value in pairs if name not in ("_", "SHLVL", "PWD", "OLDPWD")}
    return kept, int(umask, 8) & 0o777


def assignments(file: str) -> "dict[str, str]":
    """Return the variables that a file like ``/etc/environment`` sets."""
    found = {}
    with contextlib.suppress(OSError), open(file, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            name, is_set, value = line.strip().partition("=")
            name = name[7:] if name.startswith("export ") else name
            if is_set and name.isidentifier():
                found[name] = value.strip("\"'")
    return found


# Processes


def holder_of(launch: int) -> "dict[str, int] | None":
    """Return the process that holds the launch's lock, with the time of its start."""
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.open("lock", flags, dir_fd=launch)
    except FileNotFoundError:
        return None
    try:
        asked = FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = FLOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, asked))
    finally:
        os.close(file)
    if kind == fcntl.F_UNLCK:
        return None
    pid = max(pid, 0)  # Not positive: outside of our process namespace.
    fields = stat_of(pid)
    return {"pid": pid, "started": int(fields[19]) if fields else 0}


def stat_of(pid: int) -> "list[bytes]":
    """Return the fields of /proc/PID/stat behind the program's name; empty without a process."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
        # The second field is the program's name, in brackets, and may hold any byte.
        return file.read().rpartition(b")")[2].split()
    return []


def all_pids() -> "list[int]":
    """Return every process id."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def kill_marked(name: str) -> int:
    """Kill every process that carries the launch's name in its environment; return how many."""
    count = 0
    wanted = MARKER + name.encode("ascii")
    for pid in all_pids():
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/environ", "rb") as file:
                if wanted not in file.read().split(b"\0"):
                    continue
            os.kill(pid, signal.SIGKILL)
            count += 1
    return count


def descendants(ancestor: int) -> "list[int]":
    """Return a process and all below it."""
    children: dict[int, list[int]] = {}
    for pid in all_pids():
        fields = stat_of(pid)
        if fields:
            children.setdefault(int(fields[1]), []).append(pid)
    found = [ancestor]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def held_sockets(pid: int) -> "set[str]":
    """Return the inode numbers of the sockets that a process of ours has open."""
    inodes = set()
    with contextlib.suppress(OSError):
        for entry in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(f"/proc/{pid}/fd/{entry}")
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
    return inodes


# The verbs, and the fields of each

LAUNCH: "dict[str, Check]" = {"name": matching(NAME), "folder": optional(path)}
LOCAL: "dict[str, Check]" = {"name": matching(NAME), "folder": path}
CLUSTER: "dict[str, Check]" = {
    "environment": optional(variables(VARIABLE), {}),
    "bin_dir": optional(path),
}
VERBS: "dict[str, tuple[Callable[..., Answer], dict[str, Check]]]" = {
    "submit": (
        submit,
        dict(
            LAUNCH,
            **CLUSTER,
            files=files,
            command=command_of(SUBMITTING),
            listing=command_of(LISTING),
            again=flag,
        ),
    ),
    "adopt": (adopt, dict(LAUNCH, job_id=matching(JOB_ID))),
    "cancel": (
        cancel,
        dict(
            LAUNCH,
            **CLUSTER,
            job_id=optional(matching(JOB_ID)),
            command=optional(command_of(CANCELLING)),
            check=optional(command_of(LISTING)),
        ),
    ),
    "release": (
        release,
        dict(
            CLUSTER,
            name=matching(NAME),
            job_id=matching(JOB_ID),
            command=releasing,
            check=command_of(LISTING),
        ),
    ),
    "discover": (discover, dict(CLUSTER, commands=questions)),
    "log": (log, dict(LAUNCH, lines=number(1, 10000))),
    "start": (
        start,
        dict(LOCAL, label=variables(None), files=files, spec=order, beside=path, login=flag),
    ),
    "survey": (survey, {"folder": path, "known": flag}),
    "stop": (stop, dict(LOCAL, grace=seconds, force=flag)),
    "listener": (listener, dict(LOCAL, sockets=texts)),
}


if __name__ == "__main__":
    sys.exit(main())
