"""How the code of two notebooks differs, cell by cell: nbdime says which cells belong together."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from nbtools.pipeline.explain import CellChange
from nbtools.pipeline.notebook import INJECTED


def cell_changes(old: str, new: str) -> tuple[CellChange, ...]:
    """Return the code cells that were changed, added or removed between two notebooks (JSON texts).

    Outputs, metadata, markdown and injected params do not count; cells are numbered as in the notebook that is shown.

    Raises
    ------
    ValueError
        If one of them is no notebook.
    """
    from nbdime.diffing.notebooks import diff_notebooks

    before, after = _code_only(old), _code_only(new)
    operations: Any = next((item.diff for item in diff_notebooks(before, after) if item.key == "cells"), [])
    return tuple(_changes(operations, before.cells, after.cells))


def _changes(operations: Any, before: Any, after: Any) -> Iterator[CellChange]:
    shift = 0  # how many more cells the new notebook has up to here
    for operation in operations:
        position = operation.key
        if operation.op == "addrange":
            for offset, cell in enumerate(operation.valuelist):
                yield _change("added", position + shift + offset + 1, "", cell.source)
            shift += len(operation.valuelist)
        elif operation.op == "removerange":
            for offset in range(operation.length):
                yield _change("removed", position + offset + 1, before[position + offset].source, "")
            shift -= operation.length
        elif before[position].source != after[position + shift].source:
            number = position + shift + 1
            yield _change("changed", number, before[position].source, after[number - 1].source)


def _change(kind: str, number: int, was: str, now: str) -> CellChange:
    lines = difflib.unified_diff(
        was.splitlines(), now.splitlines(), f"cell {number} then", f"cell {number} now", lineterm="", n=2
    )
    return CellChange(kind, number, "\n".join(lines))


def _code_only(text: str) -> Any:
    """Return a notebook that has nothing but the sources of its code cells."""
    import nbformat

    try:
        notebook = nbformat.reads(text, as_version=4)
    except Exception as error:
        raise ValueError(f"it is no notebook: {error}") from error
    cells = [
        # Ids say which cells are the same; a notebook without them gets random ones, which say nothing.
        nbformat.v4.new_code_cell(cell.source, **({"id": cell.id} if "id" in cell else {}))
        for cell in notebook.cells
        if cell.cell_type == "code" and INJECTED not in cell.metadata.get("tags", [])
    ]
    return nbformat.v4.new_notebook(cells=cells)
