"""A hub that is not root, as its administrators set one up: its account, launcher and sudo rule."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests import beds
from tests.e2e.site import Site

HUB: Final = "perijove-hub"
INSTALL: Final = beds.ROOT / "deploy/launcher/install"
LAUNCHER: Final = Path("/usr/libexec/perijove-launch")
RULE: Final = Path("/etc/sudoers.d/perijove-launch")


@contextmanager
def launcher_installed() -> Iterator[None]:
    """Have the launcher installed by its one command, as it is afterwards removed by another."""
    assert not RULE.exists() or HUB in RULE.read_text()  # Not a rule of somebody who works here.
    subprocess.run([INSTALL, "--hub", HUB], check=True, timeout=60, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        subprocess.run([INSTALL, "--remove"], check=True, timeout=60)
    assert not RULE.exists()
    assert not LAUNCHER.exists()


def hand_over(site: Site) -> None:
    """Give a site that has not begun, and a copy of this clone's Perijove, to the hub's account."""
    library = site.directory.with_name("library")
    shutil.copytree(beds.ROOT / "src/perijove", library / "perijove")
    subprocess.run(["chown", "-R", f"{HUB}:{HUB}", library, site.directory], check=True)
    become = ["setpriv", f"--reuid={HUB}", f"--regid={HUB}", "--clear-groups", "--"]
    site.python = [*become, f"{os.environ['PERIJOVE_TEST_HUB_PREFIX']}/bin/python"]
    site.environment = {"PYTHONPATH": str(library), "HOME": pwd.getpwnam(HUB).pw_dir}
