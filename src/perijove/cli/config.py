"""``perijove config``: check, show, sample."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import typer

from perijove.cli.common import (
    WRONG,
    ConfigOption,
    JsonOption,
    out,
    plain,
    print_json,
    reporting_errors,
)
from perijove.domain.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

config_app = typer.Typer(help="Check, show and sample the configuration.", no_args_is_help=True)


@config_app.command()
@reporting_errors
def check(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Say all faults of the configuration at once; exit code 2 if there are any."""
    try:
        _check(config)
    except ConfigError as error:
        if not as_json:
            raise
        print_json({"ok": False, "faults": error.params.get("faults", [str(error)])})
        raise SystemExit(WRONG) from None
    if as_json:
        print_json({"ok": True, "faults": []})
    else:
        out.print("[green]ok[/]")


def _check(config: "Path | None") -> None:
    from perijove.services import profiles, roles
    from perijove.settings import load

    settings = load(config, os.environ)
    roles.check(settings.hub)
    profiles.check(settings.profiles, settings.policies, spawners=list(settings.spawners))


@config_app.command()
@reporting_errors
def show(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Print the effective values, secrets masked, and where each came from."""
    from perijove.settings import load, origin_of, origins

    settings = load(config, os.environ)
    found = origins(config, os.environ)
    if as_json:
        sources = {name: origin_of(name, found) for name, _value in _leaves(_shown(settings))}
        print_json({"values": _shown(settings), "origins": sources})
        return
    for name, value in _leaves(_shown(settings)):
        text = "(not set)" if value is None else json.dumps(value, ensure_ascii=False)
        source = plain(origin_of(name, found))
        out.print(f"{plain(name)} = {plain(text)}  [dim]# {source}[/]", soft_wrap=True)


@config_app.command()
@reporting_errors
def sample() -> None:
    """Print a commented file with every key and its default."""
    from perijove.cli.sample import sample_text

    typer.echo(sample_text(), nl=False)


_MASK = "●●●"
_SECRET = re.compile(r"pass(word|wd|phrase)|secret|token|credential|api_?key", re.IGNORECASE)


def _shown(value: Any, name: str = "") -> Any:
    """Return a value as JSON, without secrets: known ones, and what is called like one."""
    from pydantic import SecretStr

    from perijove.kit.config import Section

    if isinstance(value, Section):
        return {key: _shown(getattr(value, key), key) for key in type(value).model_fields}
    if isinstance(value, Mapping):
        return {key: _shown(inner, key) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(inner) for inner in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    is_secret = isinstance(value, SecretStr) or _SECRET.search(name) is not None
    text = value.get_secret_value() if isinstance(value, SecretStr) else _text(value)
    return _MASK if is_secret and text else text


def _text(value: object) -> str:
    from datetime import timedelta

    from perijove.kit.config import write_seconds

    return write_seconds(value) if isinstance(value, timedelta) else str(value)


def _leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value with its dotted name; lists of plain values are one."""
    if isinstance(tree, dict) and tree:
        inner = tree.items()
    elif isinstance(tree, list) and any(isinstance(each, dict) for each in tree):
        inner = {str(number): each for number, each in enumerate(tree)}.items()
    else:
        yield name, tree
        return
    for key, value in inner:
        yield from _leaves(value, f"{name}.{key}" if name else key)
