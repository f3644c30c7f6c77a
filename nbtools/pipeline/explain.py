"""Why a stage runs, in detail: which cell, which param, which input, which module, which package.

Rules of this file: no I/O; old and new notebooks come in as cells.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from nbtools.pipeline.fingerprint import Difference
from nbtools.pipeline.notebook import CodeCell


@dataclass(frozen=True, slots=True)
class CellChange:
    """A code cell that was changed, added or removed.

    Parameters
    ----------
    kind
        ``changed``, ``added`` or ``removed``.
    number
        Of the cell now; for a removed one, of the cell then.
    diff
        Unified diff of the source.
    """

    kind: str
    number: int
    diff: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that ``nbtools why`` tells about a stage."""

    stage: str
    action: str
    reasons: tuple[str, ...]
    compared_with: str = ""
    compared_at: float = 0.0
    differences: tuple[Difference, ...] = ()
    cells: tuple[CellChange, ...] = ()


def cell_changes(old: Sequence[CodeCell], new: Sequence[CodeCell]) -> tuple[CellChange, ...]:
    """Return how the code cells differ; cells that only differ in what does not run are the same."""
    before = [cell for cell in old if cell.digest]
    after = [cell for cell in new if cell.digest]
    matcher = difflib.SequenceMatcher(
        None, [cell.digest for cell in before], [cell.digest for cell in after], autojunk=False
    )
    found: list[CellChange] = []
    for tag, old_from, old_to, new_from, new_to in matcher.get_opcodes():
        if tag == "equal":
            continue
        pairs = max(old_to - old_from, new_to - new_from)
        for offset in range(pairs):
            was = before[old_from + offset] if old_from + offset < old_to else None
            now = after[new_from + offset] if new_from + offset < new_to else None
            found.append(_change(was, now))
    return tuple(found)


def _change(was: CodeCell | None, now: CodeCell | None) -> CellChange:
    number = now.number if now else was.number if was else 0
    kind = "changed" if was and now else "added" if now else "removed"
    lines = difflib.unified_diff(
        was.source.splitlines() if was else [],
        now.source.splitlines() if now else [],
        f"cell {was.number} then" if was else "nothing",
        f"cell {now.number} now" if now else "nothing",
        lineterm="",
        n=2,
    )
    return CellChange(kind, number, "\n".join(lines))
