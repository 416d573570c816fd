"""All commands."""

import functools
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perijove.cli.admin import db_app, token_app, user_app
from perijove.cli.client import PANEL, add_to
from perijove.cli.common import (
    WRONG,
    BindOption,
    ConfigOption,
    DataDirOption,
    err,
    out,
    plain,
    reporting_errors,
    settings_of,
)
from perijove.cli.config import config_app
from perijove.cli.doctor import doctor
from perijove.cli.environments import environments_app
from perijove.cli.importing.command import import_profiles
from perijove.domain.errors import ConfigError

if TYPE_CHECKING:
    from perijove.bootstrap import Running
    from perijove.settings import Settings

app = typer.Typer(
    name="perijove",
    help="A multi-user notebook hub.",
    epilog="Exit codes: 0 when it worked, 1 when it failed, 2 for wrong usage or configuration;"
    " those for your servers have more, see their --help.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(config_app, name="config")
app.add_typer(user_app, name="user")
app.add_typer(token_app, name="token")
app.add_typer(db_app, name="db")
add_to(app)
app.add_typer(environments_app, name="environments", rich_help_panel=PANEL)
app.command()(doctor)
app.command()(import_profiles)

ParentOption = Annotated[int | None, typer.Option(hidden=True, help="End with this process.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"perijove {version('perijove')}")
        raise typer.Exit


@app.callback()
def every_command(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Say which version this is."
        ),
    ] = False,
) -> None:
    """Take what stands before the command."""


@app.command()
@reporting_errors
def run(
    config: ConfigOption = None, bind: BindOption = None, data_dir: DataDirOption = None
) -> None:
    """Run hub and proxy together, and start either again should it die."""
    from perijove.bootstrap import prepare
    from perijove.kit.processes import Supervisor
    from perijove.web.listen import open_tcp

    settings = settings_of(config, bind, data_dir)
    prepare(settings)
    open_tcp(settings.hub.bind).close()  # an address in use is better said now
    arguments = _arguments(config, bind, data_dir)
    programs = ("hub", "proxy", "tunnel") if settings.tunnel.url else ("hub", "proxy")
    supervisor = Supervisor(
        {name: _command(name, arguments) for name in programs},
        final={0, WRONG},
        report=_say_restarted,
    )
    raise SystemExit(supervisor.run())


@app.command()
@reporting_errors
def hub(
    config: ConfigOption = None,
    bind: BindOption = None,
    data_dir: DataDirOption = None,
    parent: ParentOption = None,
) -> None:
    """Run the hub alone; people reach it through a proxy."""
    import anyio

    settings = _begin("hub", config, bind, data_dir, parent)
    anyio.run(functools.partial(_serve_hub, settings), backend_options={"use_uvloop": True})


@app.command()
@reporting_errors
def proxy(
    config: ConfigOption = None,
    bind: BindOption = None,
    data_dir: DataDirOption = None,
    parent: ParentOption = None,
) -> None:
    """Run the proxy alone; it goes on routing while hubs restart."""
    from perijove.bootstrap import control_address, prepare
    from perijove.kit.logs import is_console
    from perijove.proxy import EXIT_ADDRESS, ProxyOptions
    from perijove.proxy import run as run_proxy

    settings = _begin("proxy", config, bind, data_dir, parent)
    places = prepare(settings)
    section = settings.proxy
    if is_console(settings.hub.log_format):  # a person reads along: the hub's own lines are enough
        section = section.model_copy(update={"access_log": False})
    options = ProxyOptions(
        bind=(settings.hub.bind,),
        control=control_address(settings, places),
        snapshot=places.snapshot,
        settings=section,
        die_with_parent=parent is not None,
    )
    try:
        code = run_proxy(options)
    except (ValueError, OSError) as error:
        raise ConfigError(f"proxy: {error}") from None
    if code == EXIT_ADDRESS:
        raise ConfigError(f"the proxy cannot listen at {settings.hub.bind}")
    raise SystemExit(code)


@app.command()
@reporting_errors
def tunnel(
    config: ConfigOption = None,
    bind: BindOption = None,
    data_dir: DataDirOption = None,
    parent: ParentOption = None,
) -> None:
    """Run the tunnels alone; jobs stay connected while hubs restart."""
    from perijove.bootstrap import prepare, tunnel_options
    from perijove.tunnel import run as run_tunnels

    settings = _begin("tunnel", config, bind, data_dir, parent)
    if not settings.tunnel.url:
        raise ConfigError("there are no tunnels without [tunnel] url")
    try:
        code = run_tunnels(tunnel_options(settings, prepare(settings)))
    except (ValueError, OSError) as error:
        raise ConfigError(f"tunnel: {error}") from None
    raise SystemExit(code)


def _begin(
    program: str,
    config: Path | None,
    bind: str | None,
    data_dir: Path | None,
    parent: int | None,
) -> "Settings":
    """Tie a program to who started it, and return the configuration with its logs set up."""
    from perijove.kit.logs import configure
    from perijove.kit.processes import die_with_parent

    if parent is not None:
        die_with_parent(parent)
    settings = settings_of(config, bind, data_dir)
    configure(style=settings.hub.log_format, level=settings.hub.log_level, program=program)
    return settings


async def _serve_hub(settings: "Settings") -> None:
    import anyio

    from perijove.bootstrap import running
    from perijove.db.core import bound
    from perijove.db.routes import live_workers
    from perijove.kit.loops import until

    async def greet(hub: "Running") -> None:
        async def is_reachable() -> bool:
            now = hub.hub.clock.now()
            return bool(await hub.hub.database.read(bound(live_workers, now=now)))

        await until(is_reachable, seconds=5)
        _greet(settings, hub)

    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with running(settings, os.environ) as hub, anyio.create_task_group() as tasks:
            tasks.start_soon(greet, hub)
            async for _number in signals:
                tasks.cancel_scope.cancel()
                break


def _greet(settings: "Settings", running: "Running") -> None:
    """Say where the hub is, and the first time how to get in."""
    from perijove.bootstrap import warnings

    base = (settings.hub.url or f"http://{settings.hub.bind}{settings.hub.base_path}").rstrip("/")
    origin = base.removesuffix(settings.hub.base_path.rstrip("/"))
    out.print(f"\n  [bold]{plain(settings.hub.title)}[/] is at [link={base}/]{base}/[/link]")
    if running.signin_link:
        out.print(
            f"  Sign in as [bold]{running.hub.settings.admins[0]}[/] with this link,"
            " once and within 15 minutes:\n"
        )
        out.print(f"      {origin}{running.signin_link}\n", soft_wrap=True)
    for _spawner, code in warnings(running.hub, public=False):
        if code == "local-shared-account":
            out.print(
                "  Note: all servers run as this account; people who sign in must trust"
                " each other.\n",
                style="yellow",
            )


def _arguments(config: Path | None, bind: str | None, data_dir: Path | None) -> Sequence[str]:
    given = {"--config": config, "--bind": bind, "--data-dir": data_dir}
    return [
        part for flag, value in given.items() if value is not None for part in (flag, str(value))
    ]


def _command(name: str, arguments: Sequence[str]) -> Sequence[str]:
    return [sys.executable, "-m", "perijove", name, "--parent", str(os.getpid()), *arguments]


def _say_restarted(name: str, code: int, pause: float) -> None:
    err.print(f"[red]{name}[/] ended with code {code}; starting it again in {pause:g} s")
