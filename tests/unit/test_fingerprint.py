from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbtools.pipeline.fingerprint import Ingredients, differences, digest, from_record, to_record
from nbtools.pipeline.values import same_value

NAMES = st.sampled_from(["a", "b", "größe"])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([0, 1, 0.0, -0.0, 1.0, float("nan"), float("inf"), "", "1", "\ud800"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)
DIGESTS = st.sampled_from(["aa", "bb", ""])
TEXTS = st.dictionaries(NAMES, DIGESTS, max_size=2)
INGREDIENTS = st.builds(
    Ingredients,
    code=st.lists(st.sampled_from(["x", "y"]), max_size=3).map(tuple),
    params=st.dictionaries(NAMES, VALUES, max_size=2),
    inputs=st.dictionaries(NAMES, DIGESTS | st.lists(DIGESTS, max_size=2), max_size=2),
    outputs=TEXTS,
    modules=TEXTS,
    packages=TEXTS,
    python=st.sampled_from(["", "CPython 3.11.7"]),
    version=st.integers(1, 2),
)
BASE = Ingredients(
    code=("x", "y"),
    params={"seed": 1},
    inputs={"table": "aa"},
    outputs={"model": ".bin"},
    modules={"helpers.py": "aa"},
    packages={"numpy": "2.0"},
    python="CPython 3.11.7",
)


def _same(left: Ingredients, right: Ingredients) -> bool:
    """Compare field by field: what plain ``==`` takes for equal (1 and True) a notebook can tell apart."""
    params = dict(sorted(left.params.items())), dict(sorted(right.params.items()))
    return same_value(*params) and replace(left, params={}) == replace(right, params={})


@given(INGREDIENTS, INGREDIENTS)
def test_fingerprints_are_equal_exactly_if_the_ingredients_are(left: Ingredients, right: Ingredients) -> None:
    assert (digest(left) == digest(right)) == _same(left, right)


@given(INGREDIENTS, VALUES, VALUES)
def test_any_two_values_of_a_param_that_differ_make_two_fingerprints(
    base: Ingredients, one: Any, two: Any
) -> None:
    left, right = replace(base, params={"a": one}), replace(base, params={"a": two})
    assert (digest(left) == digest(right)) == same_value(one, two)
    assert bool(differences(left, right)) != same_value(one, two)


@given(INGREDIENTS, INGREDIENTS)
def test_there_are_differences_exactly_if_the_fingerprints_differ(
    left: Ingredients, right: Ingredients
) -> None:
    found = differences(left, right)
    assert bool(found) == (digest(left) != digest(right))
    assert len(differences(right, left)) == len(found)
    assert all(str(item) for item in found)


@given(INGREDIENTS)
def test_a_record_comes_back_through_json(ingredients: Ingredients) -> None:
    again = from_record(json.loads(json.dumps(to_record(ingredients))))
    assert _same(again, ingredients)
    assert digest(again) == digest(ingredients)
    assert differences(again, ingredients) == ()


def test_a_record_of_another_version_with_other_fields_can_be_read() -> None:
    record = {"code": ["x"], "version": 99, "weather": "rain"}
    assert from_record(record) == Ingredients(("x",), version=99)


def test_the_order_of_names_does_not_count_but_that_within_a_value_does() -> None:
    one = replace(BASE, params={"a": {"x": 1, "y": 2}, "b": 1})
    assert digest(one) == digest(replace(BASE, params={"b": 1, "a": {"x": 1, "y": 2}}))
    assert digest(one) != digest(replace(BASE, params={"a": {"y": 2, "x": 1}, "b": 1}))


@pytest.mark.parametrize(
    ("left", "right"), [(1, 1.0), (1, True), (0.0, -0.0), ("1", 1), (None, False), ([], {})]
)
def test_kinds_of_values_count(left: Any, right: Any) -> None:
    assert digest(replace(BASE, params={"a": left})) != digest(replace(BASE, params={"a": right}))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"code": ("x", "z")}, "1 cell changed"),
        ({"code": ("x", "y", "z", "w")}, "2 cells changed"),
        ({"code": ("x", "y", "y")}, "1 cell changed"),
        ({"code": ("x",)}, "1 cell removed"),
        ({"code": ("y", "x")}, "its cells stand in another order"),
        ({"params": {"seed": True}}, "param seed: 1 → True"),
        ({"params": {"seed": None}}, "param seed: 1 → None"),
        ({"params": {}}, "param seed (was 1) is no longer set"),
        ({"params": {"seed": 1, "k": "v"}}, "param k = 'v' is new"),
        ({"inputs": {"table": "bb"}}, "input table changed"),
        ({"inputs": {"table": ["aa"]}}, "input table changed"),
        ({"inputs": {}}, "input table is no longer read"),
        ({"inputs": {"table": "aa", "more": "cc"}}, "input more is new"),
        ({"outputs": {"model": ".json"}}, "output model is declared otherwise"),
        ({"modules": {"helpers.py": "bb"}}, "module helpers.py changed"),
        ({"modules": {}}, "module helpers.py is no longer imported"),
        ({"packages": {"numpy": "2.1"}}, "package numpy: 2.0 → 2.1"),
        ({"packages": {"numpy": "2.0", "scipy": "1"}}, "package scipy is new"),
        ({"python": "CPython 3.12.1"}, "Python: CPython 3.11.7 → CPython 3.12.1"),
        ({"version": 99}, "this version of nbtools counts other things"),
    ],
)
def test_a_difference_is_told_in_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    assert [str(item) for item in differences(BASE, replace(BASE, **changes))] == [sentence]


def test_several_differences_begin_with_what_a_person_looks_at_first() -> None:
    other = replace(BASE, code=("z",), params={"seed": 2}, inputs={"table": "bb"}, python="PyPy 3.11")
    assert [item.kind for item in differences(BASE, other)] == ["code", "param", "input", "python"]
