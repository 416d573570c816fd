"""
What a job says to the hub: one small POST at a time, and again while the hub is away.

A request runs in a thread of its own: meanwhile the job answers the hub's challenge, hears
signals and looks after its server.
"""

import contextlib
import hashlib
import hmac
import random
import select
import socket
import threading
import time

from perijove.agent.cannot import Cannot
from perijove.agent.node import say
from perijove.agent.post import ANSWER_SECONDS, Answer, post
from perijove.spawners.local.supervisor import Signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Body = dict[str, Any]

HUB_PATIENCE = 1800  # Seconds a job that has been at the hub once waits for it to answer again.
FAREWELL_SHARE = 0.25  # Of the hub's limit for a start, left to see a job's own end in time.
FAREWELL_MOST = 90  # Seconds of that.
LONGEST_PAUSE = 30
REACH_TRIES = 3
REACH_PAUSE = 3
CHALLENGE_SECONDS = 1
CHALLENGE_LIMIT = 2048
TURN = 0.1
MOST_WAITING = 20
MOST_WORDS = 4000


class Post(threading.Thread):
    """One request; `answer` is there when the thread has ended."""

    def __init__(self, url: str, body: "Body") -> None:
        super().__init__(daemon=True)
        self.url = url
        self.body = body
        self.answer = Answer(0, {"detail": f"{url}: no answer"})

    def run(self) -> None:
        """Send it."""
        self.answer = post(self.url, self.body)


def next_pause(tries: int) -> float:
    """Return how long to wait after so many tries in vain; not alike for all jobs of a cluster."""
    return min(2.0 ** min(tries, 10) / 2, LONGEST_PAUSE) * random.uniform(0.5, 1)  # noqa: S311


def answer_challenge(listener: socket.socket, code: str) -> None:
    """Answer one request on the port that was registered: prove that the code is known here."""
    try:
        stream, _ = listener.accept()
    except OSError:
        return  # Whoever it was has gone.
    with contextlib.closing(stream):
        stream.settimeout(CHALLENGE_SECONDS)
        with contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head and len(head) < CHALLENGE_LIMIT:
                part = stream.recv(CHALLENGE_LIMIT)
                if not part:
                    return
                head += part
            challenge = head.split(b" ", 2)[1].lstrip(b"/") if head.count(b" ") > 1 else b""
            proof = hmac.new(code.encode(), b"perijove challenge " + challenge, hashlib.sha256)
            body = proof.hexdigest().encode()
            stream.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            )


def start_deadline(began: float, limit: float) -> float:
    """
    Return until when a job that began then tries to register; monotonic seconds.

    The hub gives up a start after `limit` seconds, and knows no other reason than that. Whoever
    cannot reach it has to end before, and be seen to have ended, for its own reason to be shown.
    Late software still leaves time for a hub that does answer.
    """
    spared = min(limit * FAREWELL_SHARE, FAREWELL_MOST)
    return max(began + limit - spared, time.monotonic() + spared / 2)


def register(
    url: str, body: "Body", listener: socket.socket, signals: Signals, latest: float
) -> "dict[str, str]":
    """
    Register the port of `listener`; return what the server's environment gets with it.

    Goes on asking until `latest` while the hub is away, and says in the log why it has to. Raises
    `Cannot` when the hub says no, or nothing.
    """
    tries = unreached = 0
    while True:
        attempt = Post(url, body)
        attempt.start()
        while attempt.is_alive() and time.monotonic() < latest:
            wait(listener, body["code"], signals, TURN)
        answer = attempt.answer
        if answer.status == 200:
            found = answer.body.get("environment")
            return {str(name): str(value) for name, value in dict(found or {}).items()}
        unreached += answer.code == "cannot-reach"
        if answer.is_final and (answer.code != "cannot-reach" or unreached >= REACH_TRIES):
            raise refusal(url, answer)
        tries += 1
        pause = REACH_PAUSE if unreached else max(answer.retry_after, next_pause(tries))
        words = what_failed(url, answer)
        if time.monotonic() + pause >= latest:
            raise Cannot("hub-unreachable", words, url=url)
        say(f"not registered yet: {words}; trying again in {pause:.0f} s")
        end = time.monotonic() + pause
        while time.monotonic() < end:
            wait(listener, body["code"], signals, end - time.monotonic())


def wait(listener: socket.socket, code: str, signals: Signals, seconds: float) -> None:
    """Answer challenges for a while; raises `Cannot` when the job is asked to end."""
    ready, _, _ = select.select([listener.fileno(), signals.wake], [], [], max(seconds, 0))
    if signals.wake in ready:
        signals.clear()
    if listener.fileno() in ready:
        answer_challenge(listener, code)
    if signals.stop_asked:
        raise Cannot("cancelled", "the job was asked to end before its server was started")


def what_failed(url: str, answer: Answer) -> str:
    """Return where a request went, and what became of it."""
    if not answer.status:
        return answer.detail
    return f"{url}: status {answer.status} {answer.detail}".rstrip()


def refusal(url: str, answer: Answer) -> Cannot:
    """Return what a final no of the hub comes to; any other answer is not the hub's."""
    codes = {403: "code-refused", 409: "second-job", 410: "cancelled", 422: answer.code}
    code = codes.get(answer.status)
    if not code:
        return Cannot("hub-unreachable", what_failed(url, answer), url=url)
    return Cannot(code, answer.detail or f"status {answer.status}")


def sayable(words: str) -> str:
    """Return what programs said as the hub takes it: a text of some length, without NUL."""
    return words.encode("utf-8", "replace").decode("utf-8").replace("\0", "?")[:MOST_WORDS]


class Line:
    """Messages to the hub, sent one after the other and each until the hub has had it."""

    def __init__(self, url: str, common: "Body") -> None:
        self._url = url
        self._common = common
        self._waiting: list[tuple[str, Body]] = []
        self._post: Post | None = None
        self._tries = 0
        self._not_before = 0.0

    def add(self, path: str, **fields: "Any") -> None:
        """Put a message into the line; what nobody has heard for long is dropped."""
        if "words" in fields:
            fields["words"] = sayable(fields["words"])
        self._waiting.append((self._url + path, dict(self._common, **fields)))
        del self._waiting[:-MOST_WAITING]

    def turn(self) -> "Answer | None":
        """Go on without waiting; returns the final answer to a message if one has just come."""
        answer = None
        if self._post is not None and not self._post.is_alive():
            sent, self._post = self._post, None
            if sent.answer.is_final:
                answer, self._tries = sent.answer, 0
                if self._waiting and self._waiting[0][1] is sent.body:
                    del self._waiting[0]
            else:
                self._tries += 1
                pause = max(sent.answer.retry_after, next_pause(self._tries))
                self._not_before = time.monotonic() + pause
        if self._post is None and self._waiting and time.monotonic() >= self._not_before:
            self._post = Post(*self._waiting[0])
            self._post.start()
        return answer

    @property
    def is_empty(self) -> bool:
        """Tell whether the hub has had everything."""
        return not self._waiting

    def settle(self) -> None:
        """Wait for the request under way: a process with threads should not fork."""
        if self._post is not None:
            self._post.join(ANSWER_SECONDS)

    def flush(self, seconds: float) -> None:
        """Send what is left, for at most so long."""
        end = time.monotonic() + seconds
        self._not_before = 0.0
        while not self.is_empty and time.monotonic() < end:
            self.turn()
            if self._post is not None:
                self._post.join(min(TURN, max(end - time.monotonic(), 0)))
            else:
                time.sleep(TURN)
