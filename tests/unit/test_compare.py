"""What differs between runs, which runs are meant, and where a filter is wrong: all without a store."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbtools.cli import run_views
from nbtools.errors import UsageError
from nbtools.reports.compare import compare, short_labels
from nbtools.reports.compare_code import cell_changes
from nbtools.tracking.experiments import TrackedRun
from nbtools.tracking.experiments_detail import RunDetails
from nbtools.tracking.experiments_naming import RunName, is_stage, parse
from tests.projects import notebook


def run(run_id: str = "a" * 32, **facts: Any) -> TrackedRun:
    return TrackedRun(run_id, "small", facts.pop("name", "fit"), "FINISHED", 0.0, **facts)


def differences(*runs: RunDetails) -> dict[tuple[str, str], tuple[Any, Any]]:
    return {(item.kind, item.name): (item.values, item.changes) for item in compare(runs).differences}


def test_values_are_shown_where_any_run_differs_and_metrics_with_the_difference_from_the_first() -> None:
    one = RunDetails(run("a" * 32, params={"alpha": "1", "same": "x"}, metrics={"r2": 0.5, "nan": math.nan}))
    two = RunDetails(run("b" * 32, params={"alpha": "1", "same": "x"}, metrics={"r2": 0.25, "nan": math.nan}))
    three = RunDetails(run("c" * 32, params={"alpha": "2", "same": "x"}, metrics={"nan": math.nan}))
    assert differences(one, two, three) == {
        ("param", "alpha"): (("1", "1", "2"), ()),
        ("metric", "r2"): ((0.5, 0.25, None), (0.0, -0.25, None)),
    }


def test_packages_are_compared_only_if_all_recorded_them() -> None:
    one = RunDetails(run("a" * 32), packages={"pandas": "3.0"})
    two = RunDetails(run("b" * 32), packages={"pandas": "3.1"})
    assert differences(one, two) == {("package", "pandas"): (("3.0", "3.1"), ())}
    found = compare([one, RunDetails(run("b" * 32))])
    assert found.differences == ()
    assert found.notes == ("packages cannot be compared: they were not recorded for bbbbbbbb",)


def test_stages_of_pipelines_are_compared_where_both_have_them() -> None:
    def pipeline(run_id: str, **alphas: str) -> RunDetails:
        stages = {f"train.{name}": RunDetails(run(run_id, params={"alpha": a})) for name, a in alphas.items()}
        return RunDetails(run(run_id, params={"fit.alpha": "given"}), stages=stages)

    found = compare([pipeline("a" * 32, fit="1", test="1"), pipeline("b" * 32, fit="2")])
    assert [(item.kind, item.name, item.values) for item in found.differences] == [
        ("param", "train.fit.alpha", ("1", "2"))
    ]
    assert found.notes[0] == "train.test of aaaaaaaa cannot be compared"


def test_labels_are_as_long_as_it_takes_to_tell_runs_apart() -> None:
    assert short_labels([run("a" * 32), run("b" * 32)]) == ("a" * 8, "b" * 8)
    assert short_labels([run("a" * 20 + "x" * 12), run("a" * 20 + "y" * 12)]) == (
        "a" * 20 + "x",
        "a" * 20 + "y",
    )


CELLS = st.lists(st.sampled_from(["a = 1", "b = 2", "c = 3\nd = 4", "print(a)", ""]), max_size=6)


def texts(*cells: str, ids: str = "") -> str:
    """Return a notebook; its cells have the letters of ``ids``, or their numbers, for ids."""
    made = notebook(*cells, params=None)
    for cell, name in zip(made["cells"], ids, strict=False):
        cell["id"] = name
    return json.dumps(made)


@pytest.mark.parametrize("ids", ["adb", "xyz"], ids=["the same ids", "other ids"])
def test_code_is_compared_by_cells_that_belong_together(ids: str) -> None:
    long = "frame = read(path)\nframe = clean(frame)\nframe.describe()"
    old = texts("import pandas", long, "print(frame)", ids="abc")
    new = texts("import pandas", "seed(13)", long.replace("clean", "tidy"), ids=ids)
    assert [(item.kind, item.number) for item in cell_changes(old, new)] == [
        ("added", 2),
        ("changed", 3),
        ("removed", 3),
    ]


@given(old=CELLS, new=CELLS)
def test_code_differs_exactly_if_a_change_is_shown(old: list[str], new: list[str]) -> None:
    found = cell_changes(texts(*old), texts(*new))
    assert bool(found) == (old != new)
    added = [item for item in found if item.kind == "added"]
    removed = [item for item in found if item.kind == "removed"]
    assert len(added) - len(removed) == len(new) - len(old)
    for item in found:
        assert 1 <= item.number <= len(old if item.kind == "removed" else new)


def test_outputs_markdown_and_injected_params_are_no_code() -> None:
    plain = notebook("print(1)", params=None)
    executed = notebook("print(1)", params=None)
    executed["cells"][0]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "1\n"}]
    injected = {
        **executed["cells"][0],
        "metadata": {"tags": ["injected-parameters"]},
        "source": "a = 1",
        "id": "i",
    }
    words = {"cell_type": "markdown", "id": "m", "metadata": {}, "source": "# Title"}
    executed["cells"] = [words, injected, *executed["cells"]]
    assert cell_changes(json.dumps(plain), json.dumps(executed)) == ()


def test_what_is_no_notebook_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="no notebook"):
        cell_changes("{", texts("a"))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("latest", RunName("latest")),
        ("latest~2", RunName("latest", 2)),
        ("latest:fit", RunName("latest", 0, "fit")),
        (" ab12:train.fit[a=x:y] ", RunName("ab12", 0, "train.fit[a=x:y]")),
        ("20261124-120000-aa11", RunName("20261124-120000-aa11")),
    ],
)
def test_names_of_runs(text: str, meant: RunName) -> None:
    assert parse(text) == meant


@pytest.mark.parametrize("text", ["", "a b", "ab12~1", "latest~", "latest~x", ":fit", "a;b", "latest~-1"])
def test_what_names_no_run(text: str) -> None:
    with pytest.raises(UsageError, match="names no run"):
        parse(text)


def test_stage_is_meant_by_its_key_its_short_name_or_one_variant() -> None:
    key = "train.fit[alpha=0.5,l1_ratio=1.0]"
    assert all(is_stage(key, name) for name in ("fit", "train.fit", "fit[alpha=0.5,l1_ratio=1.0]", key))
    assert not any(is_stage(key, name) for name in ("it", "train", "fit[alpha=0.5]", "data.fit", ""))


def test_terminal_gets_the_columns_that_fit_and_is_told_of_the_others() -> None:
    metrics = {f"metric_{number}": number / 7 for number in range(20)}
    runs = [run(metrics=metrics, user="ada", source="notebooks/fit.ipynb")]
    shown = run_views.runs_text(runs, None, None, 100).splitlines()
    assert max(map(len, shown)) <= 100
    assert "metric_0" in shown[0]
    assert "more columns" in shown[-1]
    assert "metric_9" in run_views.runs_text(runs, None, None, None)
    chosen = run_views.runs_text(runs, list(metrics), None, 60)
    assert "more columns" not in chosen


def test_status_is_a_column_once_a_run_did_not_finish() -> None:
    failed = TrackedRun("b" * 32, "small", "fit", "FAILED", 0.0)
    assert "status" not in run_views.runs_text([run()], None, None, None)
    assert "failed" in run_views.runs_text([run(), failed], None, None, None)
