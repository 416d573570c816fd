"""
Builds and removes a person's environments, beside the server, as the person.

A program of its own, a child of the server that is its only argument (`kernels.py`).

The hub says what is to lie here and hears what became of it. An environment is a virtual one of
Python's with a kernel; every session finds the kernel by ``JUPYTER_PATH``. At its place are::

    envs/NAME                        a link to the build in use; or what somebody made by hand
    builds/NAME/REVISION-DIGEST      ours alone; whole once it has its mark
    share/jupyter/kernels/env-NAME   what makes it a kernel
    logs/NAME.log                    what the last installation said
    lock                             held by who changes anything, and by what that runs

A change is a build of its own, and is put in place of the one before when it is whole. So a
keeper can be killed between any two steps: what is not whole is begun anew, what is in use stays
as it was, and nothing outside ``builds`` is ever removed but links and kernels of ours.
"""
# pathlib would add much to what a small program needs to start, and did less in Python 3.6:
# ruff: noqa: PTH103, PTH105, PTH106, PTH108, PTH112, PTH114, PTH115, PTH118, PTH119, PTH120
# ruff: noqa: PTH123, PTH208, PTH211

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

from perijove.agent.post import post

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Task = dict[str, Any]

ENVIRONMENTS = "envs"
BUILDS = "builds"
KERNELS = "share/jupyter/kernels"
BUILT = ".perijove.json"
LOCK = ".perijove-lock.txt"
KERNEL_PREFIX = "env-"
FIRST_PAUSE = 2.0
LONGEST_SILENCE = 60.0
BUILD_SECONDS = 3600.0
HEARTBEAT = 20.0
MOST_OUTPUT = 4 << 20
LAST_WORDS = 3000
LONGEST_LOCK = 200000
REPORTS_AT_ONCE = 4  # Each with a lock: the hub reads no more than a mebibyte.
ENVIRONMENT_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?")
BUILD_NAME = re.compile(r"[0-9]+-[0-9a-f]+")
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL)
KEPT_FROM_PIP = ("JUPYTERHUB_", "PERIJOVE_", "PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX")


class HubRefused(Exception):
    """The hub answered, and does not want to hear of this session."""


class HubSilent(Exception):
    """The hub did not answer; it may later."""


