"""What a file of data holds, as far as that can be told without reading it whole: columns, their types, rows."""

from __future__ import annotations

import csv
import gzip
import itertools
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbtools.execution.parquet_footer import read_footer

#: Rows of larger texts are not counted: all of them would have to be read.
_LARGEST_TEXT = 8 << 20
#: The types of their columns are those of so many rows.
_LOOKED_AT = 1_000
_MOST_COLUMNS = 10_000


@dataclass(frozen=True, slots=True)
class Description:
    """What a dataset holds.

    Parameters
    ----------
    rows
        None where nobody has counted them, or there are none.
    columns
        Type by name, as Arrow calls it; empty if it is no table.
    """

    rows: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Return what is known as JSON-ready values."""
        known = {"rows": self.rows} if self.rows is not None else {}
        return {**known, **({"columns": dict(self.columns)} if self.columns else {})}


def describe(path: Path, name: str = "") -> Description:
    """Return what the file or folder at ``path`` holds; nothing is known of one that cannot be read.

    Of Parquet only the footers are read, of CSV all up to 8 MiB, and else the beginning.

    Parameters
    ----------
    name
        What it is called, if its own name does not tell its format.
    """
    try:
        if path.is_dir():
            return _folder(path)
        return _file(path, (name or path.name).lower())
    except Exception:  # noqa: BLE001 - whatever a damaged file raises; to tell so is not the task here
        return Description()


def _folder(path: Path) -> Description:
    found = [describe(part) for part in sorted(path.rglob("*.parquet"))]
    if not found:
        return Description()
    rows = [item.rows for item in found if item.rows is not None]
    return Description(sum(rows) if len(rows) == len(found) else None, found[0].columns)


def _file(path: Path, name: str) -> Description:
    if name.endswith((".parquet", ".pq")):
        return _parquet(path)
    if name.endswith((".feather", ".arrow", ".ipc")):
        return _arrow(path)
    if name.endswith((".csv", ".tsv", ".csv.gz", ".tsv.gz")):
        return _csv(path, name)
    if name.endswith((".jsonl", ".ndjson")) and path.stat().st_size <= _LARGEST_TEXT:
        with open(path, "rb") as stream:
            return Description(sum(1 for line in stream if line.strip()))
    return Description()


def _parquet(path: Path) -> Description:
    rows, columns = read_footer(path)
    return Description(rows, dict(itertools.islice(columns.items(), _MOST_COLUMNS)))


def _arrow(path: Path) -> Description:
    import pyarrow.dataset

    found = pyarrow.dataset.dataset(path, format="feather")
    return Description(found.count_rows(), _columns(found.schema))


def _csv(path: Path, name: str) -> Description:
    opened = gzip.open if name.endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as stream:
        lines = csv.reader(stream, delimiter="\t" if ".tsv" in name else ",")
        names = next(lines, [])
        first = [row for row in itertools.islice(lines, _LOOKED_AT) if row]
        types = {name: _type_of([row[at] for row in first if at < len(row)]) for at, name in enumerate(names)}
        counted = path.stat().st_size <= _LARGEST_TEXT
        rows = len(first) + sum(1 for row in lines if row) if counted else None
    return Description(rows, dict(itertools.islice(types.items(), _MOST_COLUMNS)))


def _type_of(texts: list[str]) -> str:
    """Return what the values of a column are, by those that have been looked at."""
    given = [text for text in texts if text]
    for name, kind in (("int64", int), ("double", float)):
        with suppress(ValueError):
            for text in given:
                kind(text)
            return name if given else "null"
    return "string"


def _columns(schema: Any) -> dict[str, str]:
    return {item.name: str(item.type) for item in itertools.islice(schema, _MOST_COLUMNS)}
