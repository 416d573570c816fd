"""``python -m tests.bench``: run the measurements, show the table, write it as JSON."""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.table import Table

from tests import beds
from tests.bench import hubs, lab, proxies, schedulers, tunnels
from tests.bench.programs import BenchError, find
from tests.bench.results import Result
from tests.bench.upstream import Upstream, running_upstream

_ALL = (*hubs.NAMES, *proxies.NAMES, *lab.NAMES, *tunnels.NAMES, *schedulers.NAMES)
_QUICK = hubs.Size(
    rounds=1, seconds=2, users=1_000, servers=100, many_users=2_000, many_servers=200
)


class Part(Protocol):
    """A module of measurements that share what they run."""

    NAMES: tuple[str, ...]
    NEEDS: tuple[str, ...]
    """What the machine must have, of `tests.beds.NEEDS`."""

    def measure(
        self, directory: Path, upstream: Upstream, size: hubs.Size, wanted: Collection[str]
    ) -> Iterator[Result]:
        """Yield the results of `wanted`, of the names in `NAMES`."""
        ...


_PARTS: tuple[Part, ...] = (proxies, hubs, lab, tunnels, schedulers)
console = Console(stderr=True, highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments ask for; 0 also when a goal is missed, for this is no test."""
    options = _parser().parse_args(arguments)
    beds.load_environment(os.environ)
    wanted = options.only or _ALL
    parts = [part for part in _PARTS if set(part.NAMES) & set(wanted)]
    if not options.only:
        parts = _possible(parts)
    if lacking := _lacking(parts):
        console.print(f"[red]error:[/] {lacking}")
        return 1
    place = beds.ROOT / "bench-results"
    place.mkdir(exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="run-", dir=place))
    results: list[Result] = []
    try:
        for result in _measure(directory, parts, wanted, quick=options.quick):
            results.append(result)
            console.print(f"{result.what}: {result.ratio:.2f} ×")
    except BenchError as error:
        console.print(f"[red]error:[/] {error}")
        return 1
    finally:
        if results:
            Console(width=None if sys.stdout.isatty() else 140).print(_table(results))
        if options.json:
            options.json.write_text(json.dumps(_report(results, quick=options.quick), indent=2))
    shutil.rmtree(directory)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round of everything")
    parser.add_argument(
        "--only", action="append", choices=_ALL, metavar="NAME", help=", ".join(_ALL)
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    return parser


def _possible(parts: Sequence[Part]) -> list[Part]:
    """Return what this machine has all for, and say what it lacks for the rest."""
    found = []
    for part in parts:
        if lacking := beds.missing(part.NEEDS):
            console.print(f"left out {', '.join(part.NAMES)}: {lacking}", soft_wrap=True)
        else:
            found.append(part)
    return found


def _lacking(parts: Collection[Part]) -> str:
    """Say what this machine lacks; an empty text if it has everything."""
    programs = [name for name in ("wrk", "nginx", "curl") if find(name) is None]
    needs = {need for part in parts for need in part.NEEDS}
    found = [f"needs {', '.join(programs)}: testbeds/up bench"] if programs else []
    return "; ".join([*found, *filter(None, [beds.missing(tuple(sorted(needs)))])])


def _measure(
    directory: Path, parts: Sequence[Part], wanted: Collection[str], *, quick: bool
) -> Iterator[Result]:
    size = _QUICK if quick else hubs.Size()
    with running_upstream(directory / "upstream", size=2**30) as upstream:
        for part in parts:
            yield from part.measure(directory / part.NAMES[0], upstream, size, wanted)


def _table(results: Sequence[Result]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, justify in (
        ("Work", "left"),
        ("Perijove", "right"),
        ("other", "right"),
        ("unit", "left"),
        ("ratio", "right"),
        ("CPU ratio", "right"),
        ("goal", "left"),
        ("", "left"),
    ):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for result in results:
        table.add_row(
            result.what,
            _number(result.ours),
            _number(result.theirs),
            result.unit,
            f"{result.ratio:.2f}",
            "" if result.cpu_ratio is None else f"{result.cpu_ratio:.2f}",
            result.goal,
            "[green]met[/]" if result.is_met else "[red]missed[/]",
        )
    return table


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _report(results: Sequence[Result], *, quick: bool) -> dict[str, object]:
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "python": platform.python_version(),
        "machine": f"{os.cpu_count()} × {platform.machine()}, {platform.system()}",
        "results": [result.as_json() for result in results],
    }


if __name__ == "__main__":
    raise SystemExit(main())
