"""pipelines.yaml to a ``Spec``: every mistake at once, each with its line and how to mend it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nbtools.errors import Problem, SpecError, suggest
from nbtools.pipeline.build import build
from nbtools.pipeline.document import (
    DatasetEntry,
    DefaultsEntry,
    Document,
    KernelsEntry,
    PipelineEntry,
    ResourcesEntry,
    StageEntry,
    TrackingEntry,
)
from nbtools.pipeline.marked_yaml import Path as DocumentPath
from nbtools.pipeline.marked_yaml import Tree, dotted, parse
from nbtools.pipeline.spec import Spec

FILE_NAME = "pipelines.yaml"
_LARGEST_BYTES = 20_000_000


def load(path: Path) -> Spec:
    """Return the spec in the file at ``path``.

    Raises
    ------
    SpecError
        With every mistake that was found.
    """
    return parse_spec(_read(path), path.name)


def parse_spec(text: str, file: str = FILE_NAME) -> Spec:
    """Return the spec in ``text``; ``file`` is the name that messages show.

    Raises
    ------
    SpecError
        With every mistake that was found.
    """
    tree = parse(text, file)
    if tree.value is None:
        empty = Problem("the file is empty", file, fix="nbtools schema prints what it may hold")
        raise SpecError(*(tree.problems or [empty]))
    document, problems = _validate(tree, file)
    problems = [*tree.problems, *problems]
    if document is not None:
        spec, more = build(tree, document, file)
        problems += more
        if not problems:
            return spec
    raise SpecError(*sorted(set(problems), key=_reading_order))


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise SpecError(Problem("the file is too large to be a pipelines.yaml", path.name))
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        fix = f"write one beside your notebooks folder, or run nbtools inside a project ({path.parent})"
        raise SpecError(Problem("there is no such file", path.name, fix=fix)) from error
    except IsADirectoryError as error:
        raise SpecError(Problem("this is a folder, not a file", path.name)) from error
    except UnicodeDecodeError as error:
        fix = "save it as UTF-8; is it a text file at all?"
        raise SpecError(Problem("the file is not UTF-8 text", path.name, fix=fix)) from error
    except OSError as error:
        raise SpecError(Problem(f"the file cannot be read: {error.strerror}", path.name)) from error


def _reading_order(problem: Problem) -> tuple[int, int, str]:
    parts = problem.where.rsplit(":", 2)
    if len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit():
        return int(parts[1]), int(parts[2]), problem.message
    return 0, 0, problem.message


def _validate(tree: Tree, file: str) -> tuple[Document | None, list[Problem]]:
    """Return the document without its invalid parts (None if too little is left), and what is wrong.

    Invalid parts are taken out one by one, so that the rest can still be checked for meaning.
    """
    value = copy.deepcopy(tree.value)
    problems: list[Problem] = []
    first = True
    while True:
        try:
            return Document.model_validate(value), problems
        except ValidationError as error:
            details = error.errors(include_url=False)
        if first:
            problems = [_problem(detail, tree, file) for detail in details]
            first = False
        for detail in reversed(details):
            if not (_fill_in(value, _path(detail)) or _prune(value, _path(detail))):
                return None, problems


def _fill_in(value: Any, path: DocumentPath) -> bool:
    """Put something valid where nothing else could be checked without it."""
    stand_in = _STAND_INS.get((len(path), path[-1] if len(path) != 4 else "stage")) if path else None
    if stand_in is None:
        return False
    for part in path[:-1]:
        value = value[part]
    value[path[-1]] = copy.copy(stand_in)
    return True


_STAND_INS: dict[tuple[int, str | int], Any] = {
    (1, "version"): 1,
    (1, "project"): "unnamed",
    (4, "stage"): {"notebook": "unnamed.ipynb"},
    (5, "notebook"): "unnamed.ipynb",
}


def _path(detail: Any) -> DocumentPath:
    loc: DocumentPath = tuple(detail["loc"])
    if loc and loc[-1] == "[key]":
        loc = loc[:-1]
    return loc


def _prune(value: Any, path: DocumentPath) -> bool:
    """Take out what stands at ``path``, or, where it is missing, what should have held it."""
    holders = [value]
    for part in path[:-1]:
        try:
            holders.append(holders[-1][part])
        except (KeyError, IndexError, TypeError):
            break
    for depth in range(len(holders) - 1, -1, -1):
        if depth >= len(path):
            continue
        holder, part = holders[depth], path[depth]
        if isinstance(holder, dict) and part in holder:
            del holder[part]
            return True
        if isinstance(holder, list) and isinstance(part, int) and part < len(holder):
            del holder[part]
            return True
    return False


def _problem(detail: Any, tree: Tree, file: str) -> Problem:
    path = _path(detail)
    kind = detail["type"]
    place = tree.place(path[:-1] if kind == "missing" else path)
    where = str(place) if place else file
    if kind == "missing":
        return Problem(f"{path[-1]!r} is missing here", where, dotted(path), f"add {path[-1]}: …")
    if kind == "extra_forbidden":
        fix = suggest(str(path[-1]), _valid_keys(path), "key")
        return Problem(f"unknown key {path[-1]!r}", where, dotted(path), fix)
    if kind == "value_error":
        return Problem(str(detail["ctx"]["error"]), where, dotted(path))
    if path == ("version",) and kind != "int_type":
        message = f"this nbtools reads version 1 of the format, not {_shown(detail['input'])}"
        return Problem(message, where, dotted(path), "update nbtools, or write version: 1")
    wanted = _WANTED.get(kind) or detail["msg"].replace("Input should be", "").strip()
    return Problem(f"this must be {wanted}, not {_shown(detail['input'])}", where, dotted(path))


_WANTED = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a mapping (name: value)",
    "list_type": "a list",
    "model_type": "a mapping (name: value)",
    "string_too_short": "a text that is not empty",
    "too_short": "at least one entry",
}


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


_SECTIONS = {"defaults": DefaultsEntry, "kernels": KernelsEntry, "tracking": TrackingEntry}


def _valid_keys(path: DocumentPath) -> list[str]:
    model: Any = Document
    if (path[:2] == ("defaults", "resources") and len(path) > 2) or (
        path[4:5] == ("resources",) and len(path) > 5
    ):
        model = ResourcesEntry
    elif path[0] == "data":
        model = DatasetEntry
    elif path[0] in _SECTIONS and len(path) > 1:
        model = _SECTIONS[str(path[0])]
    elif path[0] == "pipelines" and len(path) > 1:
        model = StageEntry if len(path) > 3 else PipelineEntry
    return [field.alias or name for name, field in model.model_fields.items()]
