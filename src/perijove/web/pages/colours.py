"""The site's own colours, kept readable: whatever is configured, contrast stays at 4.5:1."""

import re
from collections.abc import Sequence
from typing import Final

from perijove.domain.errors import ConfigError

_RGB = tuple[float, float, float]
_HEX: Final = re.compile(r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})")
_NEEDED: Final = 4.6
_LIGHT_GROUND: Final[_RGB] = (0.93, 0.945, 0.96)
_DARK_GROUND: Final[_RGB] = (0.12, 0.17, 0.22)
_NAMES: Final = ("brand", "accent")


def site_css(colours: Sequence[str]) -> str:
    """Return the style sheet that lays the configured colours over ours; raises `ConfigError`."""
    rules = [rule for pair in zip(_NAMES, colours, strict=False) for rule in _rules(*pair)]
    return ":root {\n" + "".join(f"  {rule}\n" for rule in rules) + "}\n"


def _rules(name: str, colour: str) -> Sequence[str]:
    rgb = _parse(colour)
    light = _until_readable(rgb, on=_LIGHT_GROUND, towards=(0.0, 0.0, 0.0))
    dark = _until_readable(rgb, on=_DARK_GROUND, towards=(1.0, 1.0, 1.0))
    rule = f"--{name}: light-dark({_hex(light)}, {_hex(dark)});"
    return [rule, f"--{name}-ink: light-dark(#fff, #0a121a);"]


def _parse(colour: str) -> _RGB:
    match = _HEX.fullmatch(colour.strip())
    if match is None:
        raise ConfigError(f"hub.colours: {colour!r} is not a colour such as '#14506e'")
    red, green, blue = (int(part, 16) / 255 for part in match.groups())
    return red, green, blue


def _until_readable(rgb: _RGB, *, on: _RGB, towards: _RGB) -> _RGB:
    """Move a colour towards black or white until it can be read on a ground, and the reverse."""
    while contrast(rgb, on) < _NEEDED:
        red, green, blue = (
            part + (goal - part) * 0.08 for part, goal in zip(rgb, towards, strict=True)
        )
        rgb = red, green, blue
    return rgb


def contrast(one: _RGB, other: _RGB) -> float:
    """Return the contrast ratio of two colours as WCAG defines it, 1 to 21."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(rgb: _RGB) -> float:
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in rgb
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _hex(rgb: _RGB) -> str:
    return "#" + "".join(f"{round(part * 255):02x}" for part in rgb)
