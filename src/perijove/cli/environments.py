"""``perijove environments``: what is installed once and found in every later session."""

import sys
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from perijove.cli.client import EPILOG, HubOption, connect, reporting
from perijove.cli.common import (
    JsonOption,
    err,
    out,
    plain,
    print_json,
    print_rows,
    why_unreadable,
)
from perijove.client.errors import BadValue

if TYPE_CHECKING:
    from perijove.client.hub import Hub
    from perijove.client.models import Environment

_LONGEST_FILE: Final = 1_000_000
_STATES: Final = {
    "wanted": "waits for a session",
    "building": "being built",
    "ready": "ready",
    "failed": "could not be built",
    "removing": "is removed by your next session",
}

environments_app = typer.Typer(
    help="Environments: installed once, a kernel in each of your later sessions.",
    no_args_is_help=True,
)
_command = environments_app.command

NameArgument = Annotated[str, typer.Argument(help="The environment.", metavar="NAME")]
PlaceOption = Annotated[
    str | None,
    typer.Option(help="On which storage, where there are several: see list.", metavar="PLACE"),
]
PackagesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        help='Such as numpy, or "numpy>=2".', metavar="[PACKAGE]...", show_default=False
    ),
]
RequirementsOption = Annotated[
    str | None,
    typer.Option(
        "--requirements", "-r", help="Also those in a file; - for standard input.", metavar="FILE"
    ),
]


@_command("list", epilog=EPILOG)
@reporting
def list_environments(hub: HubOption = None, as_json: JsonOption = False) -> None:
    """List your environments and how they are, what others share, and where new ones can lie."""
    import msgspec

    found = connect(hub).environments()
    if as_json:
        print_json(msgspec.to_builtins(found))
        return
    several = len({*found.places, *(each.place for each in found.environments)}) > 1
    print_rows([_row(each, several) for each in found.environments])
    if found.shared:
        out.print("\nShared with you, for [bold]perijove environments copy[/]:")
        print_rows([_shared_row(each) for each in found.shared])
    if several:
        out.print(f"\nPlaces, the last one first: {plain(_clean(', '.join(found.places)))}")
    for each in found.environments:
        if each.error:
            err.print(f"\n[bold]{plain(_clean(each.name))}[/]: {plain(_last_line(each.error))}")


