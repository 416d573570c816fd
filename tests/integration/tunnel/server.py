"""A server at a unix socket: tells its environment, or so many bytes at ``…/bytes/<number>``."""

import json
import os
import signal
import socketserver
import sys
from http.server import BaseHTTPRequestHandler

CHUNK = b"x" * (1 << 18)


class Answer(BaseHTTPRequestHandler):
    """Answers any GET."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = False

    def do_GET(self) -> None:
        """Send the environment as JSON, or bytes."""
        wanted = self.path.rpartition("/bytes/")[2]
        body = json.dumps(dict(os.environ)).encode()
        length = int(wanted) if wanted.isdigit() else len(body)
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if wanted.isdigit():
            while length:
                length -= self.wfile.write(CHUNK[:length])
        else:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Listens at the socket of the job's tunnel."""

    daemon_threads = True

    def get_request(self) -> tuple[object, tuple[str, int]]:  # type: ignore[override]
        """Return a connection; who connects to a unix socket has no address."""
        connection, _ = super().get_request()
        return connection, ("", 0)


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with Server(os.environ["PERIJOVE_SOCKET"], Answer) as server:
    server.serve_forever()
