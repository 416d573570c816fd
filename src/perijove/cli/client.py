"""``perijove login``, ``start``, ``stop``, ``list``, ``open``, ``logs``: a hub from any machine."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

import typer

from perijove.cli.common import JsonOption, err, out, plain, print_json, print_rows
from perijove.client.errors import BadValue, ClientError, NotSignedIn, Refused, Unreachable

if TYPE_CHECKING:
    from perijove.client.hub import Hub
    from perijove.client.models import Form, Launch, User

P = ParamSpec("P")
T = TypeVar("T")


class Exit(IntEnum):
    """How a command ends, for scripts."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_SIGNED_IN = 3
    UNREACHABLE = 4
    WAITING = 5


_EXITS: Mapping[type[ClientError], Exit] = {
    BadValue: Exit.USAGE,
    NotSignedIn: Exit.NOT_SIGNED_IN,
    Unreachable: Exit.UNREACHABLE,
}
_HUB_SAYS_USAGE = frozenset(
    {"invalid-options", "server-name", "profile-unknown", "invalid"}
    | {f"environment-{what}" for what in ("name", "package", "packages", "lock", "not-exact")}
    | {f"environment-{what}" for what in ("place", "group", "most")}
)
EPILOG = (
    "Exit codes: 0 done, 1 failed, 2 wrong option or value, 3 not signed in,"
    " 4 the hub does not answer, 5 it still waits."
)
PANEL = "Your servers, from any machine"
_FREE = {"allow_extra_args": True, "ignore_unknown_options": True}

HubOption = Annotated[
    str | None,
    typer.Option("--hub", help="The hub's address; the last one signed in to.", metavar="URL"),
]
NameArgument = Annotated[
    str, typer.Argument(help="The server; the default one without.", metavar="[NAME]")
]


@dataclass(slots=True)
class _Ended(Exception):
    """Ends a command with a code after all was said."""

    code: Exit