@_command(epilog=EPILOG)
@reporting
def create(
    name: NameArgument,
    packages: PackagesArgument = None,
    requirements: RequirementsOption = None,
    lock: Annotated[
        str | None,
        typer.Option(help="Exactly the versions in a file; - for standard input.", metavar="FILE"),
    ] = None,
    place: PlaceOption = None,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """
    Ask for an environment; the session that runs builds it, or your next one.

    For example: perijove environments create stats pandas "scikit-learn>=1.5"
    """
    wish: dict[str, Any] = {"name": name, "packages": _packages(packages, requirements)}
    if lock is not None:
        wish["lock"] = _text_of(lock)
    _say(connect(hub).create_environment(wish | _at(place)), as_json=as_json)


@_command(epilog=EPILOG)
@reporting
def copy(
    source: Annotated[
        str,
        typer.Argument(help="What somebody shares, or your own by its name.", metavar="OWNER/NAME"),
    ],
    name: Annotated[str, typer.Option(help="What yours is to be called.", metavar="NAME")] = "",
    place: PlaceOption = None,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask for an environment of your own with exactly what another one has."""
    at = connect(hub)
    owner, _, wanted = source.rpartition("/")
    found = at.environments()
    known = [each for each in found.shared if each.owner == owner] if owner else found.environments
    wish = {"copy_of": _only(known, wanted, None).id, "name": name}
    _say(at.create_environment(wish | _at(place)), as_json=as_json)


@_command(epilog=EPILOG)
@reporting
def change(
    name: NameArgument,
    packages: PackagesArgument = None,
    requirements: RequirementsOption = None,
    place: PlaceOption = None,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask for other packages: all that are to be in it; what was there stays until it is built."""
    _change(hub, name, place, {"packages": _packages(packages, requirements)}, as_json=as_json)


def _add(word: str, wish: dict[str, Any], said: str) -> None:
    @_command(word, epilog=EPILOG, help=said)
    @reporting
    def act(
        name: NameArgument,
        place: PlaceOption = None,
        hub: HubOption = None,
        as_json: JsonOption = False,
    ) -> None:
        _change(hub, name, place, wish, as_json=as_json)


_add(
    "lock",
    {"locked": True},
    "Keep exactly what is in it: nobody changes or removes it before it is unlocked.",
)
_add("unlock", {"locked": False}, "Let it be changed and removed again.")
_add("retry", {"retry": True}, "Ask once more for what could not be built.")


@_command(epilog=EPILOG)
@reporting
def share(
    name: NameArgument,
    groups: Annotated[
        list[str] | None,
        typer.Argument(
            help="Groups of yours; none ends the sharing.", metavar="[GROUP]...", show_default=False
        ),
    ] = None,
    place: PlaceOption = None,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let members of groups make their own of it, of the same versions."""
    _change(hub, name, place, {"shared_with": groups or []}, as_json=as_json)


@_command(epilog=EPILOG)
@reporting
def versions(
    name: NameArgument,
    place: PlaceOption = None,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print exactly what is in it, for pip or for --lock."""
    at, mine = _find(hub, name, place)
    text = at.environment_lock(mine.id)
    if as_json:
        print_json({"name": name, "lock": text})
    else:
        sys.stdout.write("".join(f"{_clean(line)}\n" for line in text.splitlines()))


@_command(epilog=EPILOG)
@reporting
def remove(
    name: NameArgument,
    place: PlaceOption = None,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask for its removal, with all that is in it; a session does so."""
    at, mine = _find(hub, name, place)
    is_gone = at.remove_environment(mine.id)
    if as_json:
        print_json({"name": name, "removed": is_gone})
    else:
        out.print("Removed." if is_gone else "The session that runs removes it, or your next one.")


# --- what is asked ----------------------------------------------------------------------------


def _change(
    hub: str | None, name: str, place: str | None, wish: dict[str, Any], *, as_json: bool
) -> None:
    at, mine = _find(hub, name, place)
    _say(at.change_environment(mine.id, wish), as_json=as_json)


def _find(hub: str | None, name: str, place: str | None) -> "tuple[Hub, Environment]":
    at = connect(hub)
    return at, _only(at.environments().environments, name, place)


def _only(known: "list[Environment]", name: str, place: str | None) -> "Environment":
    """Return the one that is meant; raises `BadValue` with what there is instead."""
    same = [each for each in known if each.name == name and place in (None, each.place)]
    if len(same) == 1:
        return same[0]
    if same:
        where = ", ".join(each.place for each in same)
        raise BadValue(f"there are several named {name}", hint=f"Say --place: {where}.")
    names = ", ".join(sorted({each.name for each in known})) or "none"
    raise BadValue(f"there is no environment {name}", hint=f"There is: {names}.", field="name")


def _at(place: str | None) -> dict[str, str]:
    return {} if place is None else {"place": place}


def _packages(given: list[str] | None, file: str | None) -> list[str]:
    return [*(given or ()), *(_text_of(file).splitlines() if file is not None else ())]


def _text_of(file: str) -> str:
    try:
        if file == "-":
            text = sys.stdin.read(_LONGEST_FILE + 1)
        else:
            with Path(file).open(encoding="utf-8") as opened:
                text = opened.read(_LONGEST_FILE + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise BadValue(why_unreadable(file, error)) from None
    if len(text) > _LONGEST_FILE:
        raise BadValue(f"{file}: longer than {_LONGEST_FILE} characters")
    return text


# --- what is said -----------------------------------------------------------------------------


def _say(environment: "Environment", *, as_json: bool) -> None:
    import msgspec

    if as_json:
        print_json(msgspec.to_builtins(environment))
        return
    marks = ["locked"] if environment.locked else []
    if environment.shared_with:
        marks.append(f"shared with {', '.join(environment.shared_with)}")
    said = ", ".join([_STATES.get(environment.state, environment.state), *marks])
    out.print(f"[bold]{plain(_clean(environment.name))}[/]: {plain(_clean(said))}")


def _row(environment: "Environment", several_places: bool) -> dict[str, Any]:
    from perijove.kit.quantities import write_size

    size = environment.size_bytes
    return {
        "name": _clean(environment.name),
        "state": _clean(_STATES.get(environment.state, environment.state)),
        "packages": _clean(_packages_of(environment)),
        "locked": "locked" if environment.locked else "",
        "shared with": _clean(", ".join(environment.shared_with)),
        "size": "" if size is None else write_size(Fraction(size)),
        **({"place": _clean(environment.place)} if several_places else {}),
    }


def _packages_of(environment: "Environment") -> str:
    return "made by hand" if environment.maker == "hand" else " ".join(environment.packages)


def _shared_row(environment: "Environment") -> dict[str, Any]:
    return {
        "owner/name": _clean(f"{environment.owner}/{environment.name}"),
        "packages": _clean(_packages_of(environment)),
    }


def _last_line(text: str) -> str:
    return _clean(text.strip().rpartition("\n")[2])


def _clean(text: str) -> str:
    from perijove.cli.waiting import clean

    return clean(text)
