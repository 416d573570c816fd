"""``perijove doctor``: is this cluster ready for people, and if not, what is wrong."""

import os
import pwd
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from perijove.cli.common import (
    FAILED,
    ConfigOption,
    DataDirOption,
    JsonOption,
    err,
    out,
    plain,
    print_json,
    reporting_errors,
    settings_of,
)
from perijove.domain.errors import ConfigError

if TYPE_CHECKING:
    from perijove.settings import Settings
    from perijove.spawners.batch.doctor import Doctor, Finding

_TITLES = {
    "scheduler": "the scheduler answers",
    "launcher": "the hub can act as the person",
    "accounting": "accounts and partitions are known",
    "dry-run": "the scheduler would take a small job",
    "submission": "it takes a small job",
    "start": "the job starts",
    "python": "Python on the node",
    "job": "the job knows itself",
    "home": "the home is there and has room",
    "command": "the server's program is there",
    "version": "the server is new enough",
    "node-to-hub": "the node reaches the hub",
    "clock": "the clocks of hub and node agree",
    "tunnel": "the node reaches the tunnels",
    "port": "the node opens a port",
    "hub-to-node": "the hub reaches the node",
    "stop": "the job can be cancelled",
    "record": "accounting tells how it ended",
}
_ADVICE = {
    "account-unknown": "name somebody with a system account: --user NAME",
    "account-refused": "name an ordinary person: --user NAME; system accounts are not served",
    "launcher": "run deploy/launcher/install, and add the person to its group",
    "accounting": "slurmdbd may be away; people then see no accounts",
    "command": "set software (modules, prefix or container) in the spawner's section",
    "version": "install jupyterhub 4 or newer in the environment on the nodes",
    "home-missing": "the job's directory must be on a file system that the nodes share",
    "node-to-hub": "set api_bind in [hub] to an address that the nodes reach, and let them pass",
    "tunnel": "let the nodes reach the url of [tunnel], and see that perijove tunnel runs",
    "port": "look at ports and networks in the spawner's section",
    "hub-to-node": "open the ports from hub and proxy to the nodes, or use a tunnel",
    "clock": "synchronise the clocks of hub and nodes",
    "start": "where jobs of one core wait longer, say --wait SECONDS",
    "record": "without accounting people read less of how their servers ended: see that the hub's"
    " account can read it (sacct, or qacct and the cell's accounting file)",
}


@reporting_errors
def doctor(
    spawner: Annotated[str, typer.Option(help="Which section \\[spawners.NAME].", metavar="NAME")],
    user: Annotated[
        str, typer.Option(help="As whom; default: who runs this.", metavar="NAME")
    ] = "",
    wait: Annotated[
        float, typer.Option(help="How long its job may wait in the queue.", metavar="SECONDS")
    ] = 120,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Submit a tiny job, go the whole way of a start with it, and name what is wrong."""
    settings = settings_of(config, data_dir=data_dir)
    person = user or os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name
    findings = anyio.run(_examine, settings, spawner, person, wait, not as_json)
    if as_json:
        print_json([asdict(each) for each in findings])
    wrong = [each for each in findings if not each.ok]
    if not as_json:
        _conclude(spawner, wrong)
    raise SystemExit(FAILED if wrong else 0)


async def _examine(
    settings: "Settings", spawner: str, person: str, wait: float, shown: bool
) -> "list[Finding]":
    from perijove.bootstrap import for_examination

    _check_kind(settings, spawner)
    findings = []
    async with for_examination(settings, os.environ, spawner) as (found, api_url):
        async for finding in _doctor(found, person, api_url, wait).examine():
            findings.append(finding)
            if shown:
                _show(finding)
    return findings


def _check_kind(settings: "Settings", spawner: str) -> None:
    """Refuse what has no queue and no nodes, before anything is opened for it."""
    from perijove.spawners.batch.sections import BatchSettings

    section = settings.spawners.get(spawner)
    if section is not None and not isinstance(section, BatchSettings):
        raise ConfigError(
            f"[spawners.{spawner}] is of kind {section.kind}: only slurm and gridengine"
            " can be examined"
        )


def _doctor(spawner: object, person: str, api_url: str, wait: float) -> "Doctor":
    from perijove.spawners.batch.doctor import Doctor
    from perijove.spawners.batch.spawner import BatchSpawner

    assert isinstance(spawner, BatchSpawner)
    return Doctor(spawner, person, api_url=api_url, queue_seconds=wait)


def _show(finding: "Finding") -> None:
    from perijove.cli.waiting import clean

    mark = "[green]✓[/]" if finding.ok else "[red]✗[/]"
    title = _TITLES.get(finding.check, finding.check)
    out.print(f" {mark} {title}  [dim]{plain(clean(finding.words))}[/]", soft_wrap=True)


def _conclude(spawner: str, wrong: "list[Finding]") -> None:
    if not wrong:
        out.print(f"\n[green]{plain(spawner)} is ready.[/]")
        return
    err.print(f"\n[red]{plain(spawner)} is not ready.[/]")
    for finding in wrong:
        advice = _ADVICE.get(finding.code) or _ADVICE.get(finding.check)
        if advice:
            err.print(f" → {plain(advice)}", soft_wrap=True)
