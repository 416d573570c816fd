"""
Reading what another hub offers: its configuration in Python, YAML or JSON.

A configuration in Python is parsed and never run; of an expression only what stands there
literally is known, and the rest is said to be code.
"""

import ast
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from perijove.domain.errors import ConfigError

KUBESPAWNER: Final = "kubespawner"
DOCKERSPAWNER: Final = "dockerspawner"
_KEYS: Final = {
    "profile_list": KUBESPAWNER,
    "profileList": KUBESPAWNER,
    "allowed_images": DOCKERSPAWNER,
    "image_whitelist": DOCKERSPAWNER,
}
LARGEST: Final = 5_000_000
"""Characters of a file."""


@dataclass(frozen=True, slots=True)
class Code:
    """A value that only running the file could tell."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text[:60]}"


@dataclass(frozen=True, slots=True)
class Found:
    """What a file offers to start."""

    format: str
    where: str
    value: Any


def read(text: str, name: str, wanted: str | None) -> list[Found]:
    """
    Return what a file offers, as far as it is of the `wanted` format.

    Raises `ConfigError` for a file that cannot be read, or with nothing of the kind in it.
    """
    if len(text) > LARGEST:
        raise ConfigError(f"{name}: longer than {LARGEST} characters")
    if name.endswith(".py"):
        found = list(_in_python(text, name))
    else:
        found = list(_in_data(_parse(text, name), ""))
    found = [each for each in found if wanted in (None, each.format)]
    if not found:
        raise ConfigError(
            f"{name}: there is no profile_list of KubeSpawner, no singleuser.profileList and no"
            " allowed_images of DockerSpawner"
        )
    return found


# --- data -------------------------------------------------------------------------------------


def _parse(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        if name.endswith(".json"):
            raise ConfigError(f"{name}: not JSON") from None
    try:
        import yaml
    except ImportError:
        raise ConfigError(
            f"{name}: reading YAML needs the package PyYAML; or convert the file to JSON"
        ) from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not YAML: {error}") from None


def _in_data(tree: Any, where: str) -> Iterator[Found]:
    if not where and (format := _format_of(tree)):
        yield Found(format, "", tree)
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            path = f"{where}.{key}" if where else str(key)
            if key in _KEYS:
                yield Found(_KEYS[key], path, value)
            else:
                yield from _in_data(value, path)


def _format_of(tree: Any) -> str:
    """Return what a bare list is one of."""
    if not isinstance(tree, list) or not tree:
        return ""
    if all(isinstance(each, Mapping) and "display_name" in each for each in tree):
        return KUBESPAWNER
    return DOCKERSPAWNER if all(isinstance(each, str) for each in tree) else ""


# --- Python -----------------------------------------------------------------------------------


def _in_python(text: str, name: str) -> Iterator[Found]:
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise ConfigError(f"{name}: not Python: {error}") from None
    known: dict[str, Any] = {}
    found: dict[str, Found] = {}
    for statement in module.body:
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                value = _literal(statement.value, known, text)
                if isinstance(target, ast.Name):
                    known[target.id] = value
                elif _is_setting(target):
                    where = ast.unparse(target)
                    found[where] = Found(_KEYS[target.attr], where, value)
        elif isinstance(statement, ast.AugAssign) and _is_setting(statement.target):
            where = ast.unparse(statement.target)
            before = found[where].value if where in found else []
            more = _literal(statement.value, known, text)
            both = [*_list(before), *_list(more)]
            found[where] = Found(_KEYS[statement.target.attr], where, both)
        elif any(_is_setting(each) for each in ast.walk(statement)):
            for each in ast.walk(statement):
                if _is_setting(each):
                    where = ast.unparse(each)
                    code = _code(statement, text)
                    before = found[where].value if where in found else []
                    found[where] = Found(_KEYS[each.attr], where, [*_list(before), code])
    yield from found.values()


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _is_setting(node: ast.AST) -> TypeGuard[ast.Attribute]:
    """Tell whether a node is such as ``c.KubeSpawner.profile_list``."""
    return isinstance(node, ast.Attribute) and node.attr in _KEYS


def _literal(node: ast.expr, known: Mapping[str, Any], text: str) -> Any:
    """Return a value; `Code` stands for each part that would have to be run."""
    match node:
        case ast.List() | ast.Tuple() | ast.Set():
            return [_literal(each, known, text) for each in node.elts]
        case ast.Dict(keys=keys, values=values) if all(keys):
            pairs = zip(keys, values, strict=True)
            return {str(_literal(k, known, text)): _literal(v, known, text) for k, v in pairs if k}
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _sum(_literal(left, known, text), _literal(right, known, text), node, text)
        case ast.Name(id=name) if name in known:
            return known[name]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, MemoryError, RecursionError):
        return _code(node, text)


def _sum(one: Any, two: Any, node: ast.expr, text: str) -> Any:
    if isinstance(one, str) and isinstance(two, str):
        return one + two
    if isinstance(one, list) and isinstance(two, list):
        return one + two
    return _code(node, text)


def _code(node: ast.AST, text: str) -> Code:
    source = ast.get_source_segment(text, node) or ast.unparse(node)
    return Code(getattr(node, "lineno", 0), " ".join(source.split()))
