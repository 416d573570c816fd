"""
Builds and removes a person's environments, beside the server, as the person.

A program of its own, ``python3 -I -S environments.py``, a child of the server (`kernels.py`).

The hub says what is to lie here and hears what became of it. An environment is a virtual one of
Python's with a kernel; every session finds the kernel by ``JUPYTER_PATH``. What was begun and
never finished has no mark, and is begun anew; two sessions at one place do not build at once.
"""
# pathlib would add much to what a small program needs to start, and did less in Python 3.6:
# ruff: noqa: PTH103, PTH105, PTH110, PTH112, PTH118, PTH120, PTH123, PTH208

import contextlib
import fcntl
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Task = dict[str, Any]

ENVIRONMENTS = "envs"
KERNELS = "share/jupyter/kernels"
BUILT = ".perijove.json"
LOCK = ".perijove-lock.txt"
KERNEL_PREFIX = "env-"
FIRST_PAUSE = 2.0
LONGEST_SILENCE = 60.0
BUILD_SECONDS = 3600.0
HEARTBEAT = 20.0
SYNC_SECONDS = 25
MOST_SYNC = 4 << 20
LAST_WORDS = 3000
ENVIRONMENT_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?")


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
        for task in tasks:
            if not ENVIRONMENT_NAME.fullmatch(str(task.get("name", ""))):
                continue
            if self._settled.get(task["id"]) == task["revision"]:
                continue
            if task["wanted"] and self._is_done(task):
                self._tell_ready(task)
                return True
            with only_one(os.path.join(self._root, "lock")) as is_mine:
                if not is_mine:
                    return False
                if not task["wanted"]:
                    self._remove(task)
                elif not self._is_done(task):  # Another session may just have done it.
                    self._build(task)
            return True
        return False

    def _folder(self, task: "Task") -> str:
        return os.path.join(self._root, ENVIRONMENTS, task["name"])

    def _kernel(self, task: "Task") -> str:
        return os.path.join(self._root, KERNELS, KERNEL_PREFIX + task["name"])

    def _is_done(self, task: "Task") -> bool:
        mark = read_mark(self._folder(task))
        return bool(mark.get("id") == task["id"] and mark.get("revision") == task["revision"])

    def _remove(self, task: "Task") -> None:
        """Remove the kernel first, so that nobody starts what is half gone."""
        shutil.rmtree(self._kernel(task), ignore_errors=True)
        folder = self._folder(task)
        if os.path.lexists(folder) and read_mark(folder).get("id") in (None, task["id"]):
            shutil.rmtree(folder, ignore_errors=True)
        if os.path.lexists(folder):
            self._settle(task, "failed", error=f"{folder} cannot be removed")
        else:
            self._settle(task, "removed")

    def _build(self, task: "Task") -> None:
        self._report(task, "building")
        with contextlib.suppress(HubSilent):
            self._ask()
        try:
            self._make(task)
        except (OSError, Failed) as error:
            self._settle(task, "failed", error=str(error)[-LAST_WORDS:])
        else:
            self._tell_ready(task)

    def _tell_ready(self, task: "Task") -> None:
        folder = self._folder(task)
        try:
            with open(os.path.join(folder, LOCK), encoding="utf-8") as file:
                lock = file.read(MOST_SYNC)
        except (OSError, ValueError):
            lock = ""
        self._settle(task, "ready", lock=lock, size_bytes=size_of(folder))

    def _make(self, task: "Task") -> None:
        """Make the environment or bring it up to date, and write down exactly what is in it."""
        folder = self._folder(task)
        mark = read_mark(folder)
        if os.path.lexists(folder) and mark.get("id") != task["id"]:
            if not is_unfinished(folder):
                raise Failed(f"{folder} is there already, and was not made for this")
            shutil.rmtree(folder)
        os.makedirs(os.path.dirname(folder), mode=0o700, exist_ok=True)
        os.makedirs(os.path.join(self._root, "logs"), mode=0o700, exist_ok=True)
        log = os.path.join(self._root, "logs", task["name"] + ".log")
        with open(log, "w", encoding="utf-8") as file:
            file.write(f"{task['name']}, revision {task['revision']}\n")
        if not mark:
            os.makedirs(folder, mode=0o700)
            write_mark(folder, {"unfinished": True})
            self._call([find_python(self._environment), "-m", "venv", folder], log, task)
        python = os.path.join(folder, "bin", "python")
        wanted = os.path.join(folder, "requirements.txt")
        lines = task["lock"].splitlines() if task.get("lock") else [*task["packages"], "ipykernel"]
        with open(wanted, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        pip = [python, "-m", "pip", "--disable-pip-version-check", "--no-input"]
        self._call([*pip, "install", "--no-warn-script-location", "-r", wanted], log, task)
        frozen = self._call([*pip, "freeze"], log, task)
        with open(os.path.join(folder, LOCK), "w", encoding="utf-8") as file:
            file.write(frozen)
        write_kernel(self._kernel(task), folder, task["name"])
        write_mark(folder, {"id": task["id"], "revision": task["revision"]})

    def _call(self, command: "list[str]", log: str, task: "Task") -> str:
        """Run a command and return its output; raise `Failed` with its last words."""
        environment = {
            name: value
            for name, value in self._environment.items()
            if not name.startswith(("JUPYTERHUB_", "PERIJOVE_", "PYTHONPATH", "PIP_TARGET"))
        }
        environment.update(PIP_REQUIRE_VIRTUALENV="0", PIP_USER="0", PYTHONNOUSERSITE="1")
        with open(log, "ab") as file:
            file.write(("$ " + " ".join(command) + "\n").encode("utf-8", "replace"))
            file.flush()
            began = file.tell()
            process = subprocess.Popen(  # noqa: S603 - a list, and no shell
                command, stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=self._root
            )
            try:
                self._wait_for(process, task)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        with open(log, "rb") as file:
            file.seek(began)
            output = file.read(MOST_SYNC).decode("utf-8", "replace")
        if process.returncode:
            raise Failed(output.strip() or f"{command[0]}: exit status {process.returncode}")
        return output

    def _wait_for(self, process: "subprocess.Popen[bytes]", task: "Task") -> None:
        """Wait for a command, and tell the hub now and then that it goes on."""
        latest = time.monotonic() + BUILD_SECONDS
        told = time.monotonic()
        while process.poll() is None:
            if not self._sleep(0.2):
                raise Failed("the session ended before this was done")
            if time.monotonic() > latest:
                raise Failed(f"not done after {BUILD_SECONDS / 60:g} minutes")
            if time.monotonic() - told > HEARTBEAT:
                told = time.monotonic()
                self._report(task, "building")
                with contextlib.suppress(HubSilent):
                    self._ask()

    # --- what the hub is told -----------------------------------------------------------------

    def _settle(self, task: "Task", state: str, **values: object) -> None:
        self._settled[task["id"]] = task["revision"]
        self._report(task, state, **values)

    def _report(self, task: "Task", state: str, **values: object) -> None:
        report = {"id": task["id"], "revision": task["revision"], "state": state}
        self._reports = [each for each in self._reports if each["id"] != task["id"]]
        self._reports.append(dict(report, **values))

    def _ask(self) -> "Task":
        """Tell what is new and return what the hub wants; raise `HubSilent`, `HubRefused`."""
        body = {"found": found_in(self._root), "reports": self._reports}
        answer = sync_with_hub(self._url, self._token, body)
        self._reports = []
        return answer


class Failed(Exception):
    """What was to be done could not be; the text says why."""


def sync_with_hub(url: str, token: str, body: object) -> "Task":
    """Send `body` as JSON and return the answer."""
    parts = urllib.parse.urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        connection = kind(parts.hostname or "", parts.port, timeout=SYNC_SECONDS)
        with contextlib.closing(connection):
            fields = {"Content-Type": "application/json", "Authorization": "token " + token}
            connection.request("POST", parts.path, json.dumps(body).encode("ascii"), fields)
            response = connection.getresponse()
            raw = response.read(MOST_SYNC)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise HubSilent(repr(error)) from error
    if response.status in (401, 403, 404, 409, 410):
        raise HubRefused(str(response.status))
    try:
        answer = json.loads(raw.decode("utf-8", "replace"))
    except ValueError as error:
        raise HubSilent("no JSON") from error
    if response.status != 200 or not isinstance(answer, dict):
        raise HubSilent(str(response.status))
    return answer


@contextlib.contextmanager
def only_one(path: str) -> "Iterator[bool]":
    """Yield whether no other session works at this place now; it cannot begin meanwhile."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def find_python(environment: "dict[str, str]") -> str:
    """Return the Python that new environments are made with: the session's own."""
    return shutil.which("python3", path=environment.get("PATH")) or sys.executable


def read_mark(folder: str) -> "Task":
    """Return the mark of an environment that was built; empty where there is none."""
    try:
        with open(os.path.join(folder, BUILT), encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and "id" in found else {}


def write_mark(folder: str, mark: "Task") -> None:
    """Write an environment's mark, at once."""
    path = os.path.join(folder, BUILT)
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(mark, file)
    os.replace(path + ".new", path)


def is_unfinished(folder: str) -> bool:
    """Tell whether a folder is what an earlier session began and did not finish."""
    try:
        with open(os.path.join(folder, BUILT), encoding="utf-8") as file:
            return bool(json.load(file).get("unfinished"))
    except (OSError, ValueError, AttributeError):
        return not os.listdir(folder) if os.path.isdir(folder) else False


def write_kernel(kernel: str, folder: str, name: str) -> None:
    """Offer an environment as a kernel; whoever starts it has its programs first."""
    os.makedirs(kernel, mode=0o700, exist_ok=True)
    programs = os.path.join(folder, "bin")
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
        "env": {"PATH": programs + ":${PATH}", "VIRTUAL_ENV": folder},
        "metadata": {"debugger": True},
    }
    path = os.path.join(kernel, "kernel.json")
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(spec, file, indent=1)
    os.replace(path + ".new", path)


def found_in(root: str) -> "list[Task]":
    """
    Return the environments that were made here by hand, and offer them as kernels too.

    They have a Python with ipykernel, and no mark of ours.
    """
    found = []
    folder = os.path.join(root, ENVIRONMENTS)
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(folder)):
            path = os.path.join(folder, name)
            if not ENVIRONMENT_NAME.fullmatch(name) or os.path.exists(os.path.join(path, BUILT)):
                continue
            kernel = os.path.join(root, KERNELS, KERNEL_PREFIX + name)
            if has_kernel(path):
                if not os.path.exists(os.path.join(kernel, "kernel.json")):
                    write_kernel(kernel, path, name)
                found.append({"name": name})
    return found


def has_kernel(folder: str) -> bool:
    """Tell whether an environment has a Python and ipykernel in it."""
    if not os.access(os.path.join(folder, "bin", "python"), os.X_OK):
        return False
    library = os.path.join(folder, "lib")
    return any(
        os.path.isdir(os.path.join(library, version, "site-packages", "ipykernel"))
        for version in os.listdir(library)
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
    Keeper(dict(os.environ), os.getppid()).run()
