"""What is said of a stage that was run again."""

from __future__ import annotations

from typing import Any

import pytest

from nbtools.execution.environments import differences
from nbtools.tracking.verdicts import OutputComparison, first_different_cell, judge
from tests.projects import notebook

SAME = OutputComparison("model", True)
CLOSE = OutputComparison("table", False)
OTHER = OutputComparison("table", False, "column 'x': its type is int64, not float64")


@pytest.mark.parametrize(
    ("outputs", "after", "verdict"),
    [
        ([SAME], {"r2": 0.5}, "identical"),
        ([SAME], {"r2": 0.5 + 1e-9}, "equal"),
        ([SAME, CLOSE], {"r2": 0.5}, "equal"),
        ([SAME, OTHER], {"r2": 0.5}, "different"),
        ([SAME], {"r2": 0.6}, "different"),
        ([SAME], {}, "different"),
        ([SAME], {"r2": 0.5, "new": 1.0}, "different"),
    ],
)
def test_verdict_follows_from_bytes_content_and_metrics(
    outputs: list[OutputComparison], after: dict[str, float], verdict: str
) -> None:
    assert judge("s", outputs, {"r2": 0.5}, after, 1e-6).verdict == verdict


def test_what_may_differ_is_passed_over_and_nan_is_itself() -> None:
    nan = float("nan")
    found = judge("s", [SAME, OTHER], {"ms": 1.0, "x": nan}, {"ms": 2.0, "x": nan}, 0.0, ("m*", "table"))
    assert found.verdict == "identical"


def _executed(*cells: tuple[str, str]) -> dict[str, Any]:
    made = notebook(*(source for source, _ in cells))
    for cell, (_, text) in zip(made["cells"][1:], cells, strict=True):
        cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": [text]}]
    injected = {
        "cell_type": "code",
        "metadata": {"tags": ["injected-parameters"]},
        "source": "a = 1",
        "outputs": [],
    }
    made["cells"].insert(1, injected)
    return made


def test_first_cell_that_differs_has_its_number_in_the_source_notebook() -> None:
    before = _executed(("1", "one\n"), ("2", "same\ntwo\n"))
    assert first_different_cell(before, before) == ""
    said = first_different_cell(before, _executed(("1", "one\n"), ("2", "same\nthree\n")))
    assert said == "code cell 3 put out something else: 'two' → 'three'"
    assert (
        first_different_cell(before, _executed(("1", "one\n"), ("3", ""))) == "code cell 3 has another source"
    )
    assert "1 code cells" not in first_different_cell(before, _executed(("1", "one\n")))
    assert first_different_cell(before, _executed(("1", "one\n"))) == "the notebook has 2 code cells, not 3"


def test_environments_differ_in_python_and_in_any_package_but_nbtools_itself() -> None:
    then, now = {"a": "1", "b": "1", "nbtools": "1"}, {"b": "2", "c": "1", "nbtools": "2"}
    assert differences("CPython 3.11.7", then, "CPython 3.12.0", now) == (
        "CPython 3.12.0, then CPython 3.11.7",
        "a is not installed, then 1",
        "b 2, then 1",
        "c 1, then not installed",
    )
    assert differences("x", then, "x", then) == ()
