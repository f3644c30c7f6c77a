"""Reads a dataset and validates it with pandera. Imported only by the process that ``contracts`` starts."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pandera.pandas as pa
from pandera.errors import SchemaError, SchemaErrors

_READERS = {
    ".parquet": pd.read_parquet,
    ".feather": pd.read_feather,
    ".csv": pd.read_csv,
    ".gz": pd.read_csv,
    ".tsv": lambda path: pd.read_csv(path, sep="\t"),
    ".json": pd.read_json,
    ".jsonl": lambda path: pd.read_json(path, lines=True),
    ".pkl": None,
}
_EXAMPLES = 5
_MOST_CHECKS = 20


class UnusableSchema(Exception):
    """The schema itself cannot be loaded; ``args[0]`` says why."""


def violations(path: str, file: str, name: str, root: str) -> str:
    """Return every violated check with column and example rows; an empty string if there is none.

    Raises
    ------
    UnusableSchema
        If the user's file does not hold such a schema.
    """
    reader = _READERS.get(Path(path).suffix.lower()) if not Path(path).is_dir() else pd.read_parquet
    if reader is None:
        return f"nbtools cannot read {Path(path).suffix or 'this kind of'} files to validate them"
    try:
        schema = _schema(file, name, root)
    except Exception as error:
        raise UnusableSchema(f"{type(error).__name__}: {error}") from error
    try:
        data = reader(path)
    except Exception as error:  # noqa: BLE001 - whatever a damaged file raises
        return f"the data cannot be read: {type(error).__name__}: {error}"
    try:
        schema.validate(data, lazy=True)
    except SchemaErrors as errors:
        return _described(errors.failure_cases, data)
    except SchemaError as error:
        return str(error)
    return ""


def _schema(file: str, name: str, root: str) -> Any:
    folders = [str(Path(file).parent), root]
    sys.path[:0] = folders
    try:
        schema = runpy.run_path(file)[name]
    except KeyError:
        raise NameError(f"there is no {name!r} in it") from None
    finally:
        del sys.path[: len(folders)]
    if isinstance(schema, type) and issubclass(schema, pa.DataFrameModel):
        return schema.to_schema()
    if not hasattr(schema, "validate"):
        raise TypeError(f"{name!r} is no pandera schema")
    return schema


def _described(cases: Any, data: Any) -> str:
    # A check of whole rows or tables is reported once for each column; it is one violation.
    whole = cases["schema_context"] == "DataFrameSchema"
    places = cases["column"].astype(object).where(~whole, other=None)
    lines = []
    groups = list(cases.groupby([places, "check"], dropna=False, sort=False))
    for (column, check), group in groups[:_MOST_CHECKS]:
        if check == "column_in_dataframe":
            lines.append(f"missing columns: {', '.join(map(str, group['failure_case']))}")
            continue
        place = f"column {column!r}" if isinstance(column, str) else "the table"
        rows = list(dict.fromkeys(index for index in group["index"] if index == index and index is not None))
        count = f", {len(rows)} row{'s' * (len(rows) != 1)}" if rows else ""
        lines.append(f"{place}: {check}{count}")
        lines += [f"    {line}" for line in _examples(group, rows, data)]
    if len(groups) > _MOST_CHECKS:
        lines.append(f"… and {len(groups) - _MOST_CHECKS} more checks")
    return "\n".join(lines)


def _examples(group: Any, rows: list[Any], data: Any) -> list[str]:
    if not rows:
        values = [str(value) for value in group["failure_case"].unique()[:_EXAMPLES]]
        return [f"found: {', '.join(values)}"] if values else []
    shown = data.loc[[row for row in rows[:_EXAMPLES] if row in data.index]]
    with pd.option_context("display.width", 110, "display.max_columns", 8, "display.max_colwidth", 30):
        return str(shown.to_string(max_cols=8)).splitlines()
