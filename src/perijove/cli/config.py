"""``perijove config``: check, show, sample."""

import os
from typing import Any

import typer
from pydantic import SecretStr

from perijove.cli.common import ConfigOption, JsonOption, out, print_json, reporting_errors
from perijove.kit.config import Section
from perijove.settings import Settings, load, origins

config_app = typer.Typer(help="Check, show and sample the configuration.", no_args_is_help=True)


@config_app.command()
@reporting_errors
def check(config: ConfigOption = None) -> None:
    """Say all faults of the configuration at once; exit code 2 if there are any."""
    settings = load(config, os.environ)
    from perijove.services.profiles import check as check_offers

    check_offers(settings.profiles, settings.policies, spawners=list(settings.spawners))
    out.print("[green]ok[/]")


@config_app.command()
@reporting_errors
def show(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Print the effective values, secrets masked, and where each came from."""
    settings = load(config, os.environ)
    found = origins(config, os.environ)
    tree = _plain(settings)
    if as_json:
        print_json({"values": tree, "origins": found})
        return
    for section, values in tree.items():
        for key, value in values.items() if isinstance(values, dict) else [("", values)]:
            name = f"{section}.{key}" if key else section
            source = found.get(name, "default")
            out.print(f"{name} = {value!r}  [dim]# {source}[/]".replace("[link", "\\[link"))


@config_app.command()
@reporting_errors
def sample() -> None:
    """Print a commented file with every key of the hub, the proxy and the life cycle."""
    typer.echo(sample_text())


def sample_text() -> str:
    """Return the sample: each section's keys with their docstrings, commented out."""
    lines = ["# Every key with its default; remove the # of what you change."]
    for name, field in Settings.model_fields.items():
        if not (isinstance(field.annotation, type) and issubclass(field.annotation, Section)):
            continue
        lines += ["", f"# {field.description}", f"[{name}]"]
        for key, inner in field.annotation.model_fields.items():
            description = " ".join((inner.description or "").split())
            lines += [
                "",
                f"# {description}",
                f"# {key} = {_toml(inner.get_default(call_default_factory=True))}",
            ]
    lines += ["", *_EXAMPLES.strip().splitlines()]
    return "\n".join(lines)


_EXAMPLES = """
# Ways to sign in; the first is the main one.
[auth.native]

# Where servers run.
[spawners.local]
kind = "local"

# What people can start.
# [[profiles]]
# name = "small"
# spawner = "local"
# title = { en = "Small", fr = "Petit", es = "Pequeño", pt = "Pequeno" }
# cpu = 1
# memory = "4 GiB"

# Who may have how much; the first match decides each limit.
# [[policies]]
# groups = ["*"]
# named_servers = 5
# idle_timeout = "2 h"
"""


def _toml(value: Any) -> str:
    import json
    from datetime import timedelta
    from pathlib import Path

    match value:
        case None:
            return '""'
        case SecretStr():
            return json.dumps(value.get_secret_value())
        case timedelta():
            return json.dumps(f"{value.total_seconds():g} s")
        case Path():
            return json.dumps(str(value))
        case dict():
            return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + " }"
        case list():
            return "[" + ", ".join(_toml(v) for v in value) + "]"
        case _:
            return json.dumps(value)


def _plain(value: Any) -> Any:
    """Return a value that can be printed, without secrets."""
    match value:
        case Section():
            return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
        case SecretStr():
            return "●●●" if value.get_secret_value() else ""
        case dict():
            return {key: _plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case None | bool() | int() | float():
            return value
        case _:
            return str(value)
