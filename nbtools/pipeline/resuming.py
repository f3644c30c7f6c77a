"""Whether a stage may go on at its failed cell: the cells before it are not run again, so nothing that they depend on may differ.

Rules of this file: no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nbtools.pipeline.fingerprint import Ingredients, differences


def why_not_resumed(
    then: Ingredients, now: Ingredients, cells_before: Sequence[str], cells: Sequence[str]
) -> tuple[str, ...]:
    """Return what has changed since the failure that the kernel's variables depend on.

    Parameters
    ----------
    then, now
        What the result would have depended on when the cell failed, and what it depends on now.
    cells_before
        Digests of the code cells before the failed one, as they ran.
    cells
        Digests of all code cells of the notebook now.
    """
    found = [str(change) for change in differences(then, replace(now, code=then.code))]
    for number, digest in enumerate(cells_before, 1):
        if number > len(cells):
            return (*found, "cells before the failed one were removed")
        if cells[number - 1] != digest:
            return (*found, f"cell {number}, before the failed one, changed")
    return tuple(found)
