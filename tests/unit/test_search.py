"""What is drawn: by Optuna itself, with results that are made up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbtools.execution.distributions import distribution, drawn_as, value_of
from nbtools.execution.events import Failure as Why
from nbtools.execution.events import StageFailed, StageFinished
from nbtools.execution.search import Rule, Search
from nbtools.pipeline.dag import Variant
from nbtools.pipeline.fingerprint import Ingredients
from nbtools.pipeline.plan import Surroundings
from nbtools.pipeline.space import Axis, Interval, Values, axis_of, interval, read
from nbtools.pipeline.spec import Location, Stage

SPACE: dict[str, Axis] = {
    "alpha": Interval(0.0, 1.0),
    "depth": Values((2, 4, 6)),
    "loss": Values(("l1", "l2")),
}
RULE = Rule("tpe", SPACE, trials=25, metric="rmse")
STAGE = Stage("train", "fit", "fit.ipynb", Location("pipelines.yaml", 1, 1), drawn=True)


def rmse(point: Mapping[str, Any]) -> float:
    return float((point["alpha"] - 0.3) ** 2 + point["depth"] + (point["loss"] == "l1"))


def searching(folder: Path, rule: Rule = RULE, code: str = "code") -> Search:
    def ingredients(_variant: Variant) -> Ingredients:
        return Ingredients(code=(code,), params={"rows": 1}, outputs={}, modules={}, packages={}, python="3")

    world = Surroundings(ingredients, lambda _: None, lambda _: None, lambda _: None, lambda _: False)
    return Search(rule, Variant("train.fit", STAGE, {}, (), (), ()), {}, world, folder, lambda _: None)


def carried_out(
    search: Search, most: int = 10_000, score: Callable[[Mapping[str, Any]], float | None] = rmse
) -> list[str]:
    """Draw and answer, and return what was drawn."""
    drawn: list[str] = []
    while len(drawn) < most and (variant := search.draw({})):
        drawn.append(variant.key)
        value = score(variant.point)
        if value is None:
            search(StageFailed("r", 0, variant.key, 0, Why("error", "no")))
        else:
            search(StageFinished("r", 0, variant.key, "f", 1, metrics={"rmse": value}))
    return drawn


def test_a_search_that_was_left_in_the_middle_draws_what_it_would_have_drawn(tmp_path: Path) -> None:
    whole = carried_out(searching(tmp_path / "whole"))
    assert len(whole) == len(set(whole)) == 25
    begun = searching(tmp_path / "parts")
    first = carried_out(begun, most=12)
    unfinished = begun.draw({})
    assert unfinished is not None
    rest = carried_out(searching(tmp_path / "parts"))
    assert rest == [*first, *whole[12:]]
    assert unfinished.key == whole[12]


def test_tpe_learns_where_the_metric_is_small(tmp_path: Path) -> None:
    search = searching(tmp_path, replace(RULE, trials=40))
    points = [search.points[key] for key in carried_out(search)]
    late = points[20:]
    assert sum(point["depth"] == 2 for point in late) > len(late) / 2


def test_another_seed_draws_something_else(tmp_path: Path) -> None:
    one = carried_out(searching(tmp_path, replace(RULE, sampler="random", trials=5)))
    other = carried_out(searching(tmp_path, replace(RULE, sampler="random", trials=5, seed=1)))
    assert not set(one) & set(other)


def test_other_code_begins_a_new_study(tmp_path: Path) -> None:
    carried_out(searching(tmp_path))
    carried_out(searching(tmp_path, code="other"))
    assert len(list(tmp_path.glob("*.log"))) == 2


def test_failed_variants_are_drawn_again_by_the_next_search_only(tmp_path: Path) -> None:
    def score(point: Mapping[str, Any]) -> float | None:
        return None if point["loss"] == "l1" else rmse(point)

    rule = replace(RULE, sampler="random", trials=8)
    first = carried_out(searching(tmp_path, rule), score=score)
    assert len(first) == len(set(first)) == 8
    failed = [key for key in first if "loss=l1" in key]
    again = carried_out(searching(tmp_path, rule))
    assert set(failed) <= set(again)
    assert len(set(again)) == 8


def test_a_small_space_is_drawn_once_and_whole(tmp_path: Path) -> None:
    space: dict[str, Axis] = {"depth": Values((2, 4, 6)), "loss": Values(("l1", "l2"))}
    found = carried_out(
        searching(tmp_path, Rule("random", space, trials=99)), score=lambda point: float(point["depth"])
    )
    assert len(found) == len(set(found)) == 6


SCALARS = st.none() | st.booleans() | st.integers(-99, 99) | st.floats(-9, 9) | st.text(max_size=5)


@given(st.lists(SCALARS | st.lists(st.integers()), min_size=1, max_size=6, unique_by=repr))
def test_values_come_back_from_optuna_as_they_are(values: list[Any]) -> None:
    texts = [value if isinstance(value, str) else repr(value) for value in values]
    if len(set(texts)) < len(texts):
        return  # refused long before
    axis = Values(tuple(values))
    optunas = distribution(axis)
    for value in values:
        inner = optunas.to_internal_repr(drawn_as(axis, value))
        found = value_of(axis, optunas.to_external_repr(inner))
        assert repr(found) == repr(value)


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("0,0.2,0.5", Values((0, 0.2, 0.5))),
        ("range(0,1,0.5)", Values((0.0, 0.5))),
        ("0,range(1,3)", Values((0, 1, 2))),
        ("[64],[64,32]", Values(([64], [64, 32]))),
        ("'a,b',c", Values(("a,b", "c"))),
        ("true", Values((True,))),
        ("0..1", Interval(0, 1)),
        ("-1.5..2e3", Interval(-1.5, 2000.0)),
        ("log(1e-4..1)", Interval(0.0001, 1, log=True)),
        ("../x,a..b", Values(("../x", "a..b"))),
    ],
)
def test_what_is_typed_is_read_as_it_is_meant(text: str, axis: Axis) -> None:
    assert repr(read(text)) == repr(axis)
    assert repr(axis_of(text)) == repr(axis)


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6), st.booleans())
def test_an_interval_is_written_as_it_is_read(one: float, other: float, log: bool) -> None:
    low, high = sorted([one, other])
    if low < high:
        wanted = Interval(low, high, log)
        assert interval(str(wanted)) == wanted


@given(st.floats(0, 1), st.floats(1.5, 9), st.floats(0, 1))
def test_a_drawn_number_stays_within_its_interval(low: float, high: float, share: float) -> None:
    axis = Interval(low, high)
    found = value_of(axis, low + share * (high - low))
    assert low <= found <= high