def reporting(command: Callable[P, T]) -> Callable[P, T]:
    """Turn the client's errors into words, or with ``--json`` into JSON, and an exit code."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except _Ended as end:
            raise SystemExit(int(end.code)) from None
        except ClientError as error:
            code = _exit_of(error)
            _say_error(error, code, as_json=bool(kwargs.get("as_json")))
            raise SystemExit(int(code)) from None
        except KeyboardInterrupt:
            raise SystemExit(130) from None

    return wrapped


def _exit_of(error: ClientError) -> Exit:
    if isinstance(error, Refused) and error.code in _HUB_SAYS_USAGE:
        return Exit.USAGE
    return next((code for kind, code in _EXITS.items() if isinstance(error, kind)), Exit.FAILED)


def _say_error(error: ClientError, code: Exit, *, as_json: bool) -> None:
    from perijove.cli.waiting import clean

    message, hint = clean(str(error)), clean(error.hint)
    if as_json:
        said = {"code": error.code, "message": message, "hint": hint, "field": error.field}
        kept = {key: value for key, value in said.items() if value}
        sys.stderr.write(json.dumps({"error": {**kept, "exit": int(code)}}) + "\n")
        return
    err.print(f"[red]error:[/] {plain(message)}", soft_wrap=True)
    if hint:
        err.print(plain(hint), soft_wrap=True)


# --- the hub ----------------------------------------------------------------------------------


def connect(wanted: str | None) -> "Hub":
    """Return the hub that a command is about; raises `NotSignedIn`."""
    from perijove.client.connection import Connection
    from perijove.client.hub import Hub
    from perijove.client.store import Store, access

    found = access(Store.of(os.environ), os.environ, wanted)
    return Hub(Connection(found, language=_language()), found.user)


def _language() -> str:
    """Return the language of this terminal, for what the hub says."""
    names = (os.environ.get(name, "") for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    first = next((name for name in names if name), "")
    language = first.split("_")[0].split(".")[0].lower()
    return language if language.isalpha() and len(language) == 2 else "en"


@reporting
def login(
    url: Annotated[str, typer.Argument(help="The hub's address.", metavar="URL")],
    allow_http: Annotated[
        bool,
        typer.Option("--allow-http", help="Send the token without encryption, to another machine."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """
    Sign in to a hub with a token from its page.

    The token is read without echo, or from standard input, and kept in a file
    that only you can read.
    """
    from perijove.client.address import hub_url
    from perijove.client.connection import Connection
    from perijove.client.hub import Hub
    from perijove.client.store import Access, Credential, Store

    base = hub_url(url, allow_http=allow_http)
    Hub(Connection(Access(url=base, token=""), language=_language())).version()
    if sys.stdin.isatty():
        err.print(f"Make a token on this page, in any browser:\n\n    {base}hub/token\n")
    token = _read_token()
    store = Store.of(os.environ)
    name = Hub(Connection(Access(url=base, token=token), language=_language())).who().name
    store.remember(base, Credential(token=token, user=name))
    if as_json:
        print_json({"hub": base, "user": name, "file": str(store.path)})
        return
    out.print(f"You are [bold]{plain(name)}[/] at {base}")
    out.print(f"The token is in {store.path}", style="dim", soft_wrap=True)


def _read_token() -> str:
    from getpass import getpass

    text = getpass("Token (it is not shown): ") if sys.stdin.isatty() else sys.stdin.readline(1000)
    token = text.strip()
    if not token:
        raise BadValue("no token was given", field="token")
    if not token.isascii() or not token.isprintable() or " " in token or len(token) > 255:
        raise BadValue("this is no token", hint="It is one word of letters and digits.")
    return token


@reporting
def logout(hub: HubOption = None, as_json: JsonOption = False) -> None:
    """Forget a hub's token; revoke it on the hub's page if others may have seen it."""
    from perijove.client.store import Store, access

    store = Store.of(os.environ)
    url = access(store, {}, hub).url
    store.forget(url)
    if as_json:
        print_json({"hub": url, "forgotten": True})
    else:
        out.print(f"The token for {url} is forgotten. To end it: {url}hub/token", soft_wrap=True)


# --- start ------------------------------------------------------------------------------------


@reporting
def start(
    context: typer.Context,
    profile: Annotated[str | None, typer.Option(help="What to start.", metavar="NAME")] = None,
    wait: Annotated[bool, typer.Option(help="Wait until it is ready, or say so at once.")] = True,
    timeout: Annotated[
        float | None,
        typer.Option(help="Wait no longer; it goes on waiting.", metavar="SECONDS", min=0),
    ] = None,
    show_options: Annotated[
        bool, typer.Option("--show-options", help="Show profiles and their options, and end.")
    ] = False,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """
    Start a server, and see how it goes until it is ready.

    For example: perijove start work --profile small --cpu 2 --memory "4 GiB".

    The options are those of the profile, see --show-options; without any, those
    of the last time. A number without a unit is in the unit of the hub's form;
    time may be written hours:minutes:seconds.
    """
    from perijove.client import flags

    words, given = flags.split(context.args)
    if len(words) > 1:
        raise BadValue(f"one server at a time, not {' and '.join(words[:3])}")
    server = words[0] if words else ""
    at = connect(hub)
    if show_options:
        _show_options(at.form(server), profile, as_json=as_json)
        return
    options: dict[str, Any] = {}
    if profile is not None or given:
        chosen = flags.choose(at.form(server), profile)
        options, profile = flags.read(chosen, given), chosen.name
    is_new = at.start(server, profile, options)
    launch = at.newest(server)
    if launch is None:
        raise ClientError("the hub took the request and shows no start", code="start-lost")
    if not is_new and (profile or options):
        err.print("It runs already: the options were not used.", style="yellow")
    if wait:
        launch = _wait_for_start(at, launch, seconds=timeout, as_json=as_json)
    _say_started(at, launch, as_json=as_json)
    raise _Ended(_outcome(launch, wait=wait))


def _outcome(launch: "Launch", *, wait: bool) -> Exit:
    if launch.is_ready:
        return Exit.DONE
    if launch.is_decided:
        return Exit.FAILED
    return Exit.WAITING if wait else Exit.DONE


def _wait_for_start(
    hub: "Hub", launch: "Launch", *, seconds: float | None, as_json: bool
) -> "Launch":
    """Show how it goes until it is decided; Ctrl-C asks, and cancels nothing by itself."""
    from perijove.cli import waiting

    title = " · ".join(part for part in (launch.profile, launch.server) if part)
    is_shown = err.is_terminal and not as_json

    def is_told(now: "Launch") -> bool:
        return now.is_ready or now.is_over  # only then it is known why it did not start

    while True:
        shown = waiting.on_terminal(err, title) if is_shown else waiting.as_lines(err)
        try:
            with shown as show:
                quiet = (lambda _: None) if as_json else show
                return waiting.watch(hub, launch, until=is_told, show=quiet, seconds=seconds)
        except KeyboardInterrupt:
            if not is_shown or not sys.stdin.isatty():
                return _now(hub, launch)
            answer = _ask_what_to_do(_more_answers(hub, launch))
        if answer == "l":
            return _now(hub, launch)
        if answer == "c":
            hub.stop(launch.server)
            return _now(hub, launch)
        if answer == "k":
            hub.keep_waiting(launch.id)
        if answer == "r":
            _release(hub, launch)


def _now(hub: "Hub", launch: "Launch") -> "Launch":
    try:
        return hub.launch(launch.id)
    except Unreachable:
        return launch


def _more_answers(hub: "Hub", launch: "Launch") -> list[str]:
    """Return what can be said to this wait and not to each; the first letter says it."""
    try:
        wait = hub.wait(launch.id)
    except (Unreachable, Refused):
        return []
    answers = []
    if "release" in wait.actions:
        answers.append("release it")
    if wait.asked_at is not None:
        answers.append("keep it waiting longer")
    return answers


def _release(hub: "Hub", launch: "Launch") -> None:
    """Release it, and say so where that is refused: it waits on all the same."""
    from perijove.cli.waiting import clean

    try:
        hub.release(launch.id)
    except (Unreachable, Refused) as error:
        err.print(f"  It was not released: {clean(str(error))}", markup=False)


def _ask_what_to_do(more: list[str]) -> str:
    """Return ``l`` to leave it waiting, ``c`` to cancel it, ``w`` to watch on, or one of `more`."""
    initials = [each[0] for each in more]
    said = "".join(f" [bold]{each[0]}[/]{each[1:]}," for each in more)
    letters = "/".join(("L", *initials, "w", "c"))
    try:
        err.print(
            f"\n  It still waits. [bold]L[/]eave it waiting,{said} [bold]w[/]atch on,"
            f" or [bold]c[/]ancel it? \\[{letters}] ",
            end="",
        )
        answer = sys.stdin.readline().strip().lower()[:1]
    except KeyboardInterrupt:
        answer = ""
        err.print()
    return answer if answer in ("c", "w", *initials) else "l"


def _say_started(hub: "Hub", launch: "Launch", *, as_json: bool) -> None:
    from perijove.cli.waiting import clean, sentences

    url = hub.address(launch.server_url)
    if as_json:
        print_json({**json.loads(hub.raw_launch(launch.id)), "open": url})
        return
    if launch.is_ready:
        err.print("[green]✓[/] [bold]Ready[/]")
        out.print(url, soft_wrap=True)
        return
    mark = "[red]✗[/] " if launch.is_decided else ""
    err.print(f"{mark}{plain(sentences(launch))}")
    if launch.said.advice:
        err.print(plain(clean(launch.said.advice)), style="dim")
    name = f" {launch.server}" if launch.server else ""
    if launch.is_over:
        err.print(f"To see what it wrote: perijove logs{name}", style="dim")
    if not launch.is_decided:
        err.print(
            f"It goes on without this terminal. To look again: perijove start{name}."
            f" To cancel it: perijove stop{name}.",
            style="dim",
        )
        out.print(url, soft_wrap=True)


def _show_options(form: "Form", profile: str | None, *, as_json: bool) -> None:
    from rich.table import Table

    from perijove.client import flags

    profiles = [each for each in form.profiles if profile in (None, each.name)]
    if not profiles:
        flags.choose(form, profile)  # says what there is
    if as_json:
        print_json([{"profile": each.name, "schema": each.schema} for each in profiles])
        return
    for each in profiles:
        title = each.title.get(_language()) or each.title.get("en", "")
        mark = "  (last time)" if each.name == form.chosen.profile and len(profiles) > 1 else ""
        out.print(f"[bold]--profile {plain(each.name)}[/]  {plain(title)}[dim]{mark}[/]")
        if each.refused:
            out.print(f"  not for you: {plain(each.refused.get('message', ''))}", style="yellow")
        table = Table.grid(padding=(0, 2))
        for flag in flags.describe(each):
            default = f"default {flag.default}" if flag.default else ""
            table.add_row(
                f"  [cyan]{plain(flag.name)}[/]",
                plain(flag.title),
                plain(flag.allowed),
                f"[dim]{plain(default)}[/]",
            )
        out.print(table)


# --- stop, list, open, logs -------------------------------------------------------------------


@reporting
def stop(
    name: NameArgument = "",
    wait: Annotated[bool, typer.Option(help="Wait until it has ended.")] = True,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stop a server, or cancel its start; work that is saved stays."""
    from perijove.cli import waiting

    at = connect(hub)
    launch = at.newest(name)
    at.stop(name)
    if launch is None or launch.is_over:
        said = {"server": name, "stopped": True, "ran": False}
        print_json(said) if as_json else out.print("It was not running.")
        return
    if wait:
        shown = waiting.as_lines(err)
        with shown as show:
            quiet = (lambda _: None) if as_json else show
            launch = waiting.watch(at, launch, until=lambda now: now.is_over, show=quiet)
    else:
        launch = at.launch(launch.id)
    if as_json:
        print_json({"server": name, "stopped": launch.is_over, "ran": True})
    else:
        out.print("Stopped." if launch.is_over else "It is being stopped.")


