"""
Ask PAM about one person: a program of its own, started once for each sign-in.

A process, because modules of PAM are foreign code that may hang (a directory server that is
away), change the handling of signals, or not bear threads: a process can be ended at a
deadline and takes nothing of the hub with it. It reads a `Question` as JSON on standard
input, so that the password is on no command line, and writes an `Answer` as JSON. Only the
standard library is used; it is started without the hub's packages.

No session of PAM is opened: what runs as the person is started elsewhere, and by others.
"""

import ctypes
import grp
import hmac
import json
import os
import pwd
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Final


class Result(IntEnum):
    """What Linux-PAM returns, as far as it is told apart here."""

    SUCCESS = 0
    AUTH_ERR = 7
    CRED_INSUFFICIENT = 8
    AUTHINFO_UNAVAIL = 9
    USER_UNKNOWN = 10
    MAXTRIES = 11
    NEW_AUTHTOK_REQD = 12
    ACCT_EXPIRED = 13
    PERM_DENIED = 6
    CRED_EXPIRED = 17
    AUTHTOK_EXPIRED = 27


_WRONG: Final = frozenset(
    {
        Result.PERM_DENIED,
        Result.AUTH_ERR,
        Result.CRED_INSUFFICIENT,
        Result.USER_UNKNOWN,
        Result.MAXTRIES,
        Result.NEW_AUTHTOK_REQD,
        Result.ACCT_EXPIRED,
        Result.CRED_EXPIRED,
        Result.AUTHTOK_EXPIRED,
    }
)
"""Ends of the first stage in which the password is not proved: a stranger learns no more."""
_REFUSALS: Final = {
    Result.ACCT_EXPIRED: "account-expired",
    Result.USER_UNKNOWN: "account-refused",
    Result.NEW_AUTHTOK_REQD: "password-expired",
    Result.AUTHTOK_EXPIRED: "password-expired",
    Result.CRED_EXPIRED: "password-expired",
    Result.PERM_DENIED: "account-refused",
    Result.AUTH_ERR: "account-refused",
    Result.CRED_INSUFFICIENT: "account-refused",
    Result.MAXTRIES: "account-locked",
}
"""Ends of the second stage, which is about an account whose password was right."""

_PROMPT_ECHO_OFF, _PROMPT_ECHO_ON = 1, 2
_ITEM_USER, _ITEM_TTY, _ITEM_FAIL_DELAY = 2, 3, 10
_BUFFER_ERROR, _CONVERSATION_ERROR = 5, 19
_SHADOW_HASH, _SHADOW_EXPIRES, _SHADOW_FIELDS = 1, 7, 9
_DAY: Final = 24 * 60 * 60
_MOST_PROMPTS: Final = 8
_MOST_GROUPS: Final = 1000
_INPUT: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Who wants to come in, and by which stack."""

    service: str
    name: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What PAM said, and what the system knows of the account."""

    verdict: str
    """``right``, ``wrong``, ``away``, or the code of a refusal."""
    detail: str = ""
    """For the log."""
    delay: float = 0.0
    """Seconds the stack wants a failure to take."""
    name: str = ""
    """The account's one name."""
    uid: int = -1
    groups: list[str] = field(default_factory=list)
    """The account's groups, the primary one first."""


class _Message(ctypes.Structure):
    _fields_ = (("style", ctypes.c_int), ("text", ctypes.c_char_p))


class _Response(ctypes.Structure):
    # An address and no `c_char_p`: PAM frees what it points to.
    _fields_ = (("text", ctypes.c_void_p), ("code", ctypes.c_int))


_Converse = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_int,
    ctypes.POINTER(ctypes.POINTER(_Message)),
    ctypes.POINTER(ctypes.POINTER(_Response)),
    ctypes.c_void_p,
)
_Delay = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)


class _Conversation(ctypes.Structure):
    _fields_ = (("converse", _Converse), ("data", ctypes.c_void_p))


