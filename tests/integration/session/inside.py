"""Inside a running session: its terminals and kernels, used as a browser uses them."""

import contextlib
import json
import re
import secrets
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from websockets.sync.client import ClientConnection, connect

PATIENCE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Inside:
    """One person's server, reached through the proxy."""

    url: str
    """Of the server, with a slash at its end."""
    token: str

    def ask(self, path: str, body: Any = None, *, method: str = "") -> Any:
        """Return what the server's API answers."""
        request = urllib.request.Request(
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"token {self.token}"},
            method=method or ("GET" if body is None else "POST"),
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.loads(answer.read() or b"null")

    def shell(self, *commands: str) -> list[str]:
        """Return what commands print in a new terminal; each is a line that a person types."""
        with _Terminal(self).opened() as terminal:
            return [terminal.run(command) for command in commands]

    @contextlib.contextmanager
    def kernel(self) -> "Iterator[Kernel]":
        """Start a kernel, and end it afterwards."""
        kernel_id = self.ask("api/kernels", {})["id"]
        try:
            with self.attach(kernel_id) as kernel:
                yield kernel
        finally:
            self.ask(f"api/kernels/{kernel_id}", method="DELETE")

    @contextlib.contextmanager
    def attach(self, kernel_id: str) -> "Iterator[Kernel]":
        """Talk to a kernel that runs."""
        with self.socket(f"api/kernels/{kernel_id}/channels") as socket:
            yield Kernel(socket)

    def session(self) -> dict[str, Any]:
        """Return what the extension tells browsers."""
        found: dict[str, Any] = self.ask("perijove/session")
        return found

    def socket(self, path: str) -> ClientConnection:
        """Open a WebSocket of the server."""
        url = self.url.replace("http:", "ws:", 1) + path
        headers = {"Authorization": f"token {self.token}"}
        return connect(url, additional_headers=headers, max_size=None, open_timeout=PATIENCE)


@dataclass(slots=True)
class _Terminal:
    inside: Inside
    socket: ClientConnection | None = None

    @contextlib.contextmanager
    def opened(self) -> "Iterator[_Terminal]":
        name = self.inside.ask("api/terminals", {})["name"]
        try:
            with self.inside.socket(f"terminals/websocket/{name}") as self.socket:
                self.run("stty -echo; PS1=; bind 'set enable-bracketed-paste off'")
                self.run("")  # The first one's second line was typed before that was so.
                yield self
        finally:
            self.inside.ask(f"api/terminals/{name}", method="DELETE")

    def run(self, command: str) -> str:
        assert self.socket is not None
        mark = secrets.token_hex(8)
        # Typed in two parts, so that an echo of the line is not taken for its output.
        line = f"echo {mark[:8]}''{mark[8:]}A; {command or ':'}; echo {mark[:8]}''{mark[8:]}Z\r"
        self.socket.send(json.dumps(["stdin", line]))
        deadline = time.monotonic() + PATIENCE
        text = ""
        while f"{mark}Z" not in text:
            received = self.socket.recv(timeout=max(deadline - time.monotonic(), 0.01))
            kind, *rest = json.loads(received)
            if kind == "stdout":
                text += rest[0]
        found = text.partition(f"{mark}A")[2].partition(f"{mark}Z")[0].replace("\r", "")
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", found).strip()


@dataclass(slots=True)
class Kernel:
    """A kernel somebody is attached to."""

    socket: ClientConnection

    def run(self, code: str) -> str:
        """Return what `code` prints; raise `AssertionError` with what it raises."""
        message_id = self.send(code)
        printed = ""
        deadline = time.monotonic() + PATIENCE
        while True:
            message = json.loads(self.socket.recv(timeout=max(deadline - time.monotonic(), 0.01)))
            if message["parent_header"].get("msg_id") != message_id:
                continue
            content = message["content"]
            match message["msg_type"]:
                case "stream":
                    printed += content["text"]
                case "error":
                    raise AssertionError("\n".join(content["traceback"]))
                case "status" if content["execution_state"] == "idle":
                    return printed.strip()

    def send(self, code: str) -> str:
        """Ask to run `code`, and return the message's id."""
        message_id = secrets.token_hex(8)
        header = {
            "msg_id": message_id,
            "msg_type": "execute_request",
            "session": "tests",
            "username": "",
            "version": "5.3",
        }
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
        }
        self.socket.send(
            json.dumps(
                {
                    "channel": "shell",
                    "header": header,
                    "parent_header": {},
                    "metadata": {},
                    "content": content,
                    "buffers": [],
                }
            )
        )
        return message_id
