"""What is wrong with a folder that a server is to work in, and what helps whoever clears it up."""
# pathlib would add much to what a small program needs to start, and did less in Python 3.6:
# ruff: noqa: PTH112

import contextlib
import errno
import os
import select
import signal
import tempfile
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_SECONDS = 20
ROOM = 1 << 20  # Bytes that must fit into a folder, or every save fails.
WALK_SECONDS = 10
MOST_FOLDERS = 10000
SHOWN_FOLDERS = 20

RESCUE_TEXT = """\
RESCUE MODE

Your files cannot be used as usual: {words}
Your server runs in a temporary directory on this machine. Everything here is DELETED when the
server stops. Use the terminal to make room or to copy what you need, then start the server again.

MODE DE SECOURS
Vos fichiers ne sont pas utilisables normalement (voir ci-dessus). Votre serveur utilise un
répertoire temporaire, SUPPRIMÉ à l'arrêt. Libérez de la place avec le terminal, puis relancez le
serveur.

MODO DE RESCATE
Sus archivos no se pueden usar como siempre (véase arriba). Su servidor usa un directorio temporal
que se BORRA al detenerlo. Libere espacio con la terminal y vuelva a iniciar el servidor.

MODO DE RESGATE
Seus arquivos não podem ser usados como de costume (veja acima). O servidor usa um diretório
temporário, APAGADO ao parar. Libere espaço com o terminal e inicie o servidor de novo.
"""


def with_deadline(work: "Callable[[], str]", seconds: float) -> "str | None":
    """Return what `work` says, done by a child; None when that hangs, as network disks may."""
    answer, answer_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(answer_end, work().encode("utf-8", "replace")[:4000])
        finally:
            os._exit(0)
    os.close(answer_end)
    words = None
    if select.select([answer], [], [], seconds)[0]:
        words = os.read(answer, 4096).decode("utf-8", "replace")
    else:
        os.kill(pid, signal.SIGKILL)  # It may be beyond that; we go on without it.
    os.close(answer)
    if words is not None:
        os.waitpid(pid, 0)
    return words


def look_at(folder: str) -> str:
    """Return "" for a folder one can work in, else a code and words: ``full: …``."""
    if not os.path.isdir(folder):
        return f"missing: {folder} is not there"
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".perijove-") as probe:
            probe.write(b"\0" * ROOM)
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"full: {folder}: {_what_is_full(folder, str(error.strerror))}"
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            return f"read-only: {folder}: {error.strerror}"
        return f"missing: {folder}: {error.strerror}"
    return ""


def _what_is_full(folder: str, words: str) -> str:
    """Return the system's words, or that it is files there are too many of."""
    with contextlib.suppress(OSError):
        counted = os.statvfs(folder)
        if counted.f_files and not counted.f_favail:
            return f"no more files fit, there are {counted.f_files - counted.f_ffree}"
    return words


def trouble_with(folder: str, seconds: float = LOOK_SECONDS) -> "tuple[str, str]":
    """
    Return a code and words for what is wrong with a folder; empty when nothing is.

    The codes are ``full``, ``read-only`` and ``missing``, which is also what does not answer.
    """
    found = with_deadline(lambda: look_at(folder), seconds)
    if found is None:
        return "missing", f"{folder} does not answer within {seconds:g} s"
    code, _, words = found.partition(": ")
    return code, words


def biggest_in(root: str, seconds: float = WALK_SECONDS) -> "list[tuple[int, int, str]]":
    """
    Return bytes, files and path of what takes most of a folder, two levels deep, the most first.

    What could not be read in time is not counted.
    """
    latest = time.monotonic() + seconds
    counted: dict[str, tuple[int, int]] = {}
    waiting: list[tuple[str, list[str]]] = [(root, [])]
    while waiting and time.monotonic() < latest:
        folder, above = waiting.pop()
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    is_folder = entry.is_dir(follow_symlinks=False)
                    inside = above
                    if len(above) < 2 and (is_folder or not above):
                        inside = [*above, entry.path]
                    for path in inside:
                        if path in counted or len(counted) < MOST_FOLDERS:
                            size, files = counted.get(path, (0, 0))
                            counted[path] = size + 512 * found.st_blocks, files + 1
                    if is_folder:
                        waiting.append((entry.path, inside))
    sizes = sorted(((size, files, path) for path, (size, files) in counted.items()), reverse=True)
    by_files = sorted(sizes, key=lambda each: -each[1])[: SHOWN_FOLDERS // 4]
    shown = sizes[:SHOWN_FOLDERS]
    return shown + [each for each in by_files if each not in shown]
