"""
The environment of the server, and the other one of kernels and terminals.

The server's is built from what cannot be broken from a home: no variables that load code, no
programs of the home, and what modules and the site add to that. Kernels and terminals get back
the person's own world; neither sees that it runs inside a batch job, so that ``sbatch`` and
``qsub`` do what they do on a login node.
"""
# pathlib would add much to what a small program needs to start, and did less in Python 3.6:
# ruff: noqa: PTH101, PTH110, PTH112, PTH118, PTH119, PTH123, PTH211

import os
import shlex
import shutil
import subprocess
import tempfile
import time

from perijove.agent.cannot import Cannot
from perijove.agent.node import say
from perijove.spawners.local.supervisor import Signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    import pwd
    from typing import Any

SOFTWARE_SECONDS = 300
LOGIN_SECONDS = 10
LOGIN_SHELLS = ("bash", "dash", "ksh", "sh", "zsh")
USUAL_UMASK = 0o022
SHELL_POLL = 0.05
WORDS = 2000
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"

SCHEDULER_PREFIXES = (
    "SLURM_", "SLURMD_", "SBATCH_", "SRUN_", "SALLOC_", "PMI_", "PMIX_", "PBS_", "LSB_", "SGE_",
)  # fmt: skip
SCHEDULER_NAMES = {
    "ARC", "ENVIRONMENT", "HYDRA_BOOTSTRAP", "I_MPI_HYDRA_BOOTSTRAP", "JOB_ID", "JOB_NAME",
    "JOB_SCRIPT", "NHOSTS", "NQUEUES", "NSLOTS", "PE", "PE_HOSTFILE", "QUEUE", "REQNAME",
    "REQUEST", "RESTARTED", "TMP",
}  # fmt: skip
# How this job was submitted: without an environment, which its steps are to have.
SUBMISSION_NAMES = {"SLURM_EXPORT_ENV", "SLURM_GET_USER_ENV", "SBATCH_EXPORT"}
# Where the scheduler itself is; a login node has these too.
LOGIN_NAMES = {
    "SLURM_CONF", "SGE_ROOT", "SGE_CELL", "SGE_CLUSTER_NAME", "SGE_QMASTER_PORT",
    "SGE_EXECD_PORT", "PBS_SERVER", "PBS_CONF_FILE",
}  # fmt: skip
# With these a home, or a login script, could put its own code into the server.
CODE_NAMES = (
    "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONUSERBASE", "PYTHONWARNINGS",
    "JUPYTER_CONFIG_PATH", "JUPYTER_PATH", "LD_PRELOAD", "BASH_ENV", "ENV",
)  # fmt: skip
THREAD_NAMES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS", "JULIA_NUM_THREADS", "RAYON_NUM_THREADS",
    "R_DATATABLE_NUM_THREADS", "POLARS_MAX_THREADS",
)  # fmt: skip

# What is true of this session only, besides what is Jupyter's and ours.
SESSION_NAMES = (
    "TMPDIR", "PIP_PREFIX", "PYTHONPATH", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK", "CPU_LIMIT", "MEM_LIMIT",
    *THREAD_NAMES,
)  # fmt: skip
SUBMITTERS = ("sbatch", "salloc", "srun", "qsub", "qrsh", "qsh", "qlogin", "bsub")
SUBMIT_SCRIPT = """\
#!/bin/sh
# Submits as from a login node: without what is true of this Jupyter session only.
bin={folder}
PATH=${{PATH#"$bin":}}
export PATH
program=$(PATH={path} command -v "${{0##*/}}")
if [ -z "${{SLURM_JOB_ID-}}${{JOB_ID-}}" ]; then  # else one works inside the allocation
    unset $(env | sed -nE 's/^((JUPYTER|JPY_|PERIJOVE_)[A-Z0-9_]*)=.*/\\1/p') JUPYTERHUB_API_TOKEN
    {forget}
fi
exec "$program" "$@"
"""

