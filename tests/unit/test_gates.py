from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbtools.pipeline.gates import Verdict, judge, why_bad_gate

METRICS = {"r2": 0.3, "rmse": 2.0, "test auc": 0.75}


def _holds(
    condition: str, metrics: Mapping[str, float] = METRICS, champion: Mapping[str, float] | None = None
) -> Verdict:
    assert why_bad_gate(condition) == ""
    return judge([condition], metrics, champion)[0]


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("r2 > 0.24", True),
        ("r2 > 0.3", False),
        ("r2 >= 0.3", True),
        ("0.2 < r2 < 0.4", True),
        ("0.2 < r2 < 0.25", False),
        ("r2 != 0.3", False),
        ("r2 > 0.24 and rmse < 1", False),
        ("r2 > 0.24 or rmse < 1", True),
        ("not r2 > 0.24", False),
        ("abs(-rmse) == 2 and max(r2, rmse) == 2 and min(r2, rmse, 0.1) == 0.1", True),
        ("metrics['test auc'] / 3 - 0.25 == 0 * +rmse", True),
    ],
)
def test_a_condition_is_judged_by_the_metrics(condition: str, holds: bool) -> None:
    assert _holds(condition).holds is holds


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ("r2", "no comparison"),
        ("", "no expression"),
        ("r2 >", "no expression"),
        ("r2 = 1", "no expression"),
        ("r2 in 1", "conditions compare with"),
        ("r2 > 'high'", "neither a metric nor a number"),
        ("r2 > True", "neither a metric nor a number"),
        ("__import__('os').system('x') > 1", "neither a metric nor a number"),
        ("r2.real > 1", "neither a metric nor a number"),
        ("r2 ** 9999 > 1", "neither a metric nor a number"),
        ("champion > 1", "neither a metric nor a number"),
        ("abs(r2, rmse) > 1", "abs takes one number"),
        ("min(r2) > 1", "min takes two numbers or more"),
        ("min(*r2, 1) > 1", "neither a metric nor a number"),
        ("(" * 150 + "r2" + ")" * 150 + " > 1", ""),
        ("r2 > 1" + " and r2 > 1" * 100, "longer than"),
        ("r2 > 1\x00", "no expression"),
    ],
)
def test_what_is_no_condition_is_refused_with_the_reason(condition: str, reason: str) -> None:
    assert reason in why_bad_gate(condition)


@given(st.text(alphabet="r2 <>=!()+-*/.,'[]0123456789abcnotdhmpi_\n\\", max_size=60))
def test_any_text_is_refused_or_judged_but_never_raises(text: str) -> None:
    if not why_bad_gate(text):
        assert judge([text], METRICS, {"r2": 0.1})[0].condition == text


def test_the_explanation_shows_the_numbers_that_were_compared() -> None:
    verdict = _holds("rmse <= champion.rmse * 1.01 and rmse > 0", champion={"rmse": 1.9})
    assert str(verdict) == (
        "rmse <= champion.rmse * 1.01 and rmse > 0 does not hold: rmse = 2, champion.rmse = 1.9"
    )


@pytest.mark.parametrize("condition", ["rmse < champion.rmse", "not rmse > champion['rmse'] + 1"])
@pytest.mark.parametrize("champion", [None, {}, {"rmse": math.nan}])
def test_what_depends_on_a_missing_champion_holds_and_says_so(
    condition: str, champion: Mapping[str, float] | None
) -> None:
    verdict = _holds(condition, champion=champion)
    assert verdict.holds
    assert "champion" in verdict.explanation


def test_a_missing_champion_excuses_nothing_else() -> None:
    assert not _holds("r2 > 0.9 and rmse < champion.rmse").holds


@pytest.mark.parametrize("condition", ["mae < 3", "r2 > 0 or mae < 3", "champion.r2 > 0 and mae < 3"])
def test_a_metric_that_was_not_logged_never_passes(condition: str) -> None:
    verdict = _holds(condition)
    assert not verdict.holds
    assert "'mae' was not logged" in verdict.explanation


@pytest.mark.parametrize("condition", ["r2 > 0.1", "not r2 < 0.1", "r2 != 1"])
def test_a_metric_that_is_no_number_never_passes(condition: str) -> None:
    verdict = _holds(condition, {"r2": math.nan})
    assert (verdict.holds, verdict.explanation) == (False, "r2 = nan")


@pytest.mark.parametrize("condition", ["r2 / 0 > 1", "r2 > 1e999 * 0", "r2 < " + "9" * 400])
def test_arithmetic_without_a_result_does_not_pass(condition: str) -> None:
    assert not _holds(condition).holds
