"""What a notebook's code says: cells, params, imports and a digest that ignores what does not run.

Rules of this file: text in, values out; no I/O. Comments, blank lines, formatting, markdown,
outputs and metadata do not count, because code cells are compared as syntax trees.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

#: Part of every fingerprint: raise it when the meaning of a digest changes.
DIGEST_VERSION = 2

#: papermill's tag of the cell that it adds.
INJECTED = "injected-parameters"

_PYTHON_CELL_MAGICS = {"time", "timeit", "capture", "prun", "memray_flamegraph", "mprun", "lprun"}
_MAGIC_LINE = re.compile(r"^(\s*)(?:[%!?].*|[\w.]+\?{1,2}|(?:[\w.,\s\[\]]+=\s*)[%!].+)$")
_MAGIC = "__magic__"
_RUN_MAGIC = re.compile(r"%run\s+(?:-[^\s]+\s+)*['\"]?(?P<file>[\w./-]+?)(?:\.py)?['\"]?(?:\s|$)")
_IMPORT_LINE = re.compile(r"^[ \t]*(?:import|from)[ \t]+([A-Za-z_][\w.]*).*$", re.MULTILINE)
_PYTHON_ASSIGNMENT = re.compile(r"^([^\W\d]\w*)\s*(?::[^=]+)?=(?!=)", re.MULTILINE)
_OTHER_ASSIGNMENT = re.compile(r"^\s*([A-Za-z_.][\w.]*)\s*(?:=|<-)(?!=)", re.MULTILINE)


class NotebookFormatError(ValueError):
    """The text is no notebook that nbtools can run; the message says why, ``fix`` what to do."""

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.fix = fix


@dataclass(frozen=True, slots=True)
class CodeCell:
    """A code cell.

    Parameters
    ----------
    number
        Position among the notebook's code cells, from 1.
    index
        Position among all cells, from 0.
    digest
        Of the code that runs; empty when the cell holds only comments and blank lines.
    """

    number: int
    index: int
    source: str
    digest: str
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NotebookFacts:
    """What planning needs to know of a notebook.

    Parameters
    ----------
    digests
        One for each code cell, in order; empty where nothing runs.
    parameters_cell
        Number of the cell tagged ``parameters``; 0 when there is none.
    parameters
        Names assigned in that cell, in order, with the kind of their default: ``bool``, ``int``,
        ``float``, ``str``, ``list``, ``dict``, or an empty text when anything may stand there.
    imports
        Dotted names of the modules that the code imports, sorted.
    other_parameters_cells
        Numbers of more cells that are tagged so.
    language, kernel
        As the notebook's metadata say; an empty language when only the kernel itself knows.
    """

    digests: tuple[str, ...]
    parameters_cell: int = 0
    parameters: Mapping[str, str] = field(default_factory=dict)
    imports: tuple[str, ...] = ()
    language: str = "python"
    kernel: str = ""
    other_parameters_cells: tuple[int, ...] = ()

    @property
    def code(self) -> tuple[str, ...]:
        """Digests of the cells that run, in order."""
        return tuple(filter(None, self.digests))


def read(text: str) -> NotebookFacts:
    """Return the facts of the notebook in ``text``.

    Raises
    ------
    NotebookFormatError
        If it is not JSON, not a notebook, or of a format older than 4.
    """
    document = _document(text)
    language, kernel = _language(document)
    python = language == "python"
    cells = tuple(_code_cells(document["cells"], python))
    tagged = [cell for cell in cells if "parameters" in cell.tags]
    return NotebookFacts(
        digests=tuple(cell.digest for cell in cells),
        parameters_cell=tagged[0].number if tagged else 0,
        parameters=_assigned(tagged[0].source, python) if tagged else {},
        imports=tuple(sorted({name for cell in cells for name in imports(cell.source)})) if python else (),
        language=language,
        kernel=kernel,
        other_parameters_cells=tuple(cell.number for cell in tagged[1:]),
    )


def code_cells(text: str) -> tuple[CodeCell, ...]:
    """Return the code cells of the notebook in ``text``; raises as ``read`` does."""
    document = _document(text)
    return tuple(_code_cells(document["cells"], _language(document)[0] == "python"))


def encode(facts: NotebookFacts) -> str:
    """Return ``facts`` as JSON, for keeping."""
    return json.dumps([getattr(facts, name) for name in NotebookFacts.__slots__])


def decode(text: str) -> NotebookFacts:
    """Return what ``encode`` was given."""
    digests, parameters_cell, parameters, names, language, kernel, others = json.loads(text)
    return NotebookFacts(
        tuple(digests), parameters_cell, parameters, tuple(names), language, kernel, tuple(others)
    )


def _language(document: Mapping[str, Any]) -> tuple[str, str]:
    metadata = _mapping(document.get("metadata"))
    kernelspec = _mapping(metadata.get("kernelspec"))
    info = _mapping(metadata.get("language_info"))
    kernel = str(kernelspec.get("name") or "")
    language = str(info.get("name") or kernelspec.get("language") or "").lower()
    if not language and (not kernel or "py" in kernel.lower()):
        language = "python"
    return ("python" if language in ("ipython", "python3") else language), kernel


def _document(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        place = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise NotebookFormatError(
            f"this is not a notebook: it is not valid JSON{place}", "open it in Jupyter and save it again"
        ) from error
    if not isinstance(document, dict):
        raise NotebookFormatError("this is not a notebook: its JSON is no object")
    major = document.get("nbformat", 4)
    if "worksheets" in document or (isinstance(major, int) and major < 4):
        raise NotebookFormatError(
            f"this notebook has the old format {document.get('nbformat', 3)}; nbtools needs format 4",
            "run: jupyter nbconvert --to notebook --inplace NOTEBOOK",
        )
    if major != 4:
        raise NotebookFormatError(f"this notebook has the unknown format {major!r}; nbtools needs format 4")
    if not isinstance(document.get("cells"), list):
        raise NotebookFormatError("this is not a notebook: it has no cells")
    return document


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _code_cells(cells: list[Any], python: bool) -> Iterator[CodeCell]:
    number = 0
    for index, cell in enumerate(map(_mapping, cells)):
        if cell.get("cell_type") != "code":
            continue
        tags = _mapping(cell.get("metadata")).get("tags")
        labels = tuple(map(str, tags)) if isinstance(tags, list) else ()
        if INJECTED in labels:
            continue  # papermill replaces what an earlier run left there
        number += 1
        source = cell.get("source", "")
        text = "".join(map(str, source)) if isinstance(source, list) else str(source)
        digest = code_digest(text) if python else _text_digest(text)
        yield CodeCell(number, index, text, digest, labels)


def code_digest(source: str) -> str:
    """Return a digest of the code in ``source``, which may hold IPython magics; empty if nothing runs.

    >>> code_digest("x = 1  # one") == code_digest("x=1")
    True
    >>> code_digest("# nothing")
    ''
    """
    tree = _tree(source)
    if tree is None:
        return _text_digest(source)
    if not tree.body:
        return ""
    try:
        return _sha256(ast.dump(tree, annotate_fields=False))
    except RecursionError:
        return _text_digest(source)


def imports(source: str) -> frozenset[str]:
    """Return the dotted names of the modules that ``source`` imports; relative imports keep their dots.

    >>> sorted(imports("import a.b; from c import d"))
    ['a.b', 'c', 'c.d']
    """
    tree = _tree(source)
    if tree is None:
        return _imports_by_line(source)
    return frozenset(name for node in ast.walk(tree) for name in _imported(node))


def _imports_by_line(source: str) -> frozenset[str]:
    """Return what the lines of ``source`` import that are import statements, whatever stands around them."""
    found: set[str] = set()
    for match in _IMPORT_LINE.finditer(source):
        line = match.group().strip()
        found |= {match.group(1)} if _tree(line) is None else imports(line)
    return frozenset(found)


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = "." * node.level + (node.module or "")
        yield base
        joint = "" if base.endswith(".") else "."
        yield from (f"{base}{joint}{alias.name}" for alias in node.names if alias.name != "*")
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == _MAGIC:
        yield from _run_by_magic(node)
    elif isinstance(node, ast.Call) and _imports_by_name(node.func):
        first = node.args[0] if node.args else None
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            yield first.value


def _run_by_magic(call: ast.Call) -> Iterator[str]:
    """Yield the module that is the file of ``%run file.py``: it counts as if it were imported."""
    first = call.args[0] if call.args else None
    line = first.value if isinstance(first, ast.Constant) else None
    if isinstance(line, str) and (found := _RUN_MAGIC.match(line)):
        yield found["file"].removeprefix("./").replace("/", ".")


def _imports_by_name(function: ast.expr) -> bool:
    if isinstance(function, ast.Attribute):
        holder = function.value
        return function.attr == "import_module" and isinstance(holder, ast.Name) and holder.id == "importlib"
    return isinstance(function, ast.Name) and function.id in ("__import__", "import_module")


def _tree(source: str) -> ast.Module | None:
    with warnings.catch_warnings():
        # An odd escape in a text is the notebook's own affair, and must not change its digest.
        warnings.simplefilter("ignore")
        for text in (source, _without_magics(source)):
            try:
                return ast.parse(text)
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                continue
    return None


def _without_magics(source: str) -> str:
    """Return Python that has the magics of ``source`` as calls, so that they still count."""
    lines = source.splitlines()
    first = next((number for number, line in enumerate(lines) if line.strip()), None)
    if first is not None and lines[first].startswith("%%"):
        name = lines[first][2:].split(maxsplit=1)[0] if lines[first][2:].split() else ""
        if name not in _PYTHON_CELL_MAGICS:
            return f"{_MAGIC}({source!r})"
        lines[first] = f"{_MAGIC}({lines[first]!r})"
    return "\n".join(map(_as_call, lines))


def _as_call(line: str) -> str:
    match = _MAGIC_LINE.match(line)
    return f"{match.group(1)}{_MAGIC}({line.strip()!r})" if match else line


def _assigned(source: str, python: bool) -> dict[str, str]:
    if not python:
        return dict.fromkeys(_OTHER_ASSIGNMENT.findall(source), "")
    tree = _tree(source)
    if tree is None:
        return dict.fromkeys(_PYTHON_ASSIGNMENT.findall(source), "")
    found: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            names = [
                item.id
                for target in node.targets
                for item in ast.walk(target)
                if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store)
            ]
            plain = all(isinstance(target, ast.Name) for target in node.targets)
            found.update(dict.fromkeys(names, _kind(node.value) if plain else ""))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            annotation = node.annotation.id if isinstance(node.annotation, ast.Name) else ""
            found[node.target.id] = annotation if annotation in _KINDS else ""
    return found


_KINDS = ("bool", "int", "float", "str", "list", "dict")


def _kind(value: ast.expr) -> str:
    try:
        name = type(ast.literal_eval(value)).__name__
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return ""
    return name if name in _KINDS else ""


def _text_digest(source: str) -> str:
    lines = [line.rstrip() for line in source.strip().splitlines()]
    return _sha256("\n".join(lines)) if any(lines) else ""


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
