"""What a job finds on its node: its own id, its address, its home, memory, and who listens."""
# pathlib would add much to what a small program needs to start, and did less in Python 3.6:
# ruff: noqa: PTH115, PTH123, PTH208

import contextlib
import errno
import fcntl
import ipaddress
import os
import pwd
import random
import socket
import struct
import tempfile
import time

from perijove.agent.cannot import Cannot
from perijove.agent.rescue import LOOK_SECONDS, trouble_with
from perijove.spawners.local.supervisor import descendants

JOB_IDS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")
NODE_NAMES = ("SLURMD_NODENAME",)
CPU_COUNTS = ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "NSLOTS")
TEMPORARY = ("SLURM_TMPDIR", "TMPDIR")
SIOCGIFADDR = 0x8915
LISTENS = "0A"


def job_id(environment: "dict[str, str]") -> str:
    """Return the id that the scheduler gave this job; empty outside one."""
    return next((environment[name] for name in JOB_IDS if environment.get(name)), "")


def node_name(environment: "dict[str, str]") -> str:
    """Return the name under which the scheduler knows this node."""
    found = next((environment[name] for name in NODE_NAMES if environment.get(name)), "")
    return found or socket.gethostname()


def granted_cpus(environment: "dict[str, str]") -> int:
    """Return how many cores this job may use."""
    for name in CPU_COUNTS:
        if environment.get(name, "").isdigit():
            return max(int(environment[name]), 1)
    return len(os.sched_getaffinity(0))


def account() -> pwd.struct_passwd:
    """Return the account of this process; raises `Cannot` where the node does not know it."""
    try:
        return pwd.getpwuid(os.getuid())
    except KeyError:
        words = f"{socket.gethostname()} does not know the user id {os.getuid()}"
        raise Cannot("home-missing", words) from None


# --- the address -----------------------------------------------------------------------------


def own_addresses() -> "list[str]":
    """Return the addresses of this node's interfaces."""
    found = []
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            with contextlib.suppress(OSError):  # an interface without such an address
                answer = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, request)
                found.append(socket.inet_ntoa(answer[20:24]))
    with contextlib.suppress(OSError), open("/proc/net/if_inet6", encoding="ascii") as table:
        found += [
            socket.inet_ntop(socket.AF_INET6, bytes.fromhex(line.split()[0])) for line in table
        ]
    return found


def choose_host(networks: "list[str]", name: str) -> "tuple[str, str]":
    """
    Return what to say of where we listen, and the address to listen at.

    Within `networks` that is this node's address there. Without them it is the node's name, and
    all its addresses: what the name stands for elsewhere cannot be known here.
    """
    if not networks:
        return name, "0.0.0.0"  # noqa: S104 - the server asks everybody who they are
    own = [ipaddress.ip_address(address) for address in own_addresses()]
    for network in map(ipaddress.ip_network, networks):
        for address in own:
            if address.version == network.version and address in network:
                return str(address), str(address)
    words = f"{name} has no address within {', '.join(networks)}"
    raise Cannot("host-refused", words, networks=networks)


def open_port(address: str, ports: "list[int] | None") -> socket.socket:
    """Return a socket that listens at `address`, on a port of the range if there is one."""
    if ports is None:
        candidates = [0]
    else:
        candidates = list(range(ports[0], ports[1] + 1))
        random.shuffle(candidates)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for port in candidates:
        listener = socket.socket(family, socket.SOCK_STREAM)
        # The server takes the port over at once, whatever connections of ours linger there.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
            listener.listen(16)
        except OSError as error:
            listener.close()
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise Cannot("host-refused", f"{address}: {error}") from error
        else:
            return listener
    words = f"no port from {candidates[0]} to {candidates[-1]} is free at {address}"
    if ports is not None:
        words = f"no port from {ports[0]} to {ports[1]} is free at {address}"
    raise Cannot("port-range-full", words, ports=ports)


def listeners(port: int) -> "set[str]":
    """Return the sockets, as inode numbers, that take connections to `port` of any address."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError), open(table, encoding="ascii") as lines:
            next(lines, "")
            for line in lines:
                fields = line.split()
                if fields[3] == LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(fields[9])
    return found


def is_ours(sockets: "set[str]") -> bool:
    """Tell whether every one of these sockets is held by what we started."""
    missing = set(sockets)
    for pid in descendants():
        with contextlib.suppress(OSError):
            for entry in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    target = os.readlink(f"/proc/{pid}/fd/{entry}")
                    if target.startswith("socket:["):
                        missing.discard(target[8:-1])
        if not missing:
            return True
    return False


# --- files -----------------------------------------------------------------------------------


def make_temporary(environment: "dict[str, str]", name: str) -> str:
    """Make and return a private directory on the node's own disk."""
    last: OSError | None = None
    for base in [environment.get(each, "") for each in TEMPORARY] + ["/tmp", "/var/tmp"]:  # noqa: S108
        if base:
            try:
                return tempfile.mkdtemp(prefix=f"{name}-", dir=base)
            except OSError as error:
                last = error
    raise Cannot("wrapper-failed", f"no directory for temporary files: {last}")


def home_trouble(home: str, seconds: float = LOOK_SECONDS) -> "tuple[str, str]":
    """Return a code and words for what is wrong with the home; empty when nothing is."""
    code, words = trouble_with(home, seconds)
    if not code:
        return "", ""
    return "home-full" if code == "full" else "home-missing", words


# --- memory ----------------------------------------------------------------------------------


def prefer_to_kill(pids: "list[int]", more_than: int) -> None:
    """Have the kernel, short of memory, kill one of these processes rather than `more_than`."""
    with contextlib.suppress(OSError, ValueError):
        with open(f"/proc/{more_than}/oom_score_adj", "rb") as own:
            wanted = min(int(own.read()) + 300, 1000)
        for pid in pids:
            name = f"/proc/{pid}/oom_score_adj"
            with contextlib.suppress(OSError, ValueError), open(name, "r+b", buffering=0) as file:
                if int(file.read(16)) < wanted:
                    file.write(b"%d" % wanted)


class Output:
    """
    The job's own output, of limited size: what is too much is taken from its middle.

    The scheduler opened the file; where it is none (a pipe, a terminal) nothing is taken.
    """

    def __init__(self, limit: int, descriptor: int = 1) -> None:
        self._descriptor = descriptor
        self._limit = limit
        self._mark = b"\n[...]\n"

    def write(self, output: bytes) -> None:
        """Write, or lose it when the disk is full: the server must not notice."""
        with contextlib.suppress(OSError):
            while output:
                output = output[os.write(self._descriptor, output) :]
        with contextlib.suppress(OSError):
            size = os.lseek(self._descriptor, 0, os.SEEK_END)
            if size > self._limit:
                self._shorten(size)

    def _shorten(self, size: int) -> None:
        # The scheduler's descriptor is for writing only.
        with open(f"/proc/self/fd/{self._descriptor}", "rb") as file:
            file.seek(size - self._limit // 4)
            tail = file.read()
        os.ftruncate(self._descriptor, self._limit // 2)
        os.lseek(self._descriptor, 0, os.SEEK_END)
        os.write(self._descriptor, self._mark + tail)


def say(words: str) -> None:
    """Write a line of our own into the job's output."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S")
    with contextlib.suppress(OSError):
        os.write(1, f"[perijove {stamp}] {words}\n".encode("utf-8", "replace"))
