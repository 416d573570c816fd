"""
The hub's side of the launcher: how one of its verbs is carried out as a person.

A hub that runs as root becomes the person for the one process; a hub that is that person runs
it directly; any other hub asks sudo, whose rule is the check (docs/admin, deploy/launcher). The
launcher is given a JSON object on standard input and answers with one, so nothing of a request
is ever on a command line or in an environment.
"""

import fcntl
import json
import os
import pwd
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import anyio

from perijove.domain.errors import SpawnerRejected, SpawnerTransient

INSTALLED: Final = Path("/usr/libexec/perijove-launch")
"""Where ``deploy/launcher/install`` puts the launcher."""
PROGRAM: Final = Path(__file__).with_name("perijove_launch.py")
_PYTHON: Final = "/usr/bin/python3"
_SUDO: Final = "/usr/bin/sudo"
_SETPRIV: Final = "/usr/bin/setpriv"
_WORDS_BYTES: Final = 4096
_SLACK_SECONDS: Final = 2.0  # The launcher gives up first, with a word.
_FINAL: Final = frozenset(
    {"account-refused", "account-unknown", "command-missing", "home-full", "home-missing"}
)
"""What the launcher says that a person is told as it is: trying again is useless."""
_REPAIRS: Final = frozenset({"bad-request", "not-ours", "program-refused"})
"""What only an administrator can repair: a person is told ``launcher-refused``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A system account as the machine's tables have it."""

    name: str
    uid: int
    gid: int
    groups: Sequence[int]
    home: str


def find_account(user_name: str) -> Account:
    """
    Return the system account of a person. Blocks: call it in a thread.

    Raises `SpawnerRejected` when there is none (``account-unknown``) or it is root's
    (``account-refused``).
    """
    try:
        found = pwd.getpwnam(user_name)
    except (KeyError, ValueError):
        raise SpawnerRejected(
            f"there is no system account {user_name[:80]!r}",
            code="account-unknown",
            account=user_name,
        ) from None
    if found.pw_uid == 0 or found.pw_name != user_name:
        raise SpawnerRejected(
            f"the system account {user_name!r} is not served",
            code="account-refused",
            account=user_name,
        )
    groups = os.getgrouplist(found.pw_name, found.pw_gid)
    return Account(
        name=found.pw_name,
        uid=found.pw_uid,
        gid=found.pw_gid,
        groups=tuple(groups),
        home=found.pw_dir,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Launcher:
    """Carries out the launcher's verbs as whoever they are for."""

    installed: Path = INSTALLED
    """The launcher that sudo may run, for a hub without root."""

    @property
    def is_available(self) -> bool:
        """Tell whether this hub can act as other people at all."""
        return os.geteuid() == 0 or (
            os.access(self.installed, os.X_OK) and os.access(_SUDO, os.X_OK)
        )

    async def call(
        self,
        user_name: str,
        verb: str,
        *,
        timeout: float,  # noqa: ASYNC109 - the launcher is told too
        enclosure: Sequence[str] = (),
        **request: Any,
    ) -> dict[str, Any]:
        """
        Return the launcher's answer to `verb` as the person `user_name`.

        The fields of each verb are in the launcher's table ``VERBS``. A hub that is root runs the
        process, and so whatever it starts, by the command `enclosure`.

        Raises `SpawnerRejected` when trying again is useless (``account-unknown``,
        ``account-refused``, ``home-missing``, ``home-full``, ``command-missing``, and
        ``launcher-refused`` for what an administrator must repair, as a sudo that says no), and
        otherwise `SpawnerTransient` (``launcher-silent``): what was asked may have happened. The
        launcher's own code is the parameter ``cause``.
        """
        account = await anyio.to_thread.run_sync(find_account, user_name)
        seconds = max(int(timeout), 1)
        order = json.dumps({"verb": verb, "seconds": seconds, **request}).encode()
        # In a thread, for only there can a process become somebody else; one that nobody waits
        # for any more ends by its own deadline.
        status, out, err = await anyio.to_thread.run_sync(
            self._run, account, order, seconds + _SLACK_SECONDS, enclosure, abandon_on_cancel=True
        )
        answer = _parse(out)
        if answer is None:
            raise _unheard(account, status, err)
        if "error" in answer:
            raise _refusal(account, answer)
        return answer

    def _run(
        self, account: Account, order: bytes, seconds: float, enclosure: Sequence[str]
    ) -> tuple[int, bytes, bytes]:
        try:
            process = self._open(account, enclosure)
            try:
                out, err = process.communicate(order, timeout=seconds)
            except BaseException:
                _let_go(process)
                raise
        except subprocess.TimeoutExpired:
            raise SpawnerTransient(
                f"the launcher did not answer for {account.name} within {seconds:g} s",
                code="launcher-silent",
                account=account.name,
            ) from None
        except OSError as error:
            raise SpawnerTransient(
                f"the launcher cannot be run: {error}", code="launcher-silent", account=account.name
            ) from error
        return process.returncode, out, err[:_WORDS_BYTES]

    def _open(self, account: Account, enclosure: Sequence[str]) -> "subprocess.Popen[bytes]":
        own = os.geteuid()
        if own not in (0, account.uid):
            return _popen([_SUDO, "-n", "-u", account.name, "--", str(self.installed)])
        program = _open_program()
        try:
            command = [_PYTHON, "-I", f"/proc/self/fd/{program}"]
            if own == account.uid:
                return _popen(command, pass_fds=(program,))
            # Root enters the limits, and is the person when the launcher begins.
            groups = ",".join(map(str, account.groups))
            become = [f"--reuid={account.uid}", f"--regid={account.gid}", f"--groups={groups}"]
            return _popen([*enclosure, _SETPRIV, *become, "--", *command], pass_fds=(program,))
        finally:
            os.close(program)


def _let_go(process: "subprocess.Popen[bytes]") -> None:
    """End a process, or leave it to its own deadline: what sudo runs is not ours to signal."""
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with suppress(OSError):
                stream.close()
    with suppress(PermissionError):
        process.kill()
        process.wait()


def _open_program() -> int:
    """Return the launcher as an open file: its person may have no way to this package."""
    file = os.memfd_create("perijove-launch", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(file, "wb", closefd=False) as stream:
        stream.write(_program_text())
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK)
    return file


@cache
def _program_text() -> bytes:
    # Read once: an update of this package must not mix with what this process knows.
    return PROGRAM.read_bytes()


def _popen(command: Sequence[str], **how: Any) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # noqa: S603 - our own program or sudo, no shell
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
        start_new_session=True,
        **how,
    )


def _parse(out: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(out)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _refusal(account: Account, answer: Mapping[str, Any]) -> Exception:
    cause, message = str(answer["error"]), str(answer.get("message", ""))[:500]
    code = cause if cause in _FINAL else "launcher-silent"
    if cause in _REPAIRS:
        code = "launcher-refused"
    kind = SpawnerTransient if code == "launcher-silent" else SpawnerRejected
    params = {"account": account.name, "cause": cause, "detail": message}
    params |= dict(answer.get("params") or {})
    return kind(f"the launcher refuses to act for {account.name}: {message}", code=code, **params)


def _unheard(account: Account, status: int, err: bytes) -> Exception:
    words = err.decode(errors="replace").strip()[:500]
    if words.startswith("sudo:"):
        return SpawnerRejected(
            f"sudo does not let this hub act for {account.name}: {words}",
            code="launcher-refused",
            account=account.name,
            detail=words,
        )
    return SpawnerTransient(
        f"the launcher ended with status {status} and no answer: {words}",
        code="launcher-silent",
        account=account.name,
        detail=words,
    )
