"""What came of a stage that was run again, compared with what it had made.

Rules of this file: no I/O.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from nbtools.pipeline.notebook import INJECTED
from nbtools.tracking.contents import close

_SHOWN = 60


@dataclass(frozen=True, slots=True)
class StageVerdict:
    """How a repeated stage compares.

    Parameters
    ----------
    verdict
        ``identical`` (the same bytes and metrics), ``equal`` (within the tolerance), ``different``, ``failed`` or
        ``not run``.
    differences
        What differs, in words, what comes first in the notebook first.
    """

    stage: str
    verdict: str
    differences: tuple[str, ...] = ()

    @property
    def is_reproduced(self) -> bool:
        """Whether it made the same again."""
        return self.verdict in ("identical", "equal")


@dataclass(frozen=True, slots=True)
class OutputComparison:
    """An output of the two runs: ``difference`` is empty where a closer look at other bytes found none."""

    dataset: str
    same_bytes: bool
    difference: str = ""


def judge(
    stage: str,
    outputs: Sequence[OutputComparison],
    before: Mapping[str, float],
    after: Mapping[str, float],
    rtol: float,
    ignored: Collection[str] = (),
) -> StageVerdict:
    """Return the verdict on a stage that ran to its end.

    Parameters
    ----------
    before, after
        Metrics.
    rtol
        How far two numbers may be apart, relative to the larger one.
    ignored
        Metrics and datasets that may differ; ``*`` stands for any text.
    """
    looked_at = [item for item in outputs if not _matches(item.dataset, ignored)]
    differences = [f"{item.dataset}: {item.difference}" for item in looked_at if item.difference]
    names = [name for name in dict.fromkeys([*before, *after]) if not _matches(name, ignored)]
    changed = [name for name in names if not _same(before.get(name), after.get(name))]
    differences += [
        f"metric {name}: {_shown(before.get(name))} → {_shown(after.get(name))}"
        for name in changed
        if not close(before.get(name), after.get(name), rtol)
    ]
    if differences:
        return StageVerdict(stage, "different", tuple(differences))
    within = [item.dataset for item in looked_at if not item.same_bytes]
    if within or changed:
        said = [f"{name}: other bytes, the same content" for name in within]
        said += [f"metric {name}: {_shown(before[name])} → {_shown(after[name])}" for name in changed]
        return StageVerdict(stage, "equal", tuple(said))
    return StageVerdict(stage, "identical")


def _matches(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _same(before: float | None, after: float | None) -> bool:
    return before == after or (
        before is not None and after is not None and before != before and after != after
    )


def _shown(value: float | None) -> str:
    return "none" if value is None else repr(value)


def first_different_cell(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Return what differs first in two executed notebooks, in words; an empty string if nothing does.

    Parameters
    ----------
    before, after
        Notebooks as JSON values.
    """
    old, new = _code_cells(before), _code_cells(after)
    for number, (left, right) in enumerate(zip(old, new, strict=False), 1):
        if _text(left.get("source")) != _text(right.get("source")):
            return f"code cell {number} has another source"
        said, says = _printed(left), _printed(right)
        if said != says:
            return f"code cell {number} put out something else: {_first(said, says)}"
    return "" if len(old) == len(new) else f"the notebook has {len(new)} code cells, not {len(old)}"


def _code_cells(notebook: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the code cells that the notebook had before: numbers are those of the source."""
    found = [cell for cell in notebook.get("cells", ()) if cell.get("cell_type") == "code"]
    return [cell for cell in found if INJECTED not in cell.get("metadata", {}).get("tags", ())]


def _printed(cell: Mapping[str, Any]) -> str:
    """Return what people see of a cell's outputs, as text; pictures by their bytes."""
    parts = []
    for output in cell.get("outputs", ()):
        data = output.get("data", {})
        shown = data.get("text/plain", "")
        pictures = [str(value) for kind, value in sorted(data.items()) if kind.startswith("image/")]
        parts += [_text(output.get("text")), _text(shown), *pictures]
    return "".join(parts)


def _first(before: str, after: str) -> str:
    """Return the first line that differs, then and now."""
    old, new = before.splitlines(), after.splitlines()
    for number in range(max(len(old), len(new))):
        pair = [lines[number] if number < len(lines) else "nothing" for lines in (old, new)]
        if pair[0] != pair[1]:
            return f"{_cut(pair[0])!r} → {_cut(pair[1])!r}"
    return "its line ends"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _text(value: Any) -> str:
    return "".join(value) if isinstance(value, list) else str(value or "")
