"""Whether two files say the same although their bytes differ."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbtools.execution.parquet_footer import read_footer
from nbtools.execution.tables import describe
from nbtools.tracking.contents import close, first_difference, tables, values

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_a_value_does_not_differ_from_its_copy(value: Any) -> None:
    assert values(value, copy.deepcopy(value), 0.0) == ""


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(1e-9, 0.1))
def test_numbers_within_the_tolerance_are_close(number: float, rtol: float) -> None:
    assert close(number, number * (1 + rtol / 2), rtol) or not math.isfinite(number * 2)
    assert close(math.nan, math.nan, 0.0)
    assert not close(1, True, 0.0)
    assert not close(1.0, "1.0", 0.0)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({"a": 1}, {"a": 2}, "a: 1 → 2"),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1]}}, "a.b: 2 → 1 entries"),
        ({"a": 1}, {}, "a is gone"),
        ({}, {"a": 1}, "a is new"),
        ({"a": 1}, {"a": True}, "a: 1 → True"),
        ({"a": 1.0}, {"a": 1.0 + 1e-9}, ""),
    ],
)
def test_first_difference_of_json_is_named_by_its_place(before: Any, after: Any, said: str) -> None:
    assert values(before, after, 1e-6) == said


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ({"x": [1.0, 2.0 + 1e-9], "y": ["a", None]}, ""),
        ({"x": [1.0, 3.0], "y": ["a", None]}, "column 'x': 1 of 2 rows differ, first row 1"),
        ({"x": [1, 2], "y": ["a", None]}, "column 'x': its type is int64, not float64"),
        ({"x": [1.0, 2.0], "y": ["a", "b"]}, "column 'y': 1 of 2 rows differ, first row 1"),
        ({"x": [1.0, 2.0]}, "column 'y' is gone"),
        ({"x": [1.0, 2.0], "y": ["a", None], "z": [1, 2]}, "column 'z' is new"),
        ({"y": ["a", None], "x": [1.0, 2.0]}, "its columns stand in another order"),
        ({"x": [1.0], "y": ["a"]}, "it has 1 rows, not 2"),
    ],
)
def test_first_difference_of_tables_names_column_and_row(after: dict[str, Any], said: str) -> None:
    assert tables(pd.DataFrame({"x": [1.0, 2.0], "y": ["a", None]}), pd.DataFrame(after), 1e-6).startswith(
        said
    )


def test_files_are_read_by_what_they_are_called(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"  # as in the store, without an ending
    frame = pd.DataFrame({"x": [1.0, 2.0]})
    frame.to_parquet(old)
    frame.to_parquet(new, compression="gzip")
    assert old.read_bytes() != new.read_bytes()
    assert first_difference(old, new, "data/x.parquet", 0.0) == ""
    assert first_difference(old, new, "data/x.bin", 0.0) == "its bytes differ, and it is no table"
    assert "it cannot be read" in first_difference(old, new, "x.csv", 0.0)
    old.write_text(json.dumps({"a": 1}))
    new.write_text(json.dumps({"a": 1}, indent=1))
    assert first_difference(old, new, "x.json", 0.0) == ""
    with open(old, "wb") as stream:
        np.save(stream, np.array([1.0, 2.0]))
    with open(new, "wb") as stream:
        np.save(stream, np.array([1.0, 3.0]))
    assert first_difference(old, new, "x.npy", 1e-6) == "1 of 2 values differ"


def test_folders_are_compared_file_by_file(tmp_path: Path) -> None:
    for name, value in (("old", 1), ("new", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same.txt").write_text("same")
        (tmp_path / name / "m.json").write_text(json.dumps({"value": value}))
    assert first_difference(tmp_path / "old", tmp_path / "new", "model", 0.0) == "m.json: value: 1 → 2"


def test_rows_columns_and_types_are_told_without_reading_a_table_whole(tmp_path: Path) -> None:
    frame = pd.DataFrame({"n": [1, 2, 3], "t": ["a", 'b"\nc', None]})
    frame.to_parquet(tmp_path / "x.parquet")
    frame.to_feather(tmp_path / "x.feather")
    frame.to_csv(tmp_path / "x.csv", index=False)
    (tmp_path / "parts").mkdir()
    for part in (0, 1):
        frame.to_parquet(tmp_path / f"parts/{part}.parquet")
    for name, rows in (("x.parquet", 3), ("x.feather", 3), ("x.csv", 3), ("parts", 6)):
        found = describe(tmp_path / name)
        assert (found.rows, set(found.columns)) == (rows, {"n", "t"}), name
        assert found.columns["n"] == "int64"
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 is not enough")
    assert describe(tmp_path / "broken.parquet").record() == {}
    assert describe(tmp_path / "nothing.csv").record() == {}


def test_footer_of_parquet_says_what_arrow_says(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {
        "flag": pa.bool_(),
        "small": pa.int8(),
        "big": pa.uint64(),
        "half": pa.int16(),
        "plain": pa.int32(),
        "long": pa.int64(),
        "single": pa.float32(),
        "number": pa.float64(),
        "text": pa.string(),
        "raw": pa.binary(),
        "day": pa.date32(),
        "moment": pa.timestamp("us", tz="UTC"),
        "naive": pa.timestamp("ms"),
        "nanos": pa.timestamp("ns"),
    }
    nested = {
        "list": pa.list_(pa.struct([("a", pa.int8()), ("b", pa.string())])),
        "struct": pa.struct([("x", pa.int8())]),
    }
    schema = pa.schema(
        [*types.items(), *nested.items(), ("money", pa.decimal128(9, 2)), ("last", pa.float64())]
    )
    table = schema.empty_table()
    pq.write_table(table, tmp_path / "x.parquet")
    found = describe(tmp_path / "x.parquet")
    assert found.rows == 0
    assert list(found.columns) == schema.names
    assert {name: found.columns[name] for name in types} == {name: str(kind) for name, kind in types.items()}
    assert (found.columns["list"], found.columns["struct"], found.columns["money"]) == (
        "list",
        "struct",
        "decimal(9, 2)",
    )
    many = pa.table({"n": list(range(10_000))})
    pq.write_table(many, tmp_path / "many.parquet", row_group_size=100)
    assert describe(tmp_path / "many.parquet").rows == 10_000


@given(st.binary(max_size=60))
def test_no_bytes_make_the_reader_of_footers_fail_otherwise_than_it_says(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.parquet"
        path.write_bytes(data + len(data).to_bytes(4, "little") + b"PAR1")
        with contextlib.suppress(ValueError):
            read_footer(path)
