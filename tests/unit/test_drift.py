"""How much the distribution of a column moved between two tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbtools.tracking.drift import compare, distance, stability_index, stability_index_of_categories, summary

NUMBERS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50)


@given(NUMBERS, NUMBERS)
def test_indices_are_bounded_and_nothing_differs_from_itself(before: list[float], after: list[float]) -> None:
    old, new = np.array(before), np.array(after)
    assert stability_index(old, old) == 0
    assert distance(old, old) == 0
    index, ks = stability_index(old, new), distance(old, new)
    assert index is not None
    assert index >= 0
    assert ks is not None
    assert 0 <= ks <= 1
    assert ks == pytest.approx(distance(new, old))


def test_stability_index_is_that_of_the_formula() -> None:
    before, after = pd.Series(["a"] * 50 + ["b"] * 50), pd.Series(["a"] * 80 + ["b"] * 20)
    expected = (0.8 - 0.5) * np.log(0.8 / 0.5) + (0.2 - 0.5) * np.log(0.2 / 0.5)
    assert stability_index_of_categories(before, after) == pytest.approx(expected)


def test_distance_is_that_of_scipy_example() -> None:
    # All of one below all of the other; and half of it.
    assert distance(np.array([1.0, 2.0]), np.array([3.0, 4.0])) == 1.0
    assert distance(np.array([1.0, 2.0, 3.0, 4.0]), np.array([3.0, 4.0, 5.0, 6.0])) == 0.5


def test_columns_that_came_went_changed_their_type_or_moved_are_told_apart() -> None:
    base = np.linspace(0, 1, 1000)
    before = pd.DataFrame({"same": base, "moved": base, "typed": [1] * 1000, "gone": base})
    after = pd.DataFrame({"same": base, "moved": base + 0.5, "typed": [1.0] * 1000, "new": ["x"] * 1000})
    found = {change.column: change for change in compare(before, after)}
    assert {name: change.kind for name, change in found.items()} == {
        "same": "same",
        "moved": "changed",
        "typed": "retyped",
        "new": "added",
        "gone": "removed",
    }
    assert found["moved"].drift == "much"
    assert found["moved"].ks == pytest.approx(0.5, abs=0.01)
    assert found["typed"].drift == "none"


def test_odd_columns_are_summarised_without_failing() -> None:
    frame = pd.DataFrame(
        {
            "lists": [[1], [2], None],
            "moments": pd.to_datetime(pd.Series(["2024-01-01", None, "2024-01-03"]), utc=True),
            "flags": [True, False, True],
            "empty": [None, None, None],
            "infinite": [np.inf, 1.0, np.nan],
            "nullable": pd.array([1, None, 3], dtype="Int64"),
        }
    )
    found = {name: summary(frame[name]) for name in frame.columns}
    assert found["moments"].minimum == pd.Timestamp("2024-01-01", tz="UTC").timestamp()
    assert found["lists"].distinct == 2
    assert found["flags"].shares["True"] == pytest.approx(2 / 3)
    assert found["empty"].nulls == 1
    assert (found["infinite"].minimum, found["nullable"].maximum) == (1.0, 3.0)
    assert all(change.kind == "same" for change in compare(frame, frame.copy()))
    assert not compare(frame.head(0), frame)[0].drift
