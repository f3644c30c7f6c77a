"""What a file of data holds, as far as that can be told without reading it whole: columns, their types, rows."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Rows of larger texts are not counted: all of them would have to be read.
_LARGEST_TEXT = 64 << 20
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

    Of Parquet only the footers are read, of CSV all up to 64 MiB, and else the beginning.

    Parameters
    ----------
    name
        What it is called, if its own name does not tell its format.
    """
    try:
        if path.is_dir():
            return _folder(path)
        return _file(path, (name or path.name).lower())
    except Exception:  # noqa: BLE001 - whatever a damaged file makes Arrow raise; to tell so is not the task here
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
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        return Description(file.metadata.num_rows, _columns(file.schema_arrow))


def _arrow(path: Path) -> Description:
    import pyarrow.dataset

    found = pyarrow.dataset.dataset(path, format="feather")
    return Description(found.count_rows(), _columns(found.schema))


def _csv(path: Path, name: str) -> Description:
    import pyarrow
    import pyarrow.csv

    compression = "gzip" if name.endswith(".gz") else None
    delimiter = "\t" if ".tsv" in name else ","
    options = pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    with pyarrow.input_stream(str(path), compression=compression) as stream:
        reader = pyarrow.csv.open_csv(stream, parse_options=options)
        columns = _columns(reader.schema)
        if path.stat().st_size > _LARGEST_TEXT:
            return Description(None, columns)
        try:
            return Description(sum(batch.num_rows for batch in reader), columns)
        except pyarrow.ArrowInvalid:  # a later value is of another type than the first ones
            return Description(None, columns)


def _columns(schema: Any) -> dict[str, str]:
    return {item.name: str(item.type) for item in itertools.islice(schema, _MOST_COLUMNS)}
