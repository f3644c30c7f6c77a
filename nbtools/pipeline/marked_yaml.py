"""YAML that remembers where everything stands.

Rules of this file: text in, values out; no I/O. Scalars are typed by YAML 1.2's core schema
(https://yaml.org/spec/1.2.2/#103-core-schema), so that ``on``, ``1:30`` and dates stay texts and
``1e-3`` is a number; YAML 1.1, PyYAML's default, gets each of these wrong.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

from nbtools.errors import Problem
from nbtools.pipeline.spec import Location

Path: TypeAlias = tuple[str | int, ...]

#: An alias may multiply what a file says, but not without bound ("billion laughs").
MOST_NODES = 2_000_000
_MOST_GROWTH = 50
_MOST_DEPTH = 100
_SAFE_WIDTH = 2_000

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _CoreSchemaLoader(_Base):  # type: ignore[misc]
    """A safe loader that resolves plain scalars as YAML 1.2 does."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own protocol


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    _CoreSchemaLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), list(_first)
    )


@dataclass(slots=True)
class Tree:
    """A document's value, where each part of it stands, and what is wrong with it as YAML."""

    value: Any = None
    keys: dict[Path, Location] = field(default_factory=dict)
    values: dict[Path, Location] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def place(self, path: Path) -> Location | None:
        """Return where ``path`` stands: its key if it has one, else the nearest part around it."""
        while True:
            if found := self.keys.get(path) or self.values.get(path):
                return found
            if not path:
                return None
            path = path[:-1]


def parse(text: str, file: str) -> Tree:
    """Return the first document of ``text`` with the place of every part; never raises for bad YAML."""
    tree = Tree()
    try:
        text.encode()
        if place := _deep_place(text, file):
            tree.problems.append(_too_deep(place))
            return tree
        node = yaml.compose(text, _CoreSchemaLoader)
    except UnicodeEncodeError as error:
        tree.problems.append(_character_problem(error.start, text, file))
    except yaml.MarkedYAMLError as error:
        tree.problems.append(_syntax_problem(error, text, file))
    except yaml.reader.ReaderError as error:
        tree.problems.append(_character_problem(_position(error, text), text, file))
    else:
        if node is not None:
            _Walk(tree, file, len(text)).document(node)
    return tree