class Keeper:
    """Brings what lies at one place in line with what the hub says, as long as the server is."""

    def __init__(self, environment: "dict[str, str]", server: int) -> None:
        self._root = environment["PERIJOVE_ENVIRONMENTS"]
        self._environment = environment
        self._server = server
        self._url = environment.get("JUPYTERHUB_API_URL", "") + "/perijove/environments/sync"
        self._token = environment.get("JUPYTERHUB_API_TOKEN", "")
        self._reports: list[Task] = []
        self._settled: dict[int, int] = {}
        """The revision of each that was done or given up, and told so."""
        self._replaced: set[str] = set()
        """Builds whose kernels may still run: they stay as long as this session."""
        self._handle = -1
        """The lock, while it is held."""

    def run(self) -> None:
        """Ask and do, until the server is gone or the hub wants no more of it."""
        pause = FIRST_PAUSE
        while self._sleep(pause):
            try:
                work = self._ask()
                pause = min(max(float(work.get("again_in", LONGEST_SILENCE)), 1), 600)
                if self._do(work.get("environments", [])):
                    pause = 0
            except HubSilent:
                pause = min(2 * max(pause, FIRST_PAUSE), LONGEST_SILENCE)
            except HubRefused:
                return

    def _sleep(self, seconds: float) -> bool:
        """Wait; False when the server is gone."""
        end = time.monotonic() + seconds
        while os.getppid() == self._server:
            left = end - time.monotonic()
            if left <= 0:
                return True
            time.sleep(min(left, 1.0))
        return False

    # --- what is to be done -------------------------------------------------------------------

    def _do(self, tasks: "list[Task]") -> bool:
        """Do the first thing that is to be done; True when there may be more."""
        left = []
        for task in tasks:
            known = self._settled.get(task["id"]) == task["revision"]
            if known or not ENVIRONMENT_NAME.fullmatch(str(task.get("name", ""))):
                continue
            build = self._find_done(task) if task["wanted"] else ""
            if build:
                self._tell_ready(task, build)
            else:
                left.append(task)
        if not left:
            return bool(self._reports)
        task = left[0]
        try:
            with only_one(os.path.join(self._root, "lock")) as handle:
                if handle is None:
                    return bool(self._reports)
                self._handle = handle
                self._bring_about(task)
        except (OSError, Failed) as error:
            self._settle(task, "failed", error=str(error)[-LAST_WORDS:])
        except Abandoned:
            pass  # Who wants something else now says so; a later session begins anew.
        return True

    def _bring_about(self, task: "Task") -> None:
        if not task["wanted"]:
            self._remove(task)
            self._settle(task, "removed")
            return
        build = self._find_done(task)  # Another session may just have done it.
        if not build:
            self._report(task, "building")
            self._stay_wanted(task)
            build = self._make(task)
        self._tell_ready(task, build)

    def _link(self, task: "Task") -> str:
        return os.path.join(self._root, ENVIRONMENTS, task["name"])

    def _kernel(self, task: "Task") -> str:
        return os.path.join(self._root, KERNELS, KERNEL_PREFIX + task["name"])

    def _build(self, task: "Task") -> str:
        """
        Return where a revision is built: each wish, Python and place of the storage has its own.

        So a hub that begins anew with 1 takes no old one, and an image with another Python
        disturbs nobody who still has the one before.
        """
        python = os.path.realpath(find_python(self._environment))
        asked = json.dumps([task["packages"], task.get("lock", ""), self._root, python])
        digest = hashlib.sha256(asked.encode("ascii")).hexdigest()[:12]
        name = f"{int(task['revision'])}-{digest}"
        return os.path.join(self._root, BUILDS, task["name"], name)

    def _find_done(self, task: "Task") -> str:
        """Return the build in use if it is what is asked for; empty if it is not."""
        build = build_of(self._link(task))
        is_done = (
            os.path.basename(build).startswith(f"{int(task['revision'])}-")
            and is_whole(build)
            and has_what_is_asked(build, task)
            and python_of(self._kernel(task)) == os.path.join(build, "bin", "python")
        )
        return build if is_done else ""

    def _remove(self, task: "Task") -> None:
        """Remove what is offered first, so that nobody starts what is half gone."""
        link = self._link(task)
        if build_of(link):
            shutil.rmtree(self._kernel(task), ignore_errors=True)
            os.unlink(link)
        builds = os.path.join(self._root, BUILDS, task["name"])
        for build in builds_in(builds):
            drop_build(build)
        # What somebody else has put there stays, or a link of theirs.
        with contextlib.suppress(OSError):
            os.rmdir(builds)

    def _make(self, task: "Task") -> str:
        """Build what is asked for, put it in place of the one before, and offer it."""
        build, link = self._build(task), self._link(task)
        if os.path.lexists(link) and not build_of(link):
            raise Failed(f"{link} is there already, and was not made for this")
        self._sweep(keep=build)
        if not is_whole(build):
            try:
                self._fill(build, task)
            except (OSError, Failed):
                drop_build(build)  # What cannot be used takes no room.
                raise
        self._replaced.add(build_of(link))
        os.makedirs(os.path.dirname(link), mode=0o700, exist_ok=True)
        new = os.path.join(self._root, ENVIRONMENTS, ".new")  # No name of an environment.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        os.symlink(os.path.relpath(build, os.path.dirname(link)), new)
        os.replace(new, link)
        write_kernel(self._kernel(task), build, task["name"])
        return build

    def _sweep(self, keep: str) -> None:
        """Remove what was never finished, and what no kernel of this session can still use."""
        builds = os.path.join(self._root, BUILDS)
        for name in names_in(builds):
            used = build_of(os.path.join(self._root, ENVIRONMENTS, name))
            for build in builds_in(os.path.join(builds, name)):
                is_used = build == used or build in self._replaced
                if not (is_whole(build) if build == keep else is_used):
                    drop_build(build)

    def _fill(self, build: str, task: "Task") -> None:
        """Make a virtual environment and install; write down exactly what is in it; mark it."""
        logs = os.path.join(self._root, "logs")
        os.makedirs(logs, mode=0o700, exist_ok=True)
        os.makedirs(build, mode=0o700)
        log = os.path.join(logs, task["name"] + ".log")
        with open(log, "w", encoding="utf-8") as file:
            file.write(f"{task['name']}, revision {task['revision']}\n")
        self._call([find_python(self._environment), "-m", "venv", build], log, task)
        wanted = os.path.join(build, "requirements.txt")
        lines = task["lock"].splitlines() if task.get("lock") else [*task["packages"], "ipykernel"]
        with open(wanted, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        python = os.path.join(build, "bin", "python")
        pip = [python, "-m", "pip", "--disable-pip-version-check", "--no-input"]
        self._call([*pip, "install", "--no-warn-script-location", "-r", wanted], log, task)
        frozen = self._call([*pip, "freeze", "--exclude-editable"], log, task)
        if not has_kernel(build):
            raise Failed("ipykernel is not in the list: without it this is no kernel")
        with open(os.path.join(build, LOCK), "w", encoding="utf-8") as file:
            file.write(frozen)
        write_json(os.path.join(build, BUILT), mark_of(build, task))

    def _call(self, command: "list[str]", log: str, task: "Task") -> str:
        """Run a command and return its output; raise `Failed` with its last words."""
        environment = {
            name: value
            for name, value in self._environment.items()
            if not name.startswith(KEPT_FROM_PIP)
        }
        environment.update(PIP_REQUIRE_VIRTUALENV="0", PIP_USER="0", PYTHONNOUSERSITE="1")
        with open(log, "ab") as file:
            file.write(("$ " + " ".join(command) + "\n").encode("utf-8", "replace"))
            file.flush()
            began = file.tell()
            # It has the lock as well: if we are killed and it goes on, nobody builds beside it.
            process = subprocess.Popen(  # noqa: S603 - a list, and no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=self._root,
                pass_fds=(self._handle,),
                start_new_session=True,
            )
            try:
                self._wait_for(process, task)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        with open(log, "rb") as file:
            file.seek(began)
            output = file.read(MOST_OUTPUT).decode("utf-8", "replace")
        if process.returncode:
            raise Failed(output.strip() or f"{command[0]}: exit status {process.returncode}")
        return output

    def _wait_for(self, process: "subprocess.Popen[bytes]", task: "Task") -> None:
        """Wait for a command, and tell the hub now and then that it goes on."""
        latest = time.monotonic() + BUILD_SECONDS
        told = time.monotonic()
        while process.poll() is None:
            if not self._sleep(0.2):
                raise Abandoned
            if time.monotonic() > latest:
                raise Failed(f"not done after {BUILD_SECONDS / 60:g} minutes")
            if time.monotonic() - told > HEARTBEAT:
                told = time.monotonic()
                self._report(task, "building")
                self._stay_wanted(task)

    def _stay_wanted(self, task: "Task") -> None:
        """Raise `Abandoned` if the hub wants something else by now; its silence says nothing."""
        try:
            work = self._ask()
        except HubSilent:
            return
        wanted = {each["id"]: each["revision"] for each in work.get("environments", [])}
        if wanted.get(task["id"]) != task["revision"]:
            raise Abandoned

    # --- what the hub is told -----------------------------------------------------------------

    def _tell_ready(self, task: "Task", build: str) -> None:
        lock = lock_of(build)
        size = read_json(os.path.join(build, BUILT)).get("size_bytes", 0)
        self._settle(task, "ready", lock=lock, size_bytes=size)

    def _settle(self, task: "Task", state: str, **values: object) -> None:
        self._settled[task["id"]] = task["revision"]
        self._report(task, state, **values)

    def _report(self, task: "Task", state: str, **values: object) -> None:
        report = {"id": task["id"], "revision": task["revision"], "state": state}
        self._reports = [each for each in self._reports if each["id"] != task["id"]]
        self._reports.append(dict(report, **values))

    def _ask(self) -> "Task":
        """Tell what is new and return what the hub wants; raise `HubSilent`, `HubRefused`."""
        reports = self._reports[:REPORTS_AT_ONCE]
        body = {"found": offered_in(self._root), "reports": reports}
        answer = sync_with_hub(self._url, self._token, body)
        del self._reports[: len(reports)]
        return answer


class Failed(Exception):
    """What was to be done could not be; the text says why."""


class Abandoned(Exception):
    """The session is over, or nobody wants this any more."""


def sync_with_hub(url: str, token: str, body: "Task") -> "Task":
    """Send `body` as JSON and return the answer."""
    answer = post(url, body, token)
    if answer.status in (401, 403, 404, 409, 410):
        raise HubRefused(str(answer.status))
    if answer.status != 200 or not answer.body:
        raise HubSilent(answer.detail or str(answer.status))
    return answer.body


@contextlib.contextmanager
def only_one(path: str) -> "Iterator[int | None]":
    """Yield the lock of this place; None while another session, or what one left, has it."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # Some clusters mount homes without locks; there we go on without.
            yield handle if error.errno in NO_LOCKS else None
        else:
            yield handle
    finally:
        os.close(handle)


def find_python(environment: "dict[str, str]") -> str:
    """Return the Python that new environments are made with: the session's own."""
    return shutil.which("python3", path=environment.get("PATH")) or sys.executable


def names_in(folder: str) -> "list[str]":
    """Return what is in a folder, in order; nothing where there is none."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def read_json(path: str) -> "Task":
    """Return the object in a file; empty where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(path: str, value: "Task") -> None:
    """Write a file, at once."""
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
    os.replace(path + ".new", path)


def builds_in(folder: str) -> "list[str]":
    """Return the builds of an environment, and nothing that somebody else has put there."""
    return [os.path.join(folder, name) for name in names_in(folder) if BUILD_NAME.fullmatch(name)]


def mark_of(build: str, task: "Task") -> "Task":
    """Return the mark of a build that is whole, here and with the Python that it has."""
    return {
        "folder": build,
        "python": os.path.realpath(os.path.join(build, "bin", "python")),
        "packages": task["packages"],
        "lock": task.get("lock", ""),
        "size_bytes": size_of(build),
    }


def lock_of(build: str) -> str:
    """Return what exactly is in a build; empty where the hub could not keep it."""
    try:
        with open(os.path.join(build, LOCK), encoding="utf-8") as file:
            lock = file.read(LONGEST_LOCK + 1)
    except (OSError, ValueError):
        return ""
    return lock if len(lock) <= LONGEST_LOCK else ""


def has_what_is_asked(build: str, task: "Task") -> bool:
    """Tell whether a build is of a wish: to lock what is there, or unlock it, is no new one."""
    mark, lock = read_json(os.path.join(build, BUILT)), task.get("lock", "")
    if not lock:
        return bool(mark.get("packages") == task["packages"])
    return lock == mark.get("lock") or versions_in(lock) == versions_in(lock_of(build))


def versions_in(lock: str) -> "list[str]":
    """Return the lines of a lock without remarks: the hub keeps none."""
    lines = [line.strip() for line in lock.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def is_whole(build: str) -> bool:
    """
    Tell whether a build was finished and can be used here.

    It cannot where its Python is another one by now, as with a new image; nor where its storage
    is mounted at another path, which its programs name.
    """
    mark = read_json(os.path.join(build, BUILT))
    python = os.path.join(build, "bin", "python")
    return (
        mark.get("folder") == build
        and mark.get("python") == os.path.realpath(python)
        and os.access(python, os.X_OK)
    )


def drop_build(build: str) -> None:
    """Remove a build, first its mark: what is left of it must not be taken for whole."""
    if os.path.isdir(build) and not os.path.islink(build):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(build, BUILT))
        shutil.rmtree(build)
    elif os.path.lexists(build):
        os.unlink(build)


def build_of(link: str) -> str:
    """Return the build that an environment is a link to; empty if it is none of ours."""
    try:
        target = os.readlink(link)
    except OSError:
        return ""
    folder, name = os.path.split(link)
    parts = target.split("/")
    is_ours = len(parts) == 4 and parts[:3] == ["..", BUILDS, name]
    return os.path.join(os.path.dirname(folder), *parts[1:]) if is_ours else ""


def python_of(kernel: str) -> str:
    """Return the Python of a kernel; empty where there is none."""
    command = read_json(os.path.join(kernel, "kernel.json")).get("argv") or [""]
    return str(command[0])


def write_kernel(kernel: str, folder: str, name: str) -> None:
    """Offer an environment as a kernel; whoever starts it has its programs first."""
    os.makedirs(kernel, mode=0o700, exist_ok=True)
    programs = os.path.join(folder, "bin")
    is_conda = os.path.isdir(os.path.join(folder, "conda-meta"))
    spec = {
        "argv": [
            os.path.join(programs, "python"),
            "-m",
            "ipykernel_launcher",
            "-f",
            "{connection_file}",
        ],
        "display_name": name,
        "language": "python",
        "env": {
            "PATH": programs + ":${PATH}",
            "CONDA_PREFIX" if is_conda else "VIRTUAL_ENV": folder,
        },
        "metadata": {"debugger": True},
    }
    write_json(os.path.join(kernel, "kernel.json"), spec)


def offered_in(root: str) -> "list[str]":
    """
    Return the names of all environments that are here; those made by hand become kernels too.

    Kernels of what is here no more are offered no more.
    """
    found = []
    folder, kernels = os.path.join(root, ENVIRONMENTS), os.path.join(root, KERNELS)
    for name in names_in(folder):
        path = os.path.join(folder, name)
        if not ENVIRONMENT_NAME.fullmatch(name) or not has_kernel(path):
            continue
        found.append(name)
        kernel = os.path.join(kernels, KERNEL_PREFIX + name)
        if not build_of(path) and python_of(kernel) != os.path.join(path, "bin", "python"):
            with contextlib.suppress(OSError):
                write_kernel(kernel, path, name)
    for kernel in names_in(kernels):
        name = kernel[len(KERNEL_PREFIX) :]
        if kernel.startswith(KERNEL_PREFIX) and not os.path.lexists(os.path.join(folder, name)):
            shutil.rmtree(os.path.join(kernels, kernel), ignore_errors=True)
    return found


def has_kernel(folder: str) -> bool:
    """Tell whether an environment has a Python and ipykernel in it."""
    library = os.path.join(folder, "lib")
    return os.path.lexists(os.path.join(folder, "bin", "python")) and any(
        os.path.isdir(os.path.join(library, version, "site-packages", "ipykernel"))
        for version in names_in(library)
        if version.startswith("python")
    )


def size_of(folder: str) -> int:
    """Return how many bytes a folder takes."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += 512 * os.lstat(os.path.join(path, name)).st_blocks
    return total


if __name__ == "__main__":
    Keeper(dict(os.environ), int(sys.argv[1])).run()
