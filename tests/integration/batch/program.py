"""
A server whose name says how it behaves; standard library only, quick to start.

As ``program.py setup``, before the server: keeps one whose name begins with ``starting`` from
getting further. As ``program.py``: one whose name begins with ``connecting`` listens and says
nothing; one that begins with ``hungry`` takes far more memory than it asked for when it has been
asked for something; all others answer every request with 200 and the names of their variables.
"""

import json
import os
import re
import signal
import socket
import sys
import time


def name() -> str:
    """Return what the person calls the server."""
    if len(sys.argv) > 1:
        with open("spec.json", encoding="utf-8") as file:  # noqa: PTH123 - Python 3.6
            return str(json.load(file)["environment"].get("JUPYTERHUB_SERVER_NAME", ""))
    return os.environ.get("JUPYTERHUB_SERVER_NAME", "")


def serve(is_mute: bool, is_hungry: bool) -> None:
    """Answer until somebody ends it."""
    place = re.match(r"http://([^:/]+):(\d+)/", os.environ["JUPYTERHUB_SERVICE_URL"])
    assert place is not None
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((place[1], int(place[2])))
    server.listen(16)
    body = json.dumps(sorted(os.environ)).encode()
    head = f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    held = []
    while True:
        client, _ = server.accept()
        if is_mute:
            held.append(client)
            continue
        client.recv(65536)
        client.sendall(head + body)
        client.close()
        if is_hungry:
            taken = bytearray(os.urandom(1 << 20)) * 400
            time.sleep(60)
            del taken


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if sys.argv[1:] == ["setup"]:
        if name().startswith("starting"):
            time.sleep(300)
    else:
        serve(name().startswith("connecting"), name().startswith("hungry"))
