"""
A server for tests: standard library only, quick to start, odd on request.

Run as ``program.py MODE``. Every mode listens where ``JUPYTERHUB_SERVICE_URL`` says and answers
each request with 200 and the environment, but for:

- ``exit-N``: writes a line into the file ``runs`` and what a pipe can hold to its output, and
  ends at once with status N;
- ``stubborn``: ignores SIGTERM;
- ``chatty``: first writes 4 MB of numbered lines;
- ``parent``: leaves children behind that ran away from it in every way they know;
- ``clash``: at its first run lets somebody else take its port first, and fails as servers do then.
"""

import json
import os
import re
import signal
import socket
import sys
import time
from pathlib import Path


def listen() -> socket.socket:
    """Listen where the hub wants it."""
    place = re.match(r"http://([^:/]+):(\d+)/", os.environ["JUPYTERHUB_SERVICE_URL"])
    assert place is not None
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((place[1], int(place[2])))
    server.listen(16)
    return server


def serve(server: socket.socket) -> None:
    """Answer until somebody ends it."""
    body = json.dumps(dict(os.environ) | {"cwd": str(Path.cwd())}).encode()
    head = f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    while True:
        client, _ = server.accept()
        client.recv(65536)
        client.sendall(head + body)
        client.close()


def chat(lines: int) -> None:
    """Write lines of a hundred bytes."""
    for number in range(lines):
        print(f"line {number} ".ljust(99, "."), flush=number % 1000 == 0)
    print("the last line", flush=True)


def leave_children() -> None:
    """Start children of which one has a session of its own, and one also no parent any more."""
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        wait_forever()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            wait_forever()
        os._exit(0)
    os.wait()


def wait_forever() -> None:
    """Do nothing, without the files of the parent."""
    os.closerange(0, 64)
    while True:
        time.sleep(3600)


def clash() -> socket.socket:
    """Fail as a server does whose port was taken, if a test has a stranger ready to take it."""
    stranger = os.environ.get("TEST_STRANGER", "")
    if stranger:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(stranger)
            connection.sendall(os.environ["JUPYTERHUB_SERVICE_URL"].encode())
            connection.recv(1)  # The stranger has it, or leaves it to us.
    return listen()


def main(mode: str) -> None:
    """Be the server that `mode` names."""
    if mode.startswith("exit-"):
        with Path("runs").open("a") as runs:
            print(os.getpid(), file=runs)
        chat(500)
        sys.exit(int(mode[5:]))
    if mode == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if mode == "chatty":
        chat(40_000)
    if mode == "parent":
        leave_children()
    serve(clash() if mode == "clash" else listen())


main(sys.argv[1])
