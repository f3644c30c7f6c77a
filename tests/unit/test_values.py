from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbtools.pipeline.values import same_value, seconds, why_bad_name, why_unfit

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("name", ["alpha", "_x", "größe", "x1"])
def test_identifiers_are_good_names(name: str) -> None:
    assert why_bad_name(name) == ""


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("learning-rate", "not a Python identifier"),
        ("1x", "not a Python identifier"),
        ("", "not a Python identifier"),
        ("a b", "not a Python identifier"),
        ("x\nimport os", "not a Python identifier"),
        ("class", "Python keyword"),
        ("None", "Python keyword"),
        ("gro\u0308\u00dfe", "write it like this"),
    ],
)
def test_other_names_are_refused_with_the_reason(name: str, reason: str) -> None:
    assert reason in why_bad_name(name)


@given(VALUES)
def test_json_like_values_fit(value: Any) -> None:
    assert why_unfit(value) == ""


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ((1, 2), "a tuple would arrive as a string"),
        (b"x", "a bytes would arrive as a string"),
        ({1, 2}, "a set would arrive as a string"),
        ({"a": [1, (2,)]}, "a tuple would arrive as a string"),
        ({1: "a"}, "the key 1 would arrive as a string"),
        ({"a": {True: 1}}, "the key True would arrive as a string"),
        (10**4001, "too many digits"),
        ("\ud800", "not valid Unicode"),
        ({"\ud800": 1}, "not valid Unicode"),
        (type("Whole", (int,), {})(3), "a Whole would arrive as a string"),
    ],
)
def test_what_would_be_changed_on_the_way_is_refused(value: Any, reason: str) -> None:
    assert reason in why_unfit(value)


def test_what_contains_itself_or_nests_too_deeply_is_refused() -> None:
    endless: list[Any] = []
    endless.append({"again": endless})
    assert "too deeply" in why_unfit(endless)


@given(VALUES)
def test_a_value_is_the_same_as_itself(value: Any) -> None:
    assert same_value(value, value)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (1, True),
        (1, 1.0),
        (0, False),
        (0.0, -0.0),
        (None, False),
        ("1", 1),
        ([1], [1.0]),
        ([1], [1, 2]),
        ({"a": 1}, {"a": True}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ([], {}),
        ("é", "e\u0301"),
    ],
)
def test_values_that_a_notebook_can_tell_apart_are_not_the_same(left: Any, right: Any) -> None:
    assert not same_value(left, right)
    assert not same_value(right, left)


def test_not_a_number_is_the_same_as_not_a_number() -> None:
    assert same_value([math.nan], [float("nan")])
    assert not same_value(math.nan, math.inf)


@pytest.mark.parametrize(
    ("text", "length_s"),
    [("45s", 45), ("30m", 1800), ("1h30m", 5400), ("1h 1s", 3601), ("0.5h", 1800), (2.5, 2.5), (7, 7)],
)
def test_durations_are_read_in_seconds(text: str | float, length_s: float) -> None:
    assert seconds(text) == length_s


@pytest.mark.parametrize(
    "text", ["", "45", "m", "5 minutes", "-3s", "0s", "1s30m", 0, -1, math.inf, math.nan, True]
)
def test_what_is_no_duration_is_refused(text: str | float) -> None:
    with pytest.raises(ValueError, match="duration"):
        seconds(text)
