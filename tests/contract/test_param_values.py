"""What ``why_unfit`` lets pass must reach a kernel unchanged through papermill, which writes it as Python source."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from papermill.translators import PythonTranslator

from nbtools.pipeline.values import same_value, why_bad_name, why_unfit

KEYS = st.text(max_size=8)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.binary(max_size=3)
    | st.tuples(st.integers())
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.integers() | st.booleans(), inner, max_size=3)
    ),
    max_leaves=8,
)


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def _arrives(name: str, value: Any) -> dict[str, Any]:
    namespace: dict[str, Any] = {}
    exec(PythonTranslator.codify({name: value}), namespace)
    return namespace


@settings(max_examples=150)
@given(VALUES)
@example({'quote " and \\ backslash': "line\nbreak\u2028\x00"})
@example([float("nan"), float("inf"), float("-inf"), -0.0, 1e-320])
@example({"b": 1, "a": 2})
@example("{braces} %s $HOME \\N{DASH}")
@example(10**3999)
@example(_nested(99))
def test_a_value_that_fits_arrives_unchanged(value: Any) -> None:
    if not why_unfit(value):
        assert same_value(_arrives("value", value)["value"], value)


@pytest.mark.parametrize("value", [(1, 2), b"x", {1, 2}, {1: "a"}, {True: 1}, [(1,)], range(3)])
def test_a_value_that_is_refused_would_have_been_changed(value: Any) -> None:
    assert why_unfit(value)
    assert not same_value(_arrives("value", value)["value"], value)


@given(st.text(max_size=8))
@example("größe")
@example("ﬁ")
def test_a_name_that_fits_is_the_variable(name: str) -> None:
    if not why_bad_name(name):
        assert name in _arrives(name, 1)
