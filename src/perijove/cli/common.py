"""
What every command shares: its options, reading the configuration, printing, and exit codes.

Nothing heavy is imported before a command needs it: ``--help`` is answered at once.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

import typer
from rich.console import Console

from perijove.domain.errors import ConfigError, HubError

if TYPE_CHECKING:
    from perijove.settings import Settings

FAILED = 1
WRONG = 2
"""Wrong usage or configuration: trying again without a change is useless."""

P = ParamSpec("P")
T = TypeVar("T")

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", envvar="PERIJOVE_CONFIG", help="The TOML file.", metavar="FILE"),
]
BindOption = Annotated[
    str | None, typer.Option(help="The public address, host:port.", metavar="ADDRESS")
]
DataDirOption = Annotated[
    Path | None, typer.Option(help="Where keys, database and homes live.", metavar="DIRECTORY")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def settings_of(
    config: Path | None, bind: str | None = None, data_dir: Path | None = None
) -> "Settings":
    """Return the configuration with the command line laid over it."""
    from perijove.settings import load

    hub: dict[str, Any] = {}
    if bind is not None:
        hub["bind"] = bind
    if data_dir is not None:
        hub["data_dir"] = str(data_dir)
    return load(config, os.environ, {"hub": hub})


def reporting_errors(command: Callable[P, T]) -> Callable[P, T]:
    """Turn errors raised on purpose into a message and an exit code."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except HubError as error:
            err.print(f"[red]error:[/] {plain(error)}", soft_wrap=True)
            if error.hint:
                err.print(plain(error.hint), soft_wrap=True)
            raise SystemExit(WRONG if isinstance(error, ConfigError) else FAILED) from None
        except KeyboardInterrupt:
            raise SystemExit(130) from None

    return wrapped


def plain(text: object) -> str:
    """Return a text for `out` and `err` in which nothing is mark-up."""
    return str(text).replace("[", "\\[")


def why_unreadable(file: str, error: OSError | UnicodeDecodeError) -> str:
    """Say why a file could not be read: its name once, and no number of an error."""
    return f"{file}: {getattr(error, 'strerror', None) or error}"


def print_json(value: Any) -> None:
    """Print a value for programs."""
    sys.stdout.write(json.dumps(value, indent=2, default=str, ensure_ascii=False) + "\n")


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a list as a table for people."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in rows[0] if rows else ():
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else plain(value) for value in row.values()))
    out.print(table if rows else "none")
