"""The command: read, make, write, and say what did not go over."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from perijove.cli.common import FAILED, err, plain, reporting_errors, why_unreadable

FileArgument = Annotated[
    str,
    typer.Argument(
        help="jupyterhub_config.py, the values of a Helm chart, or a list; - for standard input.",
        metavar="FILE",
    ),
]
FormatOption = Annotated[
    str | None,
    typer.Option("--format", help="kubespawner or dockerspawner; otherwise what is found."),
]
SpawnerOption = Annotated[
    str | None, typer.Option(help="The spawner that the profiles name.", metavar="NAME")
]


@reporting_errors
def import_profiles(
    file: FileArgument, format: FormatOption = None, spawner: SpawnerOption = None
) -> None:
    """Write profiles of KubeSpawner or images of DockerSpawner as TOML of ours; runs no code.

    What did not go over as it was is said on standard error, one by one; the exit code is 0 only
    if everything did.
    """
    from perijove.cli.importing import dockerspawner
    from perijove.cli.importing.kubespawner import Importer
    from perijove.cli.importing.report import Import
    from perijove.cli.importing.sources import DOCKERSPAWNER, KUBESPAWNER, read
    from perijove.cli.importing.toml import write
    from perijove.domain.errors import ConfigError
    from perijove.settings import plugin

    if format not in (None, KUBESPAWNER, DOCKERSPAWNER):
        raise ConfigError(f"--format is {KUBESPAWNER} or {DOCKERSPAWNER}, not {format!r}")
    result = Import()
    for found in read(_text(file), file, format):
        if found.format == KUBESPAWNER:
            overrides = getattr(plugin("spawners", "kubernetes"), "Overrides", None)
            importer = Importer(result, spawner=spawner, overrides=overrides)
            importer.add(found.value, found.where, defaults=found.defaults)
        else:
            dockerspawner.add(result, found.value, found.where, spawner=spawner)
    sys.stdout.write(write(result.images, result.profiles))
    for each in result.differences:
        err.print(plain(each), soft_wrap=True)
    if result.differences:
        raise SystemExit(FAILED)


def _text(file: str) -> str:
    from perijove.domain.errors import ConfigError

    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(why_unreadable(file, error)) from None