# Loads modules without anybody's start-up files; the words come as arguments, never as text of
# the script: where to write the environment, a count, the modules, then for each setup command
# its length and its words.
SHELL_SCRIPT = r"""
result=$1; shift
if ! command -v module >/dev/null 2>&1; then
    for each in "$MODULESHOME/init/bash" "$LMOD_PKG/init/bash" /etc/profile.d/z00_lmod.sh \
        /etc/profile.d/lmod.sh /etc/profile.d/modules.sh /usr/share/lmod/lmod/init/bash \
        /usr/share/modules/init/bash /usr/share/Modules/init/bash; do
        [ -r "$each" ] && . "$each" >/dev/null 2>&1 && command -v module >/dev/null 2>&1 && break
    done
fi
count=$1; shift
while [ "$count" -gt 0 ]; do
    module load "$1" || { echo "module load $1: status $?" >&2; exit 3; }
    shift; count=$((count - 1))
done
while [ $# -gt 0 ]; do
    count=$1; shift
    "${@:1:$count}" || { echo "${*:1:$count}: status $?" >&2; exit 4; }
    shift "$count"
done
cat /proc/self/environ >&"$result"
"""


def is_of_scheduler(name: str) -> bool:
    """Tell whether a variable says that one is inside a batch job."""
    if name in LOGIN_NAMES:
        return False
    return name in SCHEDULER_NAMES or name.startswith(SCHEDULER_PREFIXES)


def is_within(path: str, folder: str) -> bool:
    """Tell whether a path is below a folder, which "/" never counts as."""
    folder = folder.rstrip("/")
    return bool(folder) and (path == folder or path.startswith(folder + "/"))


def path_without(path: str, folder: str) -> str:
    """Return a search path without what is below a folder, and without relative places."""
    kept = [
        each for each in path.split(":") if each.startswith("/") and not is_within(each, folder)
    ]
    return ":".join(kept)


def base_environment(outer: "dict[str, str]", home: str) -> "dict[str, str]":
    """Return what the server starts from: the job's environment without what could break it."""
    environment = {
        name: value
        for name, value in outer.items()
        if not is_of_scheduler(name) and name not in CODE_NAMES
    }
    environment["PATH"] = path_without(outer.get("PATH", ""), home) or SYSTEM_PATH
    environment["PYTHONNOUSERSITE"] = "1"
    environment.setdefault("LANG", "C.UTF-8")
    return environment


def own_variables(person: "pwd.struct_passwd", home: str) -> "dict[str, str]":
    """Return the variables that say who one is."""
    return {
        "HOME": home,
        "USER": person.pw_name,
        "LOGNAME": person.pw_name,
        "SHELL": person.pw_shell or "/bin/sh",
    }


def with_login(
    outer: "dict[str, str]", person: "dict[str, str]", signals: Signals
) -> "tuple[dict[str, str], int]":
    """
    Return the job's environment with that of the person's login under it, and the login's umask.

    Their start files may end the shell, or never come to an end: then they are left out, and
    what stays is the login that the system gives everybody.
    """
    shell = person["SHELL"] if os.path.basename(person["SHELL"]) in LOGIN_SHELLS else "/bin/bash"
    start = {name: outer[name] for name in LOGIN_NAMES if name in outer}
    start.update(person, PATH=outer.get("PATH") or SYSTEM_PATH, LANG=outer.get("LANG", "C.UTF-8"))
    tell = '{ umask; cat /proc/self/environ; } >&"$0"'
    for command in (
        [shell, "-lc", tell],
        ["/bin/bash", "--noprofile", "--norc", "-c", f". /etc/profile; {tell}"],
    ):
        found, umask = ask_shell(command, start, signals)
        if found:
            return dict(found, **{name: outer[name] for name in outer if name != "PATH"}), umask
        say("the login's start files did not come to their end: going on without them")
    return outer, USUAL_UMASK


def ask_shell(
    command: "list[str]", environment: "dict[str, str]", signals: Signals
) -> "tuple[dict[str, str], int]":
    """Return environment and umask that a shell writes into a file; empty if it does not."""
    with tempfile.TemporaryFile() as found:
        ours = os.umask(USUAL_UMASK)
        try:
            process = subprocess.Popen(  # noqa: S603 - the person's own shell, as the person
                [*command, str(found.fileno())],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[found.fileno()],
                start_new_session=True,
            )
        except OSError:
            return {}, USUAL_UMASK
        finally:
            os.umask(ours)
        wait_for(process, signals, LOGIN_SECONDS)
        found.seek(0)
        umask, _, environ = found.read().partition(b"\n")
        try:
            return read_environment(environ), int(umask, 8) & 0o777
        except ValueError:
            return {}, USUAL_UMASK


