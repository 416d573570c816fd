"""
The composition root: chooses the classes, opens the resources, starts the loops.

`running` is entered by the command line and by tests alike; only a test passes another clock
or another way to open the database. What is opened is closed in reverse order.
"""

import ipaddress
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import structlog
from anyio.abc import TaskGroup
from sqlalchemy import Connection

from perijove.auth.contract import Authenticator
from perijove.auth.native import NativeAuthenticator
from perijove.db import schema
from perijove.db.core import Database, Work, open_database
from perijove.db.installation import beat, ensure_installation
from perijove.db.launches import release_all
from perijove.db.leases import drop_all
from perijove.db.routes import put_route
from perijove.domain.errors import ConfigError, SpawnerTransient
from perijove.kit.clock import Clock, SystemClock, monotonic
from perijove.kit.ids import new_installation_id, platform_name
from perijove.kit.keyring import KeyringError, load_keyring
from perijove.kit.places import (
    NETWORK_FILE_SYSTEMS,
    PlaceError,
    ensure_private,
    file_system_of,
    locked,
    socket_directory,
)
from perijove.proxy.settings import ControlAddress
from perijove.reconcile.loops import start_loops
from perijove.reconcile.probe import Prober
from perijove.services import people, profiles, roles
from perijove.services.hub import Hub, PlacedSpawner
from perijove.services.signin import ensure_first_admin, replace_password
from perijove.settings import Settings, plugin
from perijove.spawners.contract import Spawner, SpawnerSettings, Surroundings, Tunnels, Warns
from perijove.tunnel.settings import TunnelOptions
from perijove.web.app import create_app
from perijove.web.asgi import App
from perijove.web.control import behind_secret, create_control_app
from perijove.web.listen import open_tcp, open_unix, serve, split_address
from perijove.web.pages.look import look_of

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where this installation's files and sockets are."""

    data_dir: Path
    sockets: Path
    tunnels: Path
    database_url: str

    @property
    def hub_socket(self) -> Path:
        """Where the proxy sends people's requests for the hub."""
        return self.sockets / "hub.sock"

    @property
    def control_socket(self) -> Path:
        """Where the proxy asks for routes."""
        return self.sockets / "control.sock"

    @property
    def snapshot(self) -> Path:
        """Where the proxy keeps its last route table."""
        return self.data_dir / "routes.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A hub that serves."""

    hub: Hub
    places: Places
    app: App
    signin_link: str | None
    """Path of a one-time link, as long as nobody has ever signed in."""


def prepare(settings: Settings) -> Places:
    """Make the data directory and say where everything is; raises `ConfigError`."""
    try:
        data_dir = ensure_private(settings.hub.data_dir)
        sockets = socket_directory(data_dir)
        longest = f"{platform_name('x' * 8)}.sock"
        tunnels = socket_directory(data_dir, "tunnels", longest=longest)
    except PlaceError as error:
        raise ConfigError(str(error)) from None
    url = settings.hub.database.get_secret_value() or f"sqlite:///{data_dir / 'perijove.sqlite'}"
    if url.startswith("postgresql") and not all(map(find_spec, ("asyncpg", "psycopg"))):
        raise ConfigError(
            "hub.database: PostgreSQL needs two libraries more: pip install 'perijove[postgres]'"
        )
    kind = file_system_of(data_dir)
    if url.startswith("sqlite") and kind in NETWORK_FILE_SYSTEMS:
        raise ConfigError(
            f"hub.data_dir: {data_dir} is on {kind}, where SQLite loses data: "
            "use a local disk, or PostgreSQL (hub.database)"
        )
    return Places(data_dir=data_dir, sockets=sockets, tunnels=tunnels, database_url=url)


