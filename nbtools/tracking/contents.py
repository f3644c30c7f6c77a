"""Whether two files say the same, though their bytes differ: tables, JSON and arrays within a tolerance."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

_READERS: dict[str, Callable[[Any, Path], Any]] = {
    ".parquet": lambda pd, path: pd.read_parquet(path),
    ".pq": lambda pd, path: pd.read_parquet(path),
    ".feather": lambda pd, path: pd.read_feather(path),
    ".arrow": lambda pd, path: pd.read_feather(path),
    ".csv": lambda pd, path: pd.read_csv(path),
    ".csv.gz": lambda pd, path: pd.read_csv(path, compression="gzip"),
    ".tsv": lambda pd, path: pd.read_csv(path, sep="\t"),
    ".jsonl": lambda pd, path: pd.read_json(path, lines=True),
}


class Unreadable(Exception):
    """The file is no table, or a damaged one; ``args[0]`` says which."""


def read_table(path: Path, name: str) -> Any:
    """Return the table in a file, as a DataFrame.

    Parameters
    ----------
    name
        What the file is called: its ending tells its format.

    Raises
    ------
    Unreadable
        If it holds none.
    """
    lower = name.lower()
    reader = next((read for ending, read in _READERS.items() if lower.endswith(ending)), None)
    if reader is None and not path.is_dir():
        raise Unreadable("it is no table")
    import pandas as pd

    try:
        return reader(pd, path) if reader else pd.read_parquet(path)
    except Exception as error:  # whatever a damaged file raises
        raise Unreadable(f"it cannot be read: {type(error).__name__}: {error}") from error


def first_difference(before: Path, after: Path, name: str, rtol: float) -> str:
    """Return what differs first between two files, in words; an empty string if nothing does beyond ``rtol``.

    Parameters
    ----------
    name
        What the files are called: its ending tells their format.
    rtol
        How far two numbers may be apart, relative to the larger one.
    """
    if before.is_dir() and after.is_dir() and not name.lower().endswith((".parquet", ".pq")):
        return _folders(before, after, rtol)
    if before.is_dir() != after.is_dir():
        return "one is a file, the other a folder"
    if name.lower().endswith(".json"):
        return _json(before, after, rtol)
    if name.lower().endswith(".npy"):
        return _arrays(before, after, rtol)
    try:
        old, new = read_table(before, name), read_table(after, name)
    except Unreadable as error:
        return "" if _same_bytes(before, after) else f"its bytes differ, and {error}"
    return tables(old, new, rtol)


def tables(before: Any, after: Any, rtol: float) -> str:
    """Return what differs first between two DataFrames; an empty string if nothing does beyond ``rtol``."""
    if said := _names([str(name) for name in before.columns], [str(name) for name in after.columns]):
        return said
    if len(before) != len(after):
        return f"it has {len(after):,} rows, not {len(before):,}"
    for position, name in enumerate(before.columns):
        if said := _columns(before.iloc[:, position], after.iloc[:, position], rtol):
            return f"column {str(name)!r}: {said}"
    return ""


def _names(before: list[str], after: list[str]) -> str:
    for names, others, what in ((before, after, "gone"), (after, before, "new")):
        for name in names:
            if name not in others:
                return f"column {name!r} is {what}"
    return "" if before == after else "its columns stand in another order"


def _columns(before: Any, after: Any, rtol: float) -> str:
    import numpy as np
    from pandas.api.types import is_float_dtype

    if before.dtype != after.dtype:
        return f"its type is {after.dtype}, not {before.dtype}"
    old, new = before.reset_index(drop=True), after.reset_index(drop=True)
    if is_float_dtype(before.dtype):
        left, right = (item.to_numpy(dtype=float, na_value=math.nan) for item in (old, new))
        differs = ~np.isclose(right, left, rtol=rtol, atol=0.0, equal_nan=True)
    else:
        # As texts, values that hold arrays can be compared, too.
        texts = (item.astype(object).where(item.notna(), None).astype(str).to_numpy() for item in (old, new))
        left, right = texts
        differs = left != right
    if not differs.any():
        return ""
    row = int(differs.argmax())
    return f"{int(differs.sum()):,} of {len(old):,} rows differ, first row {row}: {old.iloc[row]!r} → {new.iloc[row]!r}"


def _arrays(before: Path, after: Path, rtol: float) -> str:
    import numpy as np

    try:
        old, new = np.load(before, allow_pickle=False), np.load(after, allow_pickle=False)
    except (OSError, ValueError) as error:
        return f"its bytes differ, and it cannot be read: {error}"
    if old.shape != new.shape or old.dtype != new.dtype:
        return f"it is {new.dtype}{list(new.shape)}, not {old.dtype}{list(old.shape)}"
    if np.issubdtype(old.dtype, np.inexact):
        differs = ~np.isclose(new, old, rtol=rtol, atol=0.0, equal_nan=True)
    else:
        differs = old != new
    return f"{int(differs.sum()):,} of {old.size:,} values differ" if differs.any() else ""


def _json(before: Path, after: Path, rtol: float) -> str:
    try:
        old, new = (json.loads(path.read_bytes()) for path in (before, after))
    except (OSError, ValueError):
        return "" if _same_bytes(before, after) else "its bytes differ, and it is no JSON"
    return values(old, new, rtol)


def values(before: Any, after: Any, rtol: float, where: str = "") -> str:
    """Return what differs first between two JSON values; an empty string if nothing does beyond ``rtol``.

    >>> values({"auc": [0.5, 1.0]}, {"auc": [0.5, 2.0]}, 1e-6)
    'auc[1]: 1.0 → 2.0'
    """
    if isinstance(before, dict) and isinstance(after, dict):
        for name in [*before, *after]:
            place = f"{where}.{name}" if where else str(name)
            if name not in after or name not in before:
                return f"{place} is {'gone' if name in before else 'new'}"
            if said := values(before[name], after[name], rtol, place):
                return said
        return ""
    if isinstance(before, list) and isinstance(after, list):
        for number, (old, new) in enumerate(zip(before, after, strict=False)):
            if said := values(old, new, rtol, f"{where}[{number}]"):
                return said
        return (
            ""
            if len(before) == len(after)
            else f"{where or 'the list'}: {len(before)} → {len(after)} entries"
        )
    same = before == after and isinstance(before, bool) == isinstance(after, bool)
    return "" if same or close(before, after, rtol) else f"{where or 'the value'}: {before!r} → {after!r}"


def close(before: Any, after: Any, rtol: float) -> bool:
    """Tell whether two numbers are equal within ``rtol``; NaN equals NaN, and what is no number equals nothing."""
    numbers = (int, float)
    if not isinstance(before, numbers) or not isinstance(after, numbers):
        return False
    if isinstance(before, bool) or isinstance(after, bool):
        return False
    both_missing = before != before and after != after
    return both_missing or math.isclose(before, after, rel_tol=rtol, abs_tol=0.0)


def _folders(before: Path, after: Path, rtol: float) -> str:
    old, new = (
        {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        for folder in (before, after)
    )
    for name in sorted({*old, *new}):
        if name not in new or name not in old:
            return f"{name} is {'gone' if name in old else 'new'}"
        if not _same_bytes(old[name], new[name]) and (
            said := first_difference(old[name], new[name], name, rtol)
        ):
            return f"{name}: {said}"
    return ""


def _same_bytes(before: Path, after: Path) -> bool:
    import filecmp

    return filecmp.cmp(before, after, shallow=False)