def load_software(
    software: "dict[str, Any]", environment: "dict[str, str]", signals: Signals
) -> "dict[str, str]":
    """Return the environment with modules, setup commands and a Python environment in it."""
    modules, setup = software.get("modules") or [], software.get("setup") or []
    if modules or setup:
        environment = run_shell(modules, setup, environment, signals)
    prefix = software.get("prefix")
    if prefix:
        folder = os.path.join(prefix, "bin")
        if not os.path.isdir(folder):
            raise Cannot("environment-missing", f"{folder} is not there", prefix=prefix)
        environment = dict(environment, PATH=f"{folder}:{environment['PATH']}")
    return environment


def run_shell(
    modules: "list[str]",
    setup: "list[list[str]]",
    environment: "dict[str, str]",
    signals: Signals,
) -> "dict[str, str]":
    """Load modules and run commands in a shell that reads nobody's files; return what comes."""
    words = [str(len(modules)), *modules]
    for command in setup:
        words += [str(len(command)), *command]
    shell = ["bash", "--noprofile", "--norc", "-c", SHELL_SCRIPT, "perijove"]
    with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as found:
        try:
            process = subprocess.Popen(  # noqa: S603 - the site's own commands, no text of users
                [*shell, str(found.fileno()), *words],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=told,
                stderr=told,
                pass_fds=[found.fileno()],
                start_new_session=True,
            )
        except OSError as error:
            raise Cannot("setup-failed", f"bash: {error}") from error
        status = wait_for(process, signals, SOFTWARE_SECONDS)
        told.seek(0)
        output = told.read().decode("utf-8", "replace")
        failed_quietly = ":ERROR:" in output  # old Environment Modules end with status 0
        if status != 0 or (modules and failed_quietly):
            code = "setup-failed" if status == 4 or not modules else "module-failed"
            late = "" if status is not None else f"not done within {SOFTWARE_SECONDS} s\n"
            raise Cannot(code, (late + output)[-WORDS:].strip(), modules=modules)
        os.write(1, output.encode("utf-8", "replace"))
        found.seek(0)
        return read_environment(found.read())


def wait_for(process: "subprocess.Popen[bytes]", signals: Signals, seconds: float) -> "int | None":
    """Return the status of the shell; None when it was too slow and is killed."""
    latest = time.monotonic() + seconds
    while process.poll() is None:
        if signals.stop_asked or time.monotonic() >= latest:
            os.killpg(process.pid, 9)
            process.wait()
            if signals.stop_asked:
                raise Cannot("cancelled", "the job was asked to end while it loaded its software")
            return None
        time.sleep(SHELL_POLL)
    return process.returncode


def read_environment(raw: bytes) -> "dict[str, str]":
    """Return the variables in the kernel's form: ``NAME=value``, each ended by a zero byte."""
    entries = (os.fsdecode(entry).partition("=") for entry in raw.split(b"\0") if entry)
    hidden = ("_", "SHLVL", "PWD", "OLDPWD")
    return {name: value for name, separator, value in entries if separator and name not in hidden}


def find_program(name: str, *paths: str) -> "str | None":
    """Return the program in the first of some search paths that has it."""
    if "/" in name:
        return name if os.access(name, os.X_OK) else None
    return next(
        (found for path in paths for found in [shutil.which(name, path=path)] if found), None
    )


def find_command(
    command: "list[str]",
    software: "dict[str, Any]",
    environment: "dict[str, str]",
    *,
    own_path: str,
    temporary: str,
) -> "list[str]":
    """
    Return the server's command with its program found; raises `Cannot`.

    Programs of the home, on `own_path`, are taken only when there is none elsewhere.
    """
    container = software.get("container")
    if not container:
        program = find_program(command[0], environment["PATH"], own_path)
        if program is None:
            words = f"{command[0]} is not in {environment['PATH']}"
            raise Cannot("command-missing", words, command=command[0])
        return [program, *command[1:]]
    runtime = find_program(container.get("runtime") or "apptainer", environment["PATH"])
    image = container["image"]
    if runtime is None:
        words = f"{container.get('runtime')} is not in {environment['PATH']}"
        raise Cannot("container-failed", words, image=image)
    if image.startswith("/") and not os.path.exists(image):
        raise Cannot("container-failed", f"{image} is not there", image=image)
    arguments = container.get("arguments") or []
    return [runtime, "exec", "--bind", temporary, *arguments, image, *command]


