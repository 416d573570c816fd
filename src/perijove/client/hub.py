"""The requests of the client, one method each."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, TypeVar
from urllib.parse import quote

import msgspec

from perijove.client.address import origin_of
from perijove.client.connection import Connection
from perijove.client.errors import NotSignedIn, Refused, Unreachable
from perijove.client.models import Environment, Environments, Event, Form, Launch, User, Wait

T = TypeVar("T")

_NEWEST: Final = 200


class Hub:
    """A hub, as one of its users meets it."""

    def __init__(self, connection: Connection, user: str = "") -> None:
        self._connection = connection
        self._user = user

    @property
    def url(self) -> str:
        """The hub's base URL."""
        return self._connection.url

    @property
    def user(self) -> str:
        """Whose token it is; asked once, if it is not known."""
        self._user = self._user or self.who().name
        return self._user

    def version(self) -> str:
        """Return the version of the protocol: it is a hub. Raises `Unreachable` if not."""
        said = self._decode(self._connection.ask("GET", "/"), dict[str, Any])
        if not isinstance(said.get("version"), str):
            raise Unreachable(f"{self.url} is not the address of a hub")
        return str(said["version"])

    def who(self) -> User:
        """Return whose the token is; raises `NotSignedIn` for one of a program."""
        found = self._decode(self._connection.ask("GET", "/user"), User)
        if found.kind != "user":
            raise NotSignedIn("this token is that of a service and not of a person")
        return found

    def servers(self) -> User:
        """Return the user with all servers, those that are stopped too."""
        path = f"/users/{_quoted(self.user)}?include_stopped_servers=1"
        return self._decode(self._connection.ask("GET", path), User)

    def form(self, server: str = "") -> Form:
        """Return what can be started and with what options."""
        path = f"/perijove/users/{_quoted(self.user)}/options?server={_quoted(server)}"
        return self._decode(self._connection.ask("GET", path), Form)

    def start(self, server: str, profile: str | None, options: Mapping[str, Any]) -> bool:
        """
        Ask for a server, and do not wait for it; False when it runs already.

        Without a profile and options the hub takes those of the last time.
        """
        wish = {**({"profile": profile} if profile else {}), "options": dict(options)}
        body = wish if profile or options else {}
        try:
            self._connection.ask(
                "POST", self._server(server), body, headers={"Prefer": "respond-async"}
            )
        except Refused as error:
            if error.code == "server-active":
                return False
            raise
        return True

    def stop(self, server: str) -> None:
        """Ask for a server to end; nothing if it does not run."""
        self._connection.ask("DELETE", self._server(server))

    def launches(self) -> list[Launch]:
        """Return what the user started, newest first."""
        path = f"/perijove/users/{_quoted(self.user)}/launches?limit={_NEWEST}"
        return self._launches(path)

    def newest(self, server: str) -> Launch | None:
        """Return the newest launch of a server."""
        name = _quoted(server)
        path = f"/perijove/users/{_quoted(self.user)}/launches?limit=1&server={name}"
        return next(iter(self._launches(path)), None)

    def launch(self, launch_id: str) -> Launch:
        """Return a launch as it is now."""
        return self._decode(self.raw_launch(launch_id), Launch)

    def raw_launch(self, launch_id: str) -> bytes:
        """Return a launch as the hub says it: for programs."""
        return self._connection.ask("GET", f"/perijove/launches/{_quoted(launch_id)}")

    def events(self, launch_id: str, after: int) -> list[Event]:
        """Return what happened to a launch since the event of a number."""
        path = f"/perijove/launches/{_quoted(launch_id)}/events?after={after}"
        found = self._decode(self._connection.ask("GET", path), dict[str, list[Event]])
        return found.get("events", [])

    def wait(self, launch_id: str) -> Wait:
        """Return what surrounds a launch that waits; an older hub tells nothing."""
        try:
            raw = self._connection.ask("GET", f"/perijove/launches/{_quoted(launch_id)}/wait")
        except Refused as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            return Wait()
        return self._decode(raw, Wait)

    def keep_waiting(self, launch_id: str) -> None:
        """Say yes when the site asks whether to go on waiting."""
        self._connection.ask("POST", f"/perijove/launches/{_quoted(launch_id)}/keep-waiting", {})

    def release(self, launch_id: str) -> None:
        """Take one's own hold off a launch's job."""
        self._connection.ask("POST", f"/perijove/launches/{_quoted(launch_id)}/release", {})

    def log(self, launch_id: str, lines: int) -> str:
        """Return the last lines of what a launch wrote."""
        path = f"/perijove/launches/{_quoted(launch_id)}/log?lines={lines}"
        return self._decode(self._connection.ask("GET", path), dict[str, str]).get("text", "")

    def environments(self) -> Environments:
        """Return the user's environments, and those that others share."""
        return self._decode(self._connection.ask("GET", self._environments()), Environments)

    def create_environment(self, wish: Mapping[str, Any]) -> Environment:
        """Ask for one."""
        raw = self._connection.ask("POST", self._environments(), dict(wish))
        return self._decode(raw, Environment)

    def change_environment(self, id_: int, wish: Mapping[str, Any]) -> Environment:
        """Ask for other packages, to lock or share it, or to build it again."""
        raw = self._connection.ask("PATCH", self._environments(id_), dict(wish))
        return self._decode(raw, Environment)

    def remove_environment(self, id_: int) -> bool:
        """Ask for its removal; False while that waits for a session."""
        return not self._connection.ask("DELETE", self._environments(id_))

    def environment_lock(self, id_: int) -> str:
        """Return exactly what is in one, for pip."""
        return self._connection.ask("GET", f"{self._environments(id_)}/lock").decode()

    def address(self, path: str) -> str:
        """Return the whole URL of a path that the hub named."""
        return f"{origin_of(self.url)}{path}"

    def _server(self, server: str) -> str:
        user = f"/users/{_quoted(self.user)}"
        return f"{user}/servers/{_quoted(server)}" if server else f"{user}/server"

    def _environments(self, id_: int | None = None) -> str:
        path = f"/perijove/users/{_quoted(self.user)}/environments"
        return path if id_ is None else f"{path}/{id_}"

    def _launches(self, path: str) -> list[Launch]:
        found = self._decode(self._connection.ask("GET", path), dict[str, list[Launch]])
        return found.get("launches", [])

    def _decode(self, raw: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(raw, type=kind)
        except msgspec.DecodeError as error:
            raise Unreachable(f"{self.url} does not answer as a hub does: {error}") from None


def _quoted(text: str) -> str:
    return quote(text, safe="")