@reporting
def list_servers(hub: HubOption = None, as_json: JsonOption = False) -> None:
    """List your servers, how they are, and why they wait."""
    at = connect(hub)
    user = at.servers()
    newest: dict[str, Launch] = {}
    for launch in at.launches():
        newest.setdefault(launch.server, launch)
    rows = [_row(at, user, name, newest.get(name), as_json) for name in _names(user, newest)]
    print_json(rows) if as_json else print_rows(rows)


def _names(user: "User", newest: Mapping[str, "Launch"]) -> list[str]:
    live = {name for name, launch in newest.items() if not launch.is_over}
    return sorted({*user.servers, *live})


def _row(
    hub: "Hub", user: "User", name: str, launch: "Launch | None", as_json: bool
) -> dict[str, Any]:
    from datetime import UTC, datetime

    from perijove.cli.waiting import clean, span
    from perijove.kit.clock import isoformat

    known = user.servers.get(name)
    url = hub.address(launch.server_url if launch else known.url if known else "")
    if as_json:
        status = launch.status if launch else "stopped"
        return {
            "server": name,
            "status": status,
            "ready": bool(launch and launch.is_ready),
            "profile": launch.profile if launch else "",
            "node": launch.node if launch else "",
            "since": isoformat(launch.entered_at) if launch else None,
            "ends_at": isoformat(launch.ends_at) if launch and launch.ends_at else None,
            "why": launch.said.text if launch else "",
            "launch": launch.id if launch else None,
            "url": url,
        }
    now = datetime.now(UTC)
    is_live = launch is not None and not launch.is_over
    return {
        "server": clean(name) or "(default)",
        "state": clean(launch.said.state) if launch else "Stopped",
        "for": span(now - launch.entered_at) if launch else "",
        "left": span(launch.ends_at - now) if launch and is_live and launch.ends_at else "",
        "profile": clean(launch.profile) if launch else "",
        "where": clean(launch.node or launch.spawner) if launch and is_live else "",
        "why or address": url if launch and launch.is_ready else _why(launch),
    }


