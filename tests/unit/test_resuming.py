from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nbtools.pipeline.fingerprint import Ingredients
from nbtools.pipeline.resuming import why_not_resumed

CELLS = st.lists(st.text("abc", min_size=1, max_size=2), max_size=6)


@given(CELLS, CELLS, CELLS)
def test_cells_from_the_failed_one_on_may_change(before: list[str], then: list[str], now: list[str]) -> None:
    old = Ingredients(code=(*before, *then), params={})
    new = Ingredients(code=(*before, *now), params={})
    assert why_not_resumed(old, new, before, [*before, *now]) == ()


@given(CELLS.filter(bool), st.data())
def test_no_cell_before_it_may(before: list[str], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(before) - 1))
    changed = [*before[:place], "changed", *before[place + 1 :]]
    (said,) = why_not_resumed(
        Ingredients(code=(), params={}), Ingredients(code=(), params={}), before, changed
    )
    assert said == f"cell {place + 1}, before the failed one, changed"


def test_removed_cells_and_other_params_are_told() -> None:
    old, new = Ingredients(code=("a",), params={"x": 1}), Ingredients(code=("a",), params={"x": 2})
    said = why_not_resumed(old, new, ["a", "b"], ["a"])
    assert len(said) == 2
    assert "x" in said[0]
    assert said[1] == "cells before the failed one were removed"