@asynccontextmanager
async def running(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    clock: Clock | None = None,
    open_state: Callable[[str], Database] = open_database,
) -> AsyncIterator[Running]:
    """Open everything, serve, and run the loops, until the block ends; raises `ConfigError`."""
    clock, began = clock or SystemClock(), monotonic()
    places = prepare(settings)
    async with AsyncExitStack() as stack:
        try:
            if places.database_url.startswith("sqlite"):
                stack.enter_context(locked(places.data_dir, "hub"))
            keyring = load_keyring(places.data_dir / "keyring", environ)
        except (PlaceError, KeyringError) as error:
            raise ConfigError(str(error)) from None
        await anyio.to_thread.run_sync(schema.ensure, places.database_url)
        database = await stack.enter_async_context(open_state(places.database_url))
        installation = await database.write(_first_rows(settings, clock))
        api_listener = stack.enter_context(_api_listener(settings, places))
        api_host = api_listener.getsockname()[0]
        spawners = await _enter_spawners(stack, settings, places, installation, api_host=api_host)
        hub = Hub(
            database=database,
            clock=clock,
            keyring=keyring,
            installation=installation,
            settings=settings.hub,
            lifecycle=settings.lifecycle,
            notify=settings.notify,
            api_url=_api_url(settings, *api_listener.getsockname()[:2]),
            spawners=spawners,
            authenticators=_authenticators(settings, database, clock),
        )
        _check_addresses(settings, hub)
        await database.write(_fixed_routes(settings, places))
        link = await ensure_first_admin(hub, environ)
        app = create_app(hub)
        control = create_control_app(hub, app)
        listeners = [api_listener, stack.enter_context(open_unix(places.hub_socket))]
        control_listener = stack.enter_context(open_unix(places.control_socket))
        beyond = _proxy_listener(stack, settings)
        prober = await stack.enter_async_context(Prober())
        tasks = await stack.enter_async_context(anyio.create_task_group())
        await _start(tasks, app, listeners)
        await _start(tasks, control, [control_listener])
        if beyond is not None:
            secret = settings.hub.proxy_secret.get_secret_value()
            asked = create_control_app(hub, app, secret=secret)
            await _start(tasks, behind_secret(asked, app, secret=secret), [beyond])
        start_loops(tasks, hub, prober, database_url=places.database_url)
        hub.metrics.started(monotonic() - began)
        tasks.start_soon(anyio.to_thread.run_sync, look_of(hub).warm)
        try:
            yield Running(hub=hub, places=places, app=app, signin_link=link)
        finally:
            hub.stopping.set()
            hub.events.strike()
            hub.routes.strike()
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def for_examination(
    settings: Settings, environ: Mapping[str, str], name: str
) -> AsyncIterator[tuple[Spawner, str]]:
    """
    Open one spawner beside a hub that may be running, and say where servers reach that hub.

    Its jobs carry another installation's name, so the hub does not take them for its own.
    """
    if name not in settings.spawners:
        known = ", ".join(settings.spawners)
        raise ConfigError(f"there is no section [spawners.{name}]; there are: {known}")
    places = prepare(settings)
    async with AsyncExitStack() as stack:
        section: SpawnerSettings = settings.spawners[name]
        one = settings.model_copy(update={"spawners": {name: section.for_examination()}})
        scratch = stack.enter_context(TemporaryDirectory(prefix="perijove-doctor-"))
        beside = replace(places, data_dir=Path(scratch))
        entered = await _enter_spawners(stack, one, beside, new_installation_id())
        kept = places.data_dir / "api_bind"
        bind = settings.hub.api_bind or (kept.read_text().strip() if kept.exists() else "")
        if not bind:
            raise ConfigError(
                f"no hub has run in {places.data_dir} yet: start it, or set hub.api_bind, so that "
                "there is something for a node to reach"
            )
        yield entered[name].spawner, _api_url(settings, *split_address(bind))


# --- the parts --------------------------------------------------------------------------------


def _first_rows(settings: Settings, clock: Clock) -> Work[str]:
    """Return the unit that brings the rows in line with the configuration, at every start."""

    def unit(connection: Connection) -> str:
        now = clock.now()
        name = ensure_installation(connection, now=now)
        beat(connection, now=now)
        if connection.dialect.name == "sqlite":
            # Those of the hub before this one: there is no other.
            release_all(connection)
            drop_all(connection)
        roles.load(connection, settings.hub, now=now)
        profiles.load_offers(
            connection,
            profiles=settings.profiles,
            policies=settings.policies,
            spawners=list(settings.spawners),
            images=settings.images,
            now=now,
        )
        return name

    return unit


def _fixed_routes(settings: Settings, places: Places) -> Work[None]:
    """Return the unit that puts the routes that lead to no server."""

    def unit(connection: Connection) -> None:
        target = settings.hub.proxy_url or f"unix:{places.hub_socket}"
        put_route(connection, prefix="/", target=target)
        path = urlsplit(settings.tunnel.url).path.rstrip("/")
        if path and not settings.tunnel.bind:
            front = tunnel_options(settings, places).front
            put_route(connection, prefix=f"{path}/", target=f"unix:{front}")

    return unit


def control_address(settings: Settings, places: Places) -> ControlAddress:
    """Return where the programs beside the hub ask it, and prove themselves with."""
    if settings.hub.proxy_url:
        secret = settings.hub.proxy_secret.get_secret_value()
        return ControlAddress(settings.hub.proxy_url, secret)
    return ControlAddress(f"unix:{places.control_socket}")


def tunnel_options(settings: Settings, places: Places) -> TunnelOptions:
    """Return what the program of the tunnels is given."""
    return TunnelOptions(control_address(settings, places), places.tunnels, settings.tunnel)


def _tunnels(settings: Settings, places: Places) -> Tunnels | None:
    """Return what spawners know of the tunnels; raises `ConfigError`."""
    section = settings.tunnel
    if not section.url:
        return None
    try:
        ca = section.tls_ca.read_text() if section.tls_ca is not None else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"tunnel.tls_ca: {error}") from None
    return Tunnels(url=section.url, sockets=places.tunnels, ca=ca)


