"""DockerSpawner's ``allowed_images`` as a profile of ours."""

from collections.abc import Mapping
from typing import Any, Final

from perijove.cli.importing.report import Import, key_of, name_of

_CODE: Final = "Write what it gives as a list, or as a table of names and images."


def add(result: Import, found: object, where: str, *, spawner: str | None) -> None:
    """Add the images of a list, or of a table by name, and the profile that offers them."""
    names: list[str] = []
    free = False
    for name, image in _pairs(found):
        if image == "*":
            free = True
        elif not isinstance(image, str):
            result.differs(where, f"it is made by code ({image})", _CODE)
        else:
            names += _named(result, name, image, where)
    if not names and not free:
        return
    field: dict[str, Any] = {"choices": names} if names else {}
    if names:
        field = {"default": names[0], **field}
    if free:
        field["free"] = {"pattern": ".+", "title": "Another image"}
    profile = {"name": result.free_name("docker"), "title": "Container"}
    if spawner is not None:
        profile["spawner"] = spawner
    result.profiles.append({**profile, "fields": {"image": field}})


def _pairs(found: Any) -> list[tuple[str, Any]]:
    if isinstance(found, Mapping):
        return [(str(name), image) for name, image in found.items()]
    if isinstance(found, list):
        return [("", image) for image in found]
    return [("", found)]


def _named(result: Import, name: str, image: str, where: str) -> list[str]:
    """Return the name under which an image is offered; none where it is no image."""
    wanted = key_of(name) if name else name_of(image)
    made = result.add_image(image, wanted, name)
    if made is None:
        result.differs(where, f"{image[:80]!r} is no reference of an image", "Leave it out.")
        return []
    if name and made != name:
        advice = "Scripts that name it must be changed."
        result.differs(f"{where}[{name!r}]", f"it is called {made} here", advice)
    return [made]
