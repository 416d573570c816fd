"""``perijove user``, ``token``, ``db``: on the installation's own database, without a hub."""

import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated, Any, TypeVar

import anyio
import typer
from sqlalchemy import Connection, insert, select

from perijove.cli.common import (
    ConfigOption,
    DataDirOption,
    JsonOption,
    out,
    print_json,
    print_rows,
    reporting_errors,
    settings_of,
)
from perijove.db import schema
from perijove.db.core import Database, open_database
from perijove.db.tables import tokens, users
from perijove.domain.errors import Invalid
from perijove.kit.clock import SystemClock, isoformat
from perijove.kit.ids import hash_secret, new_secret
from perijove.services.people import clean_user_name, ensure_user, get_person
from perijove.settings import Settings

T = TypeVar("T")

user_app = typer.Typer(help="People.", no_args_is_help=True)
token_app = typer.Typer(help="API tokens.", no_args_is_help=True)
db_app = typer.Typer(help="The database.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="The user's name.")]


def _with_database(settings: Settings, work: Callable[[Database], Awaitable[T]]) -> T:
    """Run `work` on the installation's database; a hub may be running."""
    from perijove.bootstrap import prepare

    places = prepare(settings)
    schema.ensure(places.database_url)

    async def opened() -> T:
        async with open_database(places.database_url) as database:
            return await work(database)

    return anyio.run(opened)


@user_app.command("add")
@reporting_errors
def add_user(
    name: NameArgument,
    admin: Annotated[bool, typer.Option(help="Make an administrator.")] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a user, or make an existing one an administrator."""
    clean = clean_user_name(name)

    async def work(database: Database) -> None:
        def unit(connection: Connection) -> None:
            ensure_user(connection, clean, now=SystemClock().now(), admin=admin)

        await database.write(unit)

    _with_database(settings_of(config, data_dir=data_dir), work)
    if as_json:
        print_json({"name": clean, "admin": admin})
    else:
        out.print(f"user {clean} is there; set a password with: perijove user password {clean}")


@user_app.command("list")
@reporting_errors
def list_users(
    config: ConfigOption = None, data_dir: DataDirOption = None, as_json: JsonOption = False
) -> None:
    """List all users."""

    def unit(connection: Connection) -> list[Any]:
        rows = connection.execute(
            select(
                users.c.name,
                users.c.admin,
                users.c.blocked,
                users.c.created_at,
                users.c.last_activity,
            ).order_by(users.c.name)
        )
        return [
            {
                **row,
                "created_at": isoformat(row["created_at"]),
                "last_activity": isoformat(row["last_activity"]) if row["last_activity"] else None,
            }
            for row in rows.mappings()
        ]

    async def work(database: Database) -> list[Any]:
        return await database.read_long(unit)

    print_rows(_with_database(settings_of(config, data_dir=data_dir), work), as_json=as_json)


@user_app.command("password")
@reporting_errors
def set_password(
    name: NameArgument, config: ConfigOption = None, data_dir: DataDirOption = None
) -> None:
    """Set a user's password; asked for twice on a terminal, else read from standard input."""
    if sys.stdin.isatty():
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.readline().rstrip("\n")

    from perijove.bootstrap import store_password

    settings = settings_of(config, data_dir=data_dir)

    async def work(database: Database) -> None:
        await store_password(settings, database, clean_user_name(name), password)

    _with_database(settings, work)
    out.print(f"the password of {clean_user_name(name)} is set")


@token_app.command("new")
@reporting_errors
def new_token(
    name: NameArgument,
    scope: Annotated[list[str] | None, typer.Option(help="May be given several times.")] = None,
    days: Annotated[int | None, typer.Option(help="Days until it expires.")] = None,
    note: str = "Requested on the command line",
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an API token for a user and print it, once."""
    from perijove.domain.scopes import parse

    scopes = scope or ["inherit"]
    for text in scopes:
        parse(text)
    if days is not None and not 0 < days <= 36500:
        raise Invalid("--days must be from 1 to 36500", field="days")
    value = new_secret()
    now = SystemClock().now()

    def unit(connection: Connection) -> int:
        person = get_person(connection, clean_user_name(name))
        made = connection.execute(
            insert(tokens)
            .values(
                hash=hash_secret(value),
                scheme="random",
                user_id=person.id,
                scopes=scopes,
                note=note,
                created_at=now,
                expires_at=now + timedelta(days=days) if days else None,
            )
            .returning(tokens.c.id)
        )
        return int(made.scalar_one())

    async def work(database: Database) -> int:
        return await database.write(unit)

    token_id = _with_database(settings_of(config, data_dir=data_dir), work)
    if as_json:
        print_json({"id": f"a{token_id}", "token": value, "scopes": scopes})
    else:
        typer.echo(value)


@db_app.command("upgrade")
@reporting_errors
def upgrade_database(config: ConfigOption = None, data_dir: DataDirOption = None) -> None:
    """Bring the tables to this program's version; an SQLite file is copied first."""
    from perijove.bootstrap import prepare

    before, after = schema.upgrade(prepare(settings_of(config, data_dir=data_dir)).database_url)
    out.print("already up to date" if before == after else f"upgraded {before} → {after}")
