"""
Settings of the server in a batch job; Jupyter reads them before anything of the person's.

What keeps files in a home on a network disk (SQLite above all) is kept in memory or on the
node's own disk. And from here on the process has the person's own environment: the server has
started without it, the kernels and terminals it will start are to have it.
"""
# pathlib would add much to what a small program needs to start, and did less in Python 3.6:
# ruff: noqa: PTH118, PTH119, PTH123

import contextlib
import json
import os
import sys

c = get_config()  # type: ignore[name-defined]  # noqa: F821 - Jupyter gives it to this file

session = os.environ.get("PERIJOVE_SESSION", "")

# A kernel's sockets there are called kernel-<36 characters>-ipc-<digit>, of 107 bytes in all.
LONGEST_WITH_SOCKETS = 56

c.NotebookNotary.db_file = ":memory:"
for manager in ("ArbitraryFileIdManager", "LocalFileIdManager", "BaseFileIdManager"):
    c[manager].db_path = os.path.join(session, "file_id_manager.db")
c.SQLiteYStore.db_path = os.path.join(session, "ystore.db")
if os.environ.get("PERIJOVE_SOCKET"):
    c.ServerApp.sock = os.environ["PERIJOVE_SOCKET"]  # what leads out of this node ends here
    if len(os.fsencode(os.environ["JUPYTER_RUNTIME_DIR"])) <= LONGEST_WITH_SOCKETS:
        c.KernelManager.transport = "ipc"  # and no kernel has a port either
sys.path.append(os.path.join(session, "server"))
c.LabServerApp.extra_labextensions_path = [os.path.join(session, "labextensions")]
# Nodes seldom reach the Internet; nobody is to wait for, or be asked about, news from there.
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.handlers.announcements.NeverCheckForUpdate"
if os.geteuid() == 0:
    c.ServerApp.allow_root = True  # not a choice here: it is the account of the job

with (
    contextlib.suppress(OSError, ValueError),
    open(os.path.join(session, "world.json"), encoding="utf-8") as file,
):
    for name, value in json.load(file).items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value

shell = os.environ.get("SHELL", "/bin/sh")
if os.environ.get("JUPYTERHUB_DISABLE_USER_CONFIG"):
    # Safe mode: what is broken may be in the start files, and this is where it is repaired.
    c.ServerApp.terminado_settings = {"shell_command": ["/bin/bash", "--noprofile", "--norc"]}
elif os.environ.get("PERIJOVE_PATH") and os.path.basename(shell) in ("bash", "ksh", "zsh"):
    # A login may set the path anew (Debian's does); the session's software comes first in it.
    start = 'PATH="$PERIJOVE_PATH:$PATH"; export PATH; exec "$SHELL"'
    c.ServerApp.terminado_settings = {"shell_command": [shell, "-lc", start]}

with contextlib.suppress(ImportError, AttributeError):
    from jupyter_client.manager import KernelManager

    # No setting reaches the kernels of a person whose profile is their own affair, but their
    # command line does.
    format_kernel_cmd = KernelManager.format_kernel_cmd

    def with_history_in_memory(self, extra_arguments=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        """Return a kernel's command line; IPython's keeps its history in memory."""
        extra = list(extra_arguments or [])
        if any("ipykernel" in word for word in self.kernel_spec.argv):
            extra.append("--HistoryManager.hist_file=:memory:")
        return format_kernel_cmd(self, extra)

    KernelManager.format_kernel_cmd = with_history_in_memory  # type: ignore[method-assign]
