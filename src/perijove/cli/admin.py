"""``perijove user``, ``token``, ``db``: on the installation's own database, without a hub."""

import sys
from typing import Annotated

import typer

from perijove.cli.common import (
    ConfigOption,
    DataDirOption,
    JsonOption,
    out,
    plain,
    print_json,
    print_rows,
    reporting_errors,
    settings_of,
)

user_app = typer.Typer(help="Add people, list them, and set their passwords.", no_args_is_help=True)
token_app = typer.Typer(help="Make API tokens.", no_args_is_help=True)
db_app = typer.Typer(help="Look after the database.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="The user's name.")]


@user_app.command("add")
@reporting_errors
def add_user(
    name: NameArgument,
    admin: Annotated[bool, typer.Option("--admin", help="Make an administrator.")] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a user, or make an existing one an administrator."""
    from perijove.cli import accounts

    person, is_new = accounts.add_user(settings_of(config, data_dir=data_dir), name, admin=admin)
    if as_json:
        print_json({"name": person.name, "admin": person.admin, "added": is_new})
        return
    kind = "administrator" if person.admin else "user"
    out.print(f"{kind} {plain(person.name)} {'added' if is_new else 'was there already'}")
    out.print(f"to set a password: perijove user password {plain(person.name)}")


@user_app.command("list")
@reporting_errors
def list_users(
    config: ConfigOption = None, data_dir: DataDirOption = None, as_json: JsonOption = False
) -> None:
    """List all users; times are local ones, in JSON they are UTC."""
    from dataclasses import asdict

    from perijove.cli import accounts
    from perijove.kit.clock import isoformat

    found = accounts.list_users(settings_of(config, data_dir=data_dir))
    if as_json:
        moments = ("created_at", "last_activity")
        rows = [asdict(account) for account in found]
        print_json(
            [
                row | {key: isoformat(row[key]) if row[key] else None for key in moments}
                for row in rows
            ]
        )
        return
    print_rows(
        [
            {
                "name": account.name,
                "role": "blocked" if account.blocked else "admin" if account.admin else "user",
                "created": f"{account.created_at.astimezone():%Y-%m-%d %H:%M}",
                "last_active": f"{account.last_activity.astimezone():%Y-%m-%d %H:%M}"
                if account.last_activity
                else "never",
            }
            for account in found
        ]
    )


@user_app.command("password")
@reporting_errors
def set_password(
    name: NameArgument, config: ConfigOption = None, data_dir: DataDirOption = None
) -> None:
    """Set a user's password; asked for twice on a terminal, else read from standard input."""
    from perijove.cli import accounts

    settings = settings_of(config, data_dir=data_dir)
    person = accounts.get_user(settings, name)
    if sys.stdin.isatty():
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.readline().rstrip("\n")
    accounts.set_password(settings, person.name, password)
    out.print(f"the password of {plain(person.name)} is set")


@user_app.command("block")
@reporting_errors
def block_user(
    name: NameArgument,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep a user out: sessions and servers end, tokens open nothing."""
    from perijove.cli import accounts

    ending = accounts.block_user(settings_of(config, data_dir=data_dir), name)
    if as_json:
        print_json({"name": name, "blocked": True, "servers_ending": ending})
    else:
        out.print(f"{plain(name)} is blocked; servers being ended: {ending}")


@user_app.command("unblock")
@reporting_errors
def unblock_user(
    name: NameArgument,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a blocked user in again."""
    from perijove.cli import accounts

    accounts.unblock_user(settings_of(config, data_dir=data_dir), name)
    if as_json:
        print_json({"name": name, "blocked": False})
    else:
        out.print(f"{plain(name)} may sign in again")


@token_app.command("new")
@reporting_errors
def new_token(
    name: NameArgument,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="What it may do; may be given several times. Default: all its user may."),
    ] = None,
    days: Annotated[
        int | None, typer.Option(min=1, max=36500, help="Days until it expires. Default: never.")
    ] = None,
    note: Annotated[
        str, typer.Option(help="What it is for; shown in the list of tokens.")
    ] = "Requested on the command line",
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an API token for a user and print it, once: only its hash is kept."""
    from perijove.cli import accounts
    from perijove.services.tokens import NewToken

    seconds = None if days is None else days * 86400
    wanted = NewToken(note=note, scopes=scope or ["inherit"], expires_in=seconds)
    settings = settings_of(config, data_dir=data_dir)
    token_id, value = accounts.new_token(settings, name, wanted)
    if as_json:
        print_json({"id": f"a{token_id}", "token": value, "scopes": wanted.scopes})
    else:
        typer.echo(value)


@db_app.command("upgrade")
@reporting_errors
def upgrade_database(
    config: ConfigOption = None, data_dir: DataDirOption = None, as_json: JsonOption = False
) -> None:
    """Bring the tables to this program's version; an SQLite file is copied first."""
    from perijove.cli import accounts

    before, after = accounts.upgrade(settings_of(config, data_dir=data_dir))
    if as_json:
        print_json({"before": before, "after": after})
    elif before == after:
        out.print(f"already up to date: {after}")
    else:
        out.print(f"upgraded: {before or 'empty'} → {after}")