def set_threads(environment: "dict[str, str]", cpus: int) -> None:
    """Let libraries start as many threads as there are cores granted, unless somebody said."""
    for name in THREAD_NAMES:
        environment.setdefault(name, str(cpus))


def pip_places(environment: "dict[str, str]", folder: str) -> "dict[str, str]":
    """Return variables with which ``pip install`` puts packages into `folder` for this session."""
    python = find_program("python3", environment["PATH"])
    if python is None or "PIP_PREFIX" in environment or "PIP_TARGET" in environment:
        return {}
    question = (
        "import sys, sysconfig as s; f = getattr(s, 'get_preferred_scheme', None); v = "
        "dict.fromkeys(('base', 'platbase'), sys.argv[1]); print(s.get_path('purelib', "
        "f('prefix') if f else 'posix_prefix', v))"
    )
    try:
        answer = subprocess.check_output(  # noqa: S603 - the site's own Python
            [python, "-I", "-c", question, folder],
            env=environment,
            stderr=subprocess.DEVNULL,
            timeout=20,
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"PIP_PREFIX": folder, "PYTHONPATH": os.fsdecode(answer).strip()}


def own_world(
    server: "dict[str, str]", outer: "dict[str, str]", home: str, extra: "dict[str, str]"
) -> "dict[str, str | None]":
    """
    Return what changes for kernels and terminals in the server's environment; None: it goes.

    They search first what the software added, then all that a login has. A login shell may set
    its path anew; what was added is told apart, so that a terminal can put it back.
    """
    base = path_without(outer.get("PATH", ""), home).split(":")
    added = [each for each in server["PATH"].split(":") if each not in base]
    changes: dict[str, str | None] = {"PYTHONNOUSERSITE": None}
    changes["PATH"] = ":".join(added + outer.get("PATH", server["PATH"]).split(":"))
    changes["PERIJOVE_PATH"] = ":".join(added)
    for name in CODE_NAMES:
        values = [each.get(name, "") for each in (extra, server, outer)]
        together = ":".join(dict.fromkeys(value for value in values if value))
        if name in ("PYTHONPATH", "JUPYTER_PATH"):
            changes[name] = together or None
        elif name in outer and name not in server and name != "JUPYTER_CONFIG_PATH":
            changes[name] = outer[name]
    for name, value in extra.items():
        changes.setdefault(name, value)
    return changes


def write_submitters(
    folder: str, environment: "dict[str, str | None]", search_path: str
) -> "list[str]":
    """
    Make, for each program here that submits jobs, one of the same name that forgets the session.

    What is submitted from a terminal or a kernel takes its environment along. A directory of
    this session, or the number of its cores, is wrong there, and its token nobody's business.
    """
    found = [name for name in SUBMITTERS if shutil.which(name, path=search_path)]
    forget = [
        f'[ "${{{name}-}}" != {shlex.quote(value)} ] || unset {name}'  # unless set anew
        for name, value in sorted(environment.items())
        if name in SESSION_NAMES and value is not None
    ]
    script = SUBMIT_SCRIPT.format(
        folder=shlex.quote(folder),
        forget="\n    ".join(forget),
        path=shlex.quote(search_path),
    )
    path = os.path.join(folder, "perijove-submit")
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(script)
    os.chmod(path, 0o700)
    for name in found:
        os.symlink("perijove-submit", os.path.join(folder, name))
    return found


def as_shell(variables: "dict[str, str]") -> str:
    """Return variables as lines that a shell reads."""
    return "".join(
        f"export {name}={shlex.quote(value)}\n"
        for name, value in sorted(variables.items())
        if name.replace("_", "").isalnum() and name not in SUBMISSION_NAMES
    )
