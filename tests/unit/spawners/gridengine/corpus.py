"""What a real Grid Engine printed: `tests/corpus/gridengine`."""

from perijove.spawners.batch.scheduler import Result
from perijove.spawners.gridengine.submission import Complexes
from tests.beds import ROOT

COMPLEXES = Complexes(
    memory="rmem",
    gpu="gpu",
    parallel_environment="smp",
    memory_per_slot=True,
    gpu_per_slot=False,
)


def said(name: str) -> Result:
    """Return what is in a file as the answer of a command that succeeded."""
    raw = (ROOT / "tests/corpus/gridengine" / f"{name}.txt").read_bytes()
    return Result(status=0, stdout=raw.decode(errors="replace"), stderr="")


def rejections() -> dict[str, Result]:
    """Return the refused submissions by what was tried."""
    found: dict[str, Result] = {}
    for block in said("rejections").stdout.split("## ")[1:]:
        title, _, body = block.partition("\n")
        status = int(body.partition("exit ")[2].partition(",")[0])
        stdout = body.partition("stdout: '")[2].partition("'\nstderr:")[0]
        stderr = body.partition("\nstderr:\n")[2]
        found[title] = Result(status=status, stdout=stdout.replace("\\n", "\n"), stderr=stderr)
    return found