def _why(launch: "Launch | None") -> str:
    from perijove.cli.waiting import clean

    return clean(launch.said.text) if launch else ""


@reporting
def open_server(
    name: NameArgument = "",
    show: Annotated[
        bool, typer.Option("--print", help="Only print the address, open no browser.")
    ] = False,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Open a server that runs in a browser, or print its address where there is none."""
    at = connect(hub)
    launch = at.newest(name)
    if launch is None or not launch.is_ready:
        state = "is not running" if launch is None or launch.is_over else "is not ready yet"
        again = f"perijove start {name}".strip()
        raise ClientError(
            f"the server {name or '(default)'} {state}",
            hint=f"To start it, or to wait for it: {again}",
            code="not-running",
        )
    url = at.address(launch.server_url)
    is_opened = not show and not as_json and _has_browser() and _open_browser(url)
    if as_json:
        print_json({"server": name, "url": url})
    else:
        out.print(f"Opened {url}" if is_opened else url, soft_wrap=True)


def _has_browser() -> bool:
    """Tell whether a browser would be seen: not on a login node."""
    if "BROWSER" in os.environ:
        return True
    is_remote = bool(os.environ.get("SSH_CONNECTION"))
    has_display = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return sys.platform == "darwin" or (has_display and not is_remote)


def _open_browser(url: str) -> bool:
    import webbrowser

    return webbrowser.open(url)


@reporting
def logs(
    name: NameArgument = "",
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=1, max=2000, help="How many lines, from the end.")
    ] = 100,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the last lines of what a server has written, also after its end."""
    at = connect(hub)
    launch = at.newest(name)
    if launch is None:
        raise ClientError(f"the server {name or '(default)'} was never started", code="not-running")
    text = at.log(launch.id, lines) or (launch.end.detail if launch.end else "")
    if as_json:
        print_json({"server": name, "launch": launch.id, "log": text})
        return
    if not text.strip():
        err.print("It has written nothing, or its platform keeps no log.", style="dim")
        return
    sys.stdout.write(_harmless(text.rstrip("\n")) + "\n")


def _harmless(text: str) -> str:
    """Return a log as a terminal may show it: line ends and tabs stay, commands do not."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


_COMMANDS: Mapping[str, Callable[..., None]] = {
    "login": login,
    "logout": logout,
    "start": start,
    "stop": stop,
    "list": list_servers,
    "open": open_server,
    "logs": logs,
}


def add_to(app: typer.Typer) -> None:
    """Add the commands to the program."""
    for name, command in _COMMANDS.items():
        settings = _FREE if command is start else None
        register = app.command(
            name, rich_help_panel=PANEL, epilog=EPILOG, context_settings=settings
        )
        register(command)