class Stack:
    """One conversation with PAM, from its start to its end."""

    def __init__(self, question: Question) -> None:
        self.delay = 0.0
        self._question = question
        self._prompts = 0
        self._pam = ctypes.CDLL("libpam.so.0")
        self._libc = ctypes.CDLL(None)
        self._libc.calloc.restype = ctypes.c_void_p
        self._libc.strdup.restype = ctypes.c_void_p
        self._pam.pam_strerror.restype = ctypes.c_char_p
        # PAM keeps their addresses: they must live as long as this does.
        self._conversation = _Conversation(_Converse(self._converse), None)
        self._note = _Delay(self._note_delay)
        self._handle = ctypes.c_void_p()
        self._last = 0

    def __enter__(self) -> "Stack":
        result = self._pam.pam_start(
            self._question.service.encode(),
            self._question.name.encode(),
            ctypes.byref(self._conversation),
            ctypes.byref(self._handle),
        )
        if result != Result.SUCCESS:
            raise OSError(f"pam_start returned {result}")
        self._pam.pam_set_item(self._handle, _ITEM_TTY, b"perijove")
        # Else PAM sleeps after a failure, and the process with it.
        self._pam.pam_set_item(self._handle, _ITEM_FAIL_DELAY, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._pam.pam_end(self._handle, self._last)

    def authenticate(self) -> int:
        """Check the password."""
        return self._remember(self._pam.pam_authenticate(self._handle, 0))

    def check_account(self) -> int:
        """Check whether the account may be used now."""
        return self._remember(self._pam.pam_acct_mgmt(self._handle, 0))

    def user(self) -> str:
        """Return whom PAM has come to speak of."""
        item = ctypes.c_char_p()
        self._pam.pam_get_item(self._handle, _ITEM_USER, ctypes.byref(item))
        return (item.value or b"").decode(errors="replace")

    def words(self, result: int) -> str:
        """Return PAM's own words for a result."""
        return f"{self._pam.pam_strerror(self._handle, result).decode(errors='replace')} ({result})"

    def _remember(self, result: int) -> int:
        self._last = result
        return result

    def _note_delay(self, result: int, microseconds: int, _: Any) -> None:
        if result != Result.SUCCESS:
            self.delay = max(self.delay, microseconds / 1e6)

    def _converse(self, count: int, messages: Any, responses: Any, _: Any) -> int:
        """Answer what modules ask: the password to what is not shown, the name to the rest."""
        self._prompts += count
        if count < 1 or self._prompts > _MOST_PROMPTS:
            return _CONVERSATION_ERROR
        block = self._libc.calloc(count, ctypes.sizeof(_Response))
        if not block:
            return _BUFFER_ERROR
        answers = ctypes.cast(block, ctypes.POINTER(_Response))
        for number in range(count):
            style = messages[number].contents.style
            if style == _PROMPT_ECHO_OFF:
                answers[number].text = self._libc.strdup(self._question.password.encode())
            elif style == _PROMPT_ECHO_ON:
                answers[number].text = self._libc.strdup(self._question.name.encode())
        responses[0] = answers
        return Result.SUCCESS


def ask(question: Question) -> Answer:
    """Return what PAM and the system say; asks nothing about root."""
    account = _account(question.name)
    if account is not None:
        if account.pw_uid == 0:
            return Answer(verdict="account-reserved", name=account.pw_name, uid=0)
        question = Question(
            service=question.service, name=account.pw_name, password=question.password
        )
    with Stack(question) as stack:
        result = stack.authenticate()
        if result in _WRONG:
            locked = _is_right_but_locked(_shadow(account), question.password)
            verdict = "account-locked" if locked else "wrong"
            return Answer(verdict=verdict, detail=stack.words(result), delay=stack.delay)
        if result != Result.SUCCESS:
            return Answer(verdict="away", detail=stack.words(result))
        result = stack.check_account()
        if result != Result.SUCCESS:
            refusal = next((code for end, code in _REFUSALS.items() if end == result), "away")
            if refusal == "account-refused" and _has_expired(_shadow(account)):
                refusal = "account-expired"
            return Answer(verdict=refusal, detail=stack.words(result))
        return _known(account, stack.user())


def _known(account: pwd.struct_passwd | None, spoken_of: str) -> Answer:
    """Return the answer for a right password; the account must be that of the name typed."""
    if account is None:
        return Answer(verdict="account-unfit", detail="PAM knows the name, the system does not")
    if spoken_of != account.pw_name:
        return Answer(verdict="account-unfit", detail=f"PAM made {spoken_of!r} of the name")
    return Answer(
        verdict="right", name=account.pw_name, uid=account.pw_uid, groups=_groups(account)
    )


def _account(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except (KeyError, ValueError):
        return None


def _groups(account: pwd.struct_passwd) -> list[str]:
    found = []
    for gid in os.getgrouplist(account.pw_name, account.pw_gid)[:_MOST_GROUPS]:
        try:
            found.append(grp.getgrgid(gid).gr_name)
        except KeyError:  # a number without a name is nobody's group here
            continue
    return found


def _is_right_but_locked(shadow: list[str], password: str) -> bool:
    """
    Tell whether the password is that of an account locked by ``usermod --lock``.

    The lock is a mark before the hash, so PAM can only say that the password is wrong. The
    hash behind the mark is still there: whoever knows the password may be told of the lock,
    and nobody else is.
    """
    kept = shadow[_SHADOW_HASH].lstrip("!").encode()
    if shadow[_SHADOW_HASH][:1] != "!" or not kept.startswith(b"$"):
        return False
    return hmac.compare_digest(_crypt()(password.encode(), kept), kept)


def _has_expired(shadow: list[str]) -> bool:
    """Tell what a stack may hide: Debian's makes a plain failure of an account that expired."""
    last_day = shadow[_SHADOW_EXPIRES]
    return last_day.isdecimal() and time.time() >= int(last_day) * _DAY


def _shadow(account: pwd.struct_passwd | None) -> list[str]:
    """Return the account's line of the shadow file; empty fields where it cannot be read."""
    try:
        lines = Path("/etc/shadow").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    name = account.pw_name if account else ""
    found = (line.split(":") for line in lines if line.startswith(f"{name}:"))
    return [*next(found, []), *[""] * _SHADOW_FIELDS][:_SHADOW_FIELDS]


def _crypt() -> Callable[[bytes, bytes], bytes]:
    for name in ("libcrypt.so.1", "libcrypt.so.2"):
        try:
            crypt = ctypes.CDLL(name).crypt
        except OSError:
            continue
        crypt.restype = ctypes.c_char_p
        return lambda password, setting: crypt(password, setting) or b""
    return lambda _password, _setting: b""


def main() -> None:
    """Read a question, write the answer."""
    question = Question(**json.loads(sys.stdin.buffer.read(_INPUT)))
    try:
        answer = ask(question)
    except OSError as error:
        answer = Answer(verdict="away", detail=str(error))
    sys.stdout.write(json.dumps(asdict(answer)))


if __name__ == "__main__":
    main()