def _api_listener(settings: Settings, places: Places) -> socket.socket:
    """
    Return the socket on which servers reach the hub.

    Without `api_bind` a port is chosen once and kept, so that servers that outlive a hub find
    the next one.
    """
    if settings.hub.api_bind:
        return open_tcp(settings.hub.api_bind)
    kept = places.data_dir / "api_bind"
    if kept.exists():
        address = kept.read_text().strip()
        try:
            return open_tcp(address)
        except ConfigError as error:
            raise ConfigError(
                f"{error}; servers that run know this address from {kept}: free it, or set "
                "hub.api_bind to another and restart the servers"
            ) from None
    listener = open_tcp("127.0.0.1:0")
    kept.write_text(f"127.0.0.1:{listener.getsockname()[1]}\n")
    return listener


def _proxy_listener(stack: AsyncExitStack, settings: Settings) -> socket.socket | None:
    """Return the socket for proxies on other machines; None where there are none."""
    if not settings.hub.proxy_bind:
        return None
    return stack.enter_context(open_tcp(settings.hub.proxy_bind))


def _api_url(settings: Settings, host: str, port: int) -> str:
    if ipaddress.ip_address(host).is_unspecified:
        host = socket.getfqdn()
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{port}{settings.hub.base_path}hub/api"


async def _enter_spawners(
    stack: AsyncExitStack,
    settings: Settings,
    places: Places,
    installation: str,
    *,
    api_host: str = "",
) -> Mapping[str, PlacedSpawner]:
    entered = {}
    tunnels = _tunnels(settings, places)
    vouched = {plugin("auth", name).names_system_accounts for name in settings.auth}
    for name, section in settings.spawners.items():
        data_dir = ensure_private(places.data_dir / "spawners" / name)
        surroundings = Surroundings(
            name=name,
            installation=installation,
            data_dir=data_dir,
            system_accounts=vouched == {True},
            tunnels=tunnels,
            api_is_local=bool(api_host) and ipaddress.ip_address(api_host).is_loopback,
        )
        spawner = plugin("spawners", section.kind)(section, surroundings)
        try:
            await stack.enter_async_context(spawner)
        except SpawnerTransient as error:
            log.warning("platform_away", spawner=name, error=str(error))
        entered[name] = PlacedSpawner(spawner=spawner, settings=section)
    return entered


def _authenticators(
    settings: Settings, database: Database, clock: Clock
) -> Mapping[str, Authenticator]:
    passwords = people.StoredPasswords(database, clock)
    return {
        name: plugin("auth", name)(section, name=name, passwords=passwords)
        for name, section in settings.auth.items()
    }


def is_public(address: str) -> bool:
    """Tell whether a ``host:port`` can be reached from other machines."""
    host = split_address(address)[0]
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


def _names_a_host(url: str) -> bool:
    """Tell whether a public URL leads to other machines than this one."""
    host = urlsplit(url).netloc.rpartition("@")[2]
    return bool(host) and is_public(host if ":" in host else f"{host}:80")


def _check_addresses(settings: Settings, hub: Hub) -> None:
    """Let every part refuse an address that is too public for it, and say what it must."""
    public = is_public(settings.hub.bind) or _names_a_host(settings.hub.url)
    for authenticator in hub.authenticators.values():
        authenticator.check_address(public=public)
    for name, code in warnings(hub, public=public):
        log.warning("spawner_warns", spawner=name, warning=code)


def warnings(hub: Hub, *, public: bool) -> Sequence[tuple[str, str]]:
    """Return (spawner, message code) for all that an administrator must know."""
    return [
        (name, code)
        for name, placed in hub.spawners.items()
        if isinstance(placed.spawner, Warns)
        for code in placed.spawner.warnings(public=public)
    ]


async def _start(tasks: TaskGroup, app: App, listeners: list[socket.socket]) -> None:
    started = anyio.Event()

    async def run() -> None:
        await serve(app, listeners, started=started.set)

    tasks.start_soon(run)
    with anyio.fail_after(10):
        await started.wait()


async def store_password(settings: Settings, database: Database, name: str, password: str) -> None:
    """Set the password of an existing user, by the rules of ``[auth.native]``."""
    clock = SystemClock()
    native = _authenticators(settings, database, clock).get("native")
    if not isinstance(native, NativeAuthenticator):
        raise ConfigError("there are no passwords without the section [auth.native]")
    native.check_new_password(password)
    hash_ = await native.hash(password)

    def unit(connection: Connection) -> None:
        person = people.get_person(connection, name)
        replace_password(connection, person, hash_, actor="command line", now=clock.now())

    await database.write(unit)
