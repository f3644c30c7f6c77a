"""Points of a matrix: ranges without rounding noise, include and exclude as GitHub Actions has them."""

from __future__ import annotations

import itertools
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbtools.errors import Problem, SpecError
from nbtools.pipeline.dag import build
from nbtools.pipeline.load import parse_spec
from nbtools.pipeline.matrix import expand, is_range, points
from nbtools.pipeline.spec import Stage


def stage_of(matrix: str, data: str = "", outputs: str = "") -> Stage:
    return next(iter(parse_spec(text_of(matrix, data, outputs)).stages()))


def text_of(matrix: str, data: str = "", outputs: str = "") -> str:
    return (
        f"version: 1\nproject: p\ndata: {{{data}}}\npipelines:\n  p:\n    stages:\n      fit:\n"
        f"        notebook: a.ipynb\n        outputs: [{outputs}]\n        matrix: {matrix}\n"
    )


def problems_of(matrix: str, data: str = "", outputs: str = "") -> tuple[Problem, ...]:
    with pytest.raises(SpecError) as caught:
        parse_spec(text_of(matrix, data, outputs))
    return caught.value.problems


# Ranges


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ("range(0, 1, 0.25)", (0.0, 0.25, 0.5, 0.75)),
        ("range(0.1, 0.4, 0.1)", (0.1, 0.2, 0.3)),
        ("range(3)", (0, 1, 2)),
        ("range(2, 4)", (2, 3)),
        ("range(5, 0, -2)", (5, 3, 1)),
        (" range( 1e-1 , .3,.1 ) ", (0.1, 0.2)),
        ("linspace(0, 1, 5)", (0.0, 0.25, 0.5, 0.75, 1.0)),
        ("linspace(1, 0, 3)", (1.0, 0.5, 0.0)),
        ({"range": [0, 0.3, 0.1]}, (0.0, 0.1, 0.2)),
        ({"linspace": [0, 1, 4]}, (0.0, 1 / 3, 2 / 3, 1.0)),
        ({"range": 2}, (0, 1)),
    ],
)
def test_a_range_has_the_values_that_a_person_would_write(given: Any, values: tuple[float, ...]) -> None:
    assert is_range(given)
    assert list(map(repr, expand(given))) == list(map(repr, values))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("range(0, 1, 0)", "its step is 0"),
        ("range(1, 0)", "it has no values"),
        ("range()", "'' is no number"),
        ("range(0, 1, 0.1, 2)", "a start, a stop and a step"),
        ("range(0, one, 1)", "'one' is no number"),
        ("range(0, 1, 1e-9)", "1,000,000,000 values; 10,000 are the most"),
        ({"range": [0, float("inf")]}, "inf is no number"),
        ({"range": [0, True]}, "True is no number"),
        ("linspace(0, 1)", "a number of values"),
        ("linspace(0, 1, 1)", "at least two"),
        ("linspace(1, 1, 3)", "are the same"),
    ],
)
def test_a_range_that_makes_no_sense_says_why(given: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        expand(given)


@pytest.mark.parametrize(
    "given", ["rouge(1)", "range", "range 1 2", "f(range(3))", {"range": 1, "b": 2}, 3, None]
)
def test_what_is_no_range_is_taken_for_none(given: Any) -> None:
    assert not is_range(given)


DECIMALS = st.decimals(-1000, 1000, places=3)


@given(DECIMALS, st.decimals("0.001", 10, places=3), st.integers(1, 200))
def test_each_value_is_the_float_nearest_to_the_decimal_sum(
    start: Decimal, step: Decimal, count: int
) -> None:
    found = expand(f"range({start}, {start + step * count}, {step})")
    assert list(map(float, found)) == [float(start + step * number) for number in range(count)]


@given(DECIMALS, DECIMALS, st.decimals(-50, 50, places=2).filter(lambda step: abs(step) > 1))
def test_a_range_leaves_out_its_end_and_stays_within(start: Decimal, stop: Decimal, step: Decimal) -> None:
    try:
        found = expand({"range": [float(start), float(stop), float(step)]})
    except ValueError:
        assert (stop - start) * step <= 0
        return
    low, high = sorted([float(start), float(stop)])
    assert found[0] == float(start)
    assert all(low <= value <= high for value in found)
    assert float(stop) not in found


@given(st.integers(-50, 50), st.integers(-50, 50), st.integers(-7, 7).filter(bool))
def test_a_range_of_whole_numbers_is_pythons(start: int, stop: int, step: int) -> None:
    wanted = tuple(range(start, stop, step))
    if wanted:
        assert expand(f"range({start}, {stop}, {step})") == wanted


@given(DECIMALS, DECIMALS, st.integers(2, 100))
def test_linspace_includes_both_ends(start: Decimal, stop: Decimal, count: int) -> None:
    if start != stop:
        found = expand({"linspace": [float(start), float(stop), count]})
        assert (found[0], found[-1], len(found)) == (float(start), float(stop), count)


# Include and exclude

LISTS = st.dictionaries(
    st.sampled_from("abc"), st.lists(st.integers(0, 3), min_size=1, unique=True), min_size=1
)
POINT = st.dictionaries(st.sampled_from("abcxy"), st.integers(0, 5), min_size=1)


@given(LISTS)
def test_lists_make_their_product(lists: dict[str, list[int]]) -> None:
    assert [tuple(point.values()) for point in points(lists)] == list(itertools.product(*lists.values()))


@given(LISTS, st.lists(POINT, max_size=4), st.lists(POINT, max_size=4))
def test_combinations_keep_their_values_whatever_is_included(
    lists: dict[str, list[int]], include: list[dict[str, int]], exclude: list[dict[str, int]]
) -> None:
    found = points(lists, include, exclude)
    left = [point for point in points(lists) if not any(other.items() <= point.items() for other in exclude)]
    assert [{name: point[name] for name in lists} for point in found[: len(left)]] == left
    assert all(point in include for point in found[len(left) :])


@given(LISTS, POINT)
def test_an_included_point_is_found_in_some_variant(
    lists: dict[str, list[int]], extra: dict[str, int]
) -> None:
    assert any(extra.items() <= point.items() for point in points(lists, [extra]))


def test_include_and_exclude_do_what_they_do_in_github_actions() -> None:
    # The example of GitHub's documentation of include.
    fruits = {"fruit": ["apple", "pear"], "animal": ["cat", "dog"]}
    include = [
        {"color": "green"},
        {"color": "pink", "animal": "cat"},
        {"fruit": "apple", "shape": "circle"},
        {"fruit": "banana"},
        {"fruit": "banana", "animal": "cat"},
    ]
    assert points(fruits, include) == (
        {"fruit": "apple", "animal": "cat", "color": "pink", "shape": "circle"},
        {"fruit": "apple", "animal": "dog", "color": "green", "shape": "circle"},
        {"fruit": "pear", "animal": "cat", "color": "pink"},
        {"fruit": "pear", "animal": "dog", "color": "green"},
        {"fruit": "banana"},
        {"fruit": "banana", "animal": "cat"},
    )


def test_a_matrix_of_included_points_alone_has_just_these() -> None:
    stage = stage_of(
        "{include: [{size: small, depth: 3}, {size: large, depth: 8}]}", 'model: "m/{size}"', "model"
    )
    assert stage.points == ({"size": "small", "depth": 3}, {"size": "large", "depth": 8})


def test_variants_of_a_file_have_ranges_and_included_params_in_their_names() -> None:
    spec = parse_spec(
        text_of("{a: 'range(0, 1, 0.5)', b: [1], include: [{a: 0.5, c: x}], exclude: [{a: 0}]}")
    )
    assert list(build(spec).variants) == ["p.fit[a=0.5,b=1,c=x]"]


@pytest.mark.parametrize(
    ("matrix", "where", "message", "fix"),
    [
        ("{a: 'range(1, 0)'}", "10:18", "is no range: it has no values", "write [0, 0.2"),
        ("{a: {range: [0, x]}}", "10:18", "is no range: 'x' is no number", ""),
        ("{a: 'rnage(1)'}", "10:18", "must be a list of values or a range, not 'rnage(1)'", "range(0, 1"),
        ("{a: null}", "10:18", "must be a list of values or a range, not nothing", ""),
        ("{a: [1], exclude: [{b: 1}]}", "10:37", "'b' is no param of this matrix", "valid matrix params: a"),
        ("{a: [1], exclude: [{a: 2}]}", "10:36", "no combination has these values", ""),
        ("{a: [1], exclude: [{a: 1}]}", "10:26", "every combination is left out", ""),
        ("{a: [1], exclude: {a: 1}}", "10:26", "exclude must be a list of points", "write exclude: [{"),
        ("{a: [1], include: [2]}", "10:36", "this must be a point (name: value), not 2", ""),
        ("{a: [1], include: [{a: 'range(3)'}]}", "10:37", "no range", "a point for each"),
        ("{a: [1], include: [{a: 2}, {a: 2}]}", "10:26", "the point a=2 is there twice", ""),
        ("{a: 'range(0, 1, 0.001)', b: 'range(99)'}", "10:9", "99,000 combinations; 10,000 are", "sampler"),
    ],
)
def test_a_mistake_in_a_matrix_has_its_place(matrix: str, where: str, message: str, fix: str) -> None:
    found = problems_of(matrix)
    assert [item.where for item in found] == [f"pipelines.yaml:{where}"], found
    assert message in found[0].message
    assert fix in found[0].fix


def test_a_pattern_needs_a_value_from_every_point() -> None:
    (problem,) = problems_of("{a: [1], include: [{a: 1, c: 2}, {a: 3}]}", 'x: "m/{a}-{c}"', "x")
    assert problem.message == "the pattern of 'x' has {c}, which the variant a=3 lacks"
