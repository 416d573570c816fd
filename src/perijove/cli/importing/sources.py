"""
Reading what another hub offers: its configuration in Python, YAML or JSON.

A configuration in Python is parsed and never run; of an expression only what stands there
literally is known, and the rest is said to be code.
"""

import ast
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
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
GUARANTEES: Final = {"cpu_guarantee": "cpu_limit", "mem_guarantee": "mem_limit"}
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
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """What holds where a profile says nothing, by KubeSpawner's names: guarantees alone."""


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
                yield Found(_KEYS[key], path, value, _defaults_beside(tree, key))
            elif key == "extraConfig":
                yield from _in_extra_config(value, path)
            else:
                yield from _in_data(value, path)


def _defaults_beside(tree: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return what is guaranteed to all; a chart whose values are silent says 1 GiB of memory."""
    if key != "profileList":
        return {name: tree[name] for name in GUARANTEES if name in tree}
    cpu, memory = tree.get("cpu"), tree.get("memory")
    return {
        "cpu_guarantee": cpu.get("guarantee") if isinstance(cpu, Mapping) else None,
        "mem_guarantee": memory.get("guarantee", "1G") if isinstance(memory, Mapping) else "1G",
    }


def _in_extra_config(value: Any, path: str) -> Iterator[Found]:
    """Return what the Python in a chart's values offers; what is none of it is the chart's own."""
    parts = value.items() if isinstance(value, Mapping) else [("", value)]
    for key, text in parts:
        where = f"{path}.{key}" if key else path
        if isinstance(text, str) and any(name in text for name in _KEYS):
            for each in _in_python(text, where):
                yield Found(each.format, f"{where}: {each.where}", each.value)


def _format_of(tree: Any) -> str:
    """Return what a bare list is one of."""
    if not isinstance(tree, list) or not tree:
        return ""
    if all(isinstance(each, Mapping) and "display_name" in each for each in tree):
        return KUBESPAWNER
    return DOCKERSPAWNER if all(isinstance(each, str) for each in tree) else ""


# --- Python -----------------------------------------------------------------------------------

_CHANGING: Final = frozenset(
    {"append", "extend", "insert", "update", "setdefault", "add"}
    | {"pop", "popitem", "remove", "clear", "sort", "reverse"}
)
"""Methods that change a list, a table or a set."""
_READING: Final = frozenset(
    {"dict", "enumerate", "len", "list", "print", "range", "set", "sorted", "str", "tuple", "zip"}
)
"""Functions that leave what they are given as it is."""
_LONGEST_NUMBER: Final = 1 << 64


def _in_python(text: str, name: str) -> Iterator[Found]:
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise ConfigError(f"{name}: not Python: {error}") from None
    reader = _Module(text)
    for statement in module.body:
        reader.read(statement)
    for found in reader.found.values():
        yield replace(found, defaults=reader.defaults)


class _Module:
    """What the statements of a file, taken in order, say as far as they can be read."""

    def __init__(self, text: str) -> None:
        self.found: dict[str, Found] = {}
        self.defaults: dict[str, Any] = {}
        self._text = text
        self._known: dict[str, Any] = {}
        """Names and their values; a list that has two names is one list here as well."""

    def read(self, statement: ast.stmt) -> None:
        """Take what one statement says; what it may change in another way is code from then on."""
        match statement:
            case ast.Assign(targets=targets, value=value) if all(map(self._is_place, targets)):
                known = self._literal(value)
                for target in targets:
                    self._put(target, known)
            case ast.Assign(targets=[ast.Attribute(attr=attr)], value=value) if attr in GUARANTEES:
                self.defaults[attr] = self._literal(value)
            case ast.AnnAssign(target=target, value=ast.expr() as value) if self._is_place(target):
                self._put(target, self._literal(value))
            case ast.AugAssign(target=target, op=ast.Add(), value=value) if self._is_place(target):
                self._add(target, self._literal(value), statement)
            case ast.Expr(
                value=ast.Call(
                    func=ast.Attribute(value=target, attr="append" | "extend" as how),
                    args=[value],
                    keywords=[],
                )
            ) if self._is_place(target):
                more = self._literal(value)
                self._add(target, [more] if how == "append" else more, statement)
            case _:
                self._take_for_code(statement)

    @staticmethod
    def _is_place(target: ast.expr) -> bool:
        return isinstance(target, ast.Name) or _is_setting(target)

    def _put(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Name):
            self._known[target.id] = value
        elif _is_setting(target):
            where = ast.unparse(target)
            self.found[where] = Found(_KEYS[target.attr], where, value)

    def _at(self, target: ast.expr) -> Any:
        if isinstance(target, ast.Name):
            return self._known.get(target.id)
        found = self.found.get(ast.unparse(target))
        return [] if found is None else found.value

    def _add(self, target: ast.expr, more: Any, statement: ast.stmt) -> None:
        before = self._at(target)
        if isinstance(before, list):
            before += more if isinstance(more, list) else [self._code(statement)]
            self._put(target, before)
        elif isinstance(before, str) and isinstance(more, str):
            self._put(target, before + more)
        elif isinstance(before, Mapping) or _is_setting(target):
            self._put(target, [before, self._code(statement)])
        else:
            self._put(target, self._code(statement))

    def _take_for_code(self, statement: ast.stmt) -> None:
        """Note that a statement may change what it names: what that is can only code tell."""
        code, nodes = self._code(statement), list(ast.walk(statement))
        for where in dict.fromkeys(ast.unparse(node) for node in nodes if _is_setting(node)):
            attribute = where.rpartition(".")[2]
            before = self.found[where].value if where in self.found else []
            both = [*(before if isinstance(before, list) else [before]), code]
            self.found[where] = Found(_KEYS[attribute], where, both)
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            return  # Whoever calls it with a name is seen by that name.
        names = [node for node in nodes if isinstance(node, ast.Name) and node.id in self._known]
        is_change = any(map(self._is_change, nodes))
        for node in names:
            value = self._known[node.id]
            if not isinstance(node.ctx, ast.Load):
                self._known[node.id] = code
            elif is_change and isinstance(value, list) and code not in value:
                value.append(code)
            elif is_change and isinstance(value, dict):
                value[str(code)] = code

    def _is_change(self, node: ast.AST) -> bool:
        match node:
            case ast.Subscript(ctx=ast.Store() | ast.Del()):
                return True
            case ast.AugAssign():
                return True
            case ast.Call(func=ast.Attribute(attr=attr)) if attr in _CHANGING:
                return True
            case ast.Call(func=function, args=arguments):
                is_read = isinstance(function, ast.Name) and function.id in _READING
                return not is_read and any(isinstance(each, ast.Name) for each in arguments)
        return False

    # --- values -------------------------------------------------------------------------------

    def _literal(self, node: ast.expr) -> Any:
        """Return a value; `Code` stands for each part that would have to be run."""
        match node:
            case ast.List() | ast.Tuple() | ast.Set():
                found: Any = self._list(node)
            case ast.Dict():
                found = self._table(node)
            case ast.Call(func=ast.Name(id="dict"), args=[], keywords=pairs) if all(
                each.arg for each in pairs
            ):
                found = {str(each.arg): self._literal(each.value) for each in pairs}
            case ast.JoinedStr(values=parts):
                found = self._joined(parts, node)
            case ast.BinOp(left=left, right=right):
                found = self._computed(node, self._literal(left), self._literal(right))
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=str() as key)):
                table = self._known.get(name)
                is_known = isinstance(table, dict) and key in table
                found = table[key] if is_known and table else self._code(node)
            case ast.Name(id=name) if name in self._known:
                found = self._known[name]
            case _:
                found = self._constant(node)
        return found

    def _constant(self, node: ast.expr) -> Any:
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, MemoryError, RecursionError):
            return self._code(node)

    def _list(self, node: ast.List | ast.Tuple | ast.Set) -> list[Any]:
        found: list[Any] = []
        for each in node.elts:
            if isinstance(each, ast.Starred):
                inner = self._literal(each.value)
                found += inner if isinstance(inner, list) else [self._code(each)]
            else:
                found.append(self._literal(each))
        return found

    def _table(self, node: ast.Dict) -> Any:
        found: dict[str, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            name, inner = "" if key is None else self._literal(key), self._literal(value)
            if key is not None:
                found[str(name)] = self._code(key) if isinstance(name, Code) else inner
            elif isinstance(inner, Mapping):
                found |= inner
            else:
                return self._code(node)
        return found

    def _joined(self, parts: list[ast.expr], node: ast.expr) -> Any:
        """Return a text with known values in it."""
        texts = []
        for part in parts:
            match part:
                case ast.Constant(value=str() as text):
                    texts.append(text)
                case ast.FormattedValue(value=inner, conversion=-1, format_spec=None):
                    value = self._literal(inner)
                    if not isinstance(value, str | int):
                        return self._code(node)
                    texts.append(str(value))
                case _:
                    return self._code(node)
        return "".join(texts)

    def _computed(self, node: ast.BinOp, one: Any, two: Any) -> Any:
        """Return what texts, lists, tables or numbers make together."""
        found: Any = self._code(node)
        match node.op, one, two:
            case (ast.Add(), str(), str()) | (ast.Add(), list(), list()):
                found = one + two
            case ast.BitOr(), dict(), dict():
                found = one | two
            case ast.Add(), (int() | float()), (int() | float()):
                found = one + two
            case ast.Mult(), (int() | float()), (int() | float()) if _is_short(one, two):
                found = one * two
            case ast.Pow(), int(), int() if abs(one) <= 1024 and 0 <= two <= 6:
                found = one**two
        return found

    def _code(self, node: ast.AST) -> Code:
        source = ast.get_source_segment(self._text, node) or ast.unparse(node)
        return Code(getattr(node, "lineno", 0), " ".join(source.split()))


def _is_short(*numbers: float) -> bool:
    return all(abs(each) < _LONGEST_NUMBER for each in numbers)


def _is_setting(node: ast.AST) -> TypeGuard[ast.Attribute]:
    """Tell whether a node is such as ``c.KubeSpawner.profile_list``."""
    return isinstance(node, ast.Attribute) and node.attr in _KEYS