def _deep_place(text: str, file: str) -> Location | None:
    """Return where ``text`` nests so deeply that libyaml's composer might overflow the C stack."""
    if max((len(line) for line in text.splitlines()), default=0) <= _SAFE_WIDTH:
        brackets = max(text.count("["), text.count("{"))
        if brackets <= _SAFE_WIDTH:
            return None
    depth = 0
    try:
        for event in yaml.parse(text, _CoreSchemaLoader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > _MOST_DEPTH:
                    mark = event.start_mark
                    return Location(file, mark.line + 1, mark.column + 1) if mark else Location(file, 1, 1)
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
    except yaml.YAMLError:
        return None  # the composer meets the same error before it goes any deeper
    return None


def _too_deep(place: Location) -> Problem:
    return Problem("this is nested too deeply", str(place), fix=f"use at most {_MOST_DEPTH} levels")


def parse_value(text: str) -> Any:
    """Return the value that ``text`` stands for in YAML.

    Raises
    ------
    ValueError
        If it is not valid YAML.

    >>> parse_value("1e-3"), parse_value("[1, a]"), parse_value("no")
    (0.001, [1, 'a'], 'no')
    """
    tree = parse(text, "value")
    if tree.problems:
        raise ValueError(tree.problems[0].message)
    return tree.value


def dotted(path: Path) -> str:
    """Return ``path`` as people write it: ``pipelines.train.stages.fit.inputs[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


class _Refused(Exception):
    """The document is too large to go on with."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class _Walk:
    """Turns PyYAML's nodes into values, once."""

    def __init__(self, tree: Tree, file: str, size: int) -> None:
        self.tree = tree
        self.file = file
        self.left = min(MOST_NODES, 10_000 + _MOST_GROWTH * size)
        self.open: set[int] = set()

    def document(self, node: yaml.Node) -> None:
        try:
            self.tree.value = self.value(node, ())
        except _Refused as refused:
            self.tree.value = None
            self.tree.problems.append(refused.problem)

    def problem(self, message: str, mark: yaml.Mark, path: Path, fix: str = "") -> None:
        self.tree.problems.append(Problem(message, str(self.location(mark)), dotted(path), fix))

    def location(self, mark: yaml.Mark) -> Location:
        return Location(self.file, mark.line + 1, mark.column + 1)

    def refused(self, message: str, node: yaml.Node) -> _Refused:
        where = str(self.location(node.start_mark))
        return _Refused(Problem(message, where, fix="write it without aliases (*name)"))

    def value(self, node: yaml.Node, path: Path) -> Any:
        self.left -= 1
        if self.left < 0:
            raise self.refused("the aliases expand to more than a file of this size may hold", node)
        if id(node) in self.open:
            raise self.refused("an alias in this contains itself", node)
        if len(path) > _MOST_DEPTH:
            raise _Refused(_too_deep(self.location(node.start_mark)))
        self.tree.values[path] = self.location(node.start_mark)
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, path)
        if node.tag not in _COLLECTIONS:
            kind = str(node.tag).rpartition(":")[2]
            self.problem(f"the tag !!{kind} cannot be used here", node.start_mark, path)
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
            return self.mapping(node, path)
        finally:
            self.open.discard(id(node))

    def mapping(self, node: yaml.Node, path: Path) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = self.key(key_node, path)
            if key is None:
                continue
            place = (*path, key)
            if key in result:
                first = self.tree.keys[place]
                self.problem(
                    f"the key {key!r} stands here twice (first in line {first.line})",
                    key_node.start_mark,
                    place,
                    "remove one of them",
                )
                continue
            self.tree.keys[place] = self.location(key_node.start_mark)
            result[key] = self.value(value_node, place)
        return result

    def key(self, node: yaml.Node, path: Path) -> str | int | None:
        if not isinstance(node, yaml.ScalarNode):
            self.problem("a key must be a plain text", node.start_mark, path)
            return None
        if node.value == "<<" and not node.style:
            self.problem(
                "merge keys (<<) are not part of YAML 1.2", node.start_mark, path, "write the keys out"
            )
            return None
        key = self.scalar(node, path)
        return key if isinstance(key, str) else self.odd_key(key, node, path)

    def odd_key(self, key: Any, node: yaml.Node, path: Path) -> str:
        self.problem(f"the key {node.value!r} is no text", node.start_mark, path, f"quote it: '{node.value}'")
        return str(key)

    def scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        kind = str(node.tag).rpartition(":")[2]
        text = str(node.value)
        if str(node.tag).startswith("tag:yaml.org,2002:") and kind in _CONSTRUCT:
            try:
                return _CONSTRUCT[kind](text)
            except ValueError:
                kind = "unreadable " + kind
        self.problem(f"the tag or value !!{kind} cannot be used here", node.start_mark, path)
        return text


def _integer(text: str) -> int:
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text, 10)


def _number(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


_COLLECTIONS = ("tag:yaml.org,2002:seq", "tag:yaml.org,2002:map")
_CONSTRUCT: dict[str, Any] = {
    "str": str,
    "null": lambda _text: None,
    "bool": _boolean,
    "int": _integer,
    "float": _number,
}


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    where = str(Location(file, mark.line + 1, mark.column + 1)) if mark else file
    lines = text.splitlines()
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    what = " ".join(filter(None, (error.context, error.problem))) or "this is not valid YAML"
    if "\t" in line[: len(line) - len(line.lstrip())] or "\\t" in what:
        return Problem("a tab indents this line", where, fix="indent with spaces; YAML does not allow tabs")
    shown = f": {line.strip()[:80]!r}" if line.strip() else ""
    return Problem(f"not valid YAML, {what}{shown}", where, fix="check indentation, colons and quotes")


def _position(error: yaml.reader.ReaderError, text: str) -> int:
    """Return which character ``error`` means: libyaml counts bytes."""
    if _Base is yaml.SafeLoader:
        return int(error.position)
    return len(text.encode()[: error.position].decode(errors="ignore"))


def _character_problem(position: int, text: str, file: str) -> Problem:
    before = text[:position]
    line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
    code = text[position : position + 1]
    return Problem(
        f"the character U+{ord(code or ' '):04X} is not allowed in YAML",
        str(Location(file, line, column)),
        fix="remove it; is this a text file at all?",
    )
