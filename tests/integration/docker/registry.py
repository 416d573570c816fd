"""A registry with a few images, in this process: it can be slow, strict, or change its mind."""

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from types import TracebackType
from typing import Any, ClassVar, Final, Self

MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG: Final = "application/vnd.docker.container.image.v1+json"
LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
LOGIN: Final = "cHVsbGVyOnNlc2FtZQ=="
"""What lets one in where a registry is strict: `puller:sesame`."""
_SIZE: Final = 6 * 2**20
_PIECE: Final = 2**20


class Registry:
    """Serves what was pushed by `push`; half of every layer waits for `gate`."""

    def __init__(self) -> None:
        self.is_strict = False
        self.gate = Event()
        self.gate.set()
        self.asked: list[str] = []
        self._blobs: dict[str, bytes] = {}
        self._manifests: dict[str, bytes] = {}
        registry = self

        class Handler(_Handler):
            served = registry

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        """Listen."""
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Let go of everybody."""
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()

    def push(self, name: str, *, seed: int = 1) -> str:
        """Have an image, without anything that could be run; returns its reference."""
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as archive:
            entry = tarfile.TarInfo("noise")
            entry.size = _SIZE
            archive.addfile(entry, io.BytesIO(random.Random(seed).randbytes(_SIZE)))
        layer = gzip.compress(content.getvalue(), 0, mtime=0)
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [_digest(content.getvalue())]},
            }
        ).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self._keep(CONFIG, config),
            "layers": [self._keep(LAYER, layer)],
        }
        path, _, tag = name.partition(":")
        self._manifests[f"/v2/{path}/manifests/{tag}"] = json.dumps(manifest).encode()
        return f"{self.host}/{name}"

    def _keep(self, kind: str, content: bytes) -> Mapping[str, Any]:
        digest = _digest(content)
        self._blobs[digest] = content
        return {"mediaType": kind, "size": len(content), "digest": digest}

    def find(self, path: str) -> tuple[str, bytes] | None:
        """Return the type and the content of what is at a path."""
        if path in self._manifests:
            return MANIFEST, self._manifests[path]
        for manifest in self._manifests.values():
            if path.endswith(f"/manifests/{_digest(manifest)}"):
                return MANIFEST, manifest
        blob = self._blobs.get(path.rpartition("/")[2])
        return ("application/octet-stream", blob) if blob is not None else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: ClassVar[Registry]

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        self.served.asked.append(self.path)
        if self.served.is_strict and self.headers.get("Authorization") != f"Basic {LOGIN}":
            self._say(401, b"{}", ("WWW-Authenticate", 'Basic realm="test"'))
        elif self.path == "/v2/":
            self._say(200, b"{}")
        elif (found := self.served.find(self.path)) is None:
            error = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
            self._say(404, json.dumps(error).encode())
        else:
            self._give(*found, with_body=with_body)

    def _say(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for key, value in (("Content-Type", "application/json"), *headers):
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _give(self, kind: str, content: bytes, *, with_body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Docker-Content-Digest", _digest(content))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            with suppress(OSError):  # Who has to wait so long may go.
                self._send(content)

    def _send(self, content: bytes) -> None:
        half = len(content) // 2 if len(content) >= _SIZE else 0
        for start in range(0, half, _PIECE):
            self.wfile.write(content[start : min(start + _PIECE, half)])
            self.served.gate.wait(0.15)  # An engine tells of progress ten times a second at most.
        if half:
            self.served.gate.wait(60)
        self.wfile.write(content[half:])

    def log_message(self, *args: object) -> None:
        pass


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
