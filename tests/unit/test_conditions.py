from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbtools.pipeline.conditions import (
    Judgement,
    Unanswerable,
    judge,
    params_named,
    stages_named,
    why_bad_condition,
)
from nbtools.pipeline.expressions import Missing

PARAMS: dict[str, Any] = {"sample": 0.1, "n": 3, "channel": "beta", "publish": True, "nothing": None}
METRICS = {("evaluate", "auc"): 0.71, ("train.fit", "loss"): 0.5, ("my-fit", "val auc"): 0.6}


def judged(text: str, known: bool = True) -> Judgement:
    assert why_bad_condition(text) == ""

    def metric(stage: str, name: str) -> float | Missing:
        return METRICS[stage, name] if known else Missing.UNKNOWN

    return judge(text, PARAMS.__getitem__, metric)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("sample > 0.05", True),
        ("n == 3 and sample < 0.1", False),
        ("channel == 'beta'", True),
        ("channel in ['stable', 'nightly']", False),
        ("channel not in ('stable',)", True),
        ("publish", True),
        ("not publish", False),
        ("nothing == null", True),
        ("nothing != None and publish", False),
        ("publish == true", True),
        ("false", False),
        ("True", True),
        ("evaluate.auc >= 0.7", True),
        ("train.fit.loss * 2 < evaluate.auc", False),
        ("metrics['my-fit']['val auc'] > 0.5", True),
        ("max(evaluate.auc, n) == n", True),
        ("0 < sample <= n - 2", True),
    ],
)
def test_a_condition_is_judged_by_params_and_metrics(text: str, holds: bool) -> None:
    assert judged(text).holds is holds


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("evaluate.auc > 0.7", None),
        ("evaluate.auc > 0.7 and not publish", False),
        ("evaluate.auc > 0.7 or publish", True),
        ("not evaluate.auc > 0.7", None),
        ("evaluate.auc in [1, 2]", None),
        ("evaluate.auc + 1 > 2 and publish", None),
    ],
)
def test_what_is_not_known_yet_leaves_open_only_what_depends_on_it(text: str, holds: bool | None) -> None:
    assert judged(text, known=False).holds is holds


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("sample * 2", "it is no comparison"),
        ("'beta'", "it is no comparison"),
        ("open('x').read() == 'y'", "neither a param"),
        ("a.b.c.d > 1", "neither a param"),
        ("[x for x in n] == n", "neither a param"),
        ("channel in 'beta, stable'", "`in` needs a list"),
        ("sample >", "no expression"),
        ("n is 3", "conditions compare with"),
        ("metrics > 1", "neither a param"),
        ("", "no expression"),
        ("sample > 1" + " " * 2000, "longer than"),
    ],
)
def test_what_is_no_condition_is_refused_with_the_reason(text: str, reason: str) -> None:
    assert reason in why_bad_condition(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sample > 'a'", "not supported"),
        ("n", "n is neither true nor false"),
        ("not channel", "compare it with something (channel = 'beta')"),
        ("n / 0 > 1", "division by zero"),
    ],
)
def test_values_that_cannot_be_compared_are_told(text: str, words: str) -> None:
    with pytest.raises(Unanswerable, match=r".*") as caught:
        judged(text)
    assert words in str(caught.value)


def test_the_explanation_shows_each_value_once() -> None:
    shown = judged("sample > 0.5 or sample < 0.2 and evaluate.auc > 0.7 and channel == 'beta'").explanation
    assert shown == "sample = 0.1, evaluate.auc = 0.71, channel = 'beta'"


def test_params_and_stages_are_named_apart() -> None:
    text = "publish and fit.auc > 0.6 and fit.loss < 1 and deploy.smoke.ok == 1 and metrics['x-y']['z'] > 0"
    assert params_named(text) == ("publish",)
    assert stages_named(text) == ("fit", "deploy.smoke", "x-y")


@given(st.text(alphabet="ab.<>=()[]'+-*/ 01andortuefi", max_size=40))
def test_any_text_is_refused_or_judged_but_never_breaks(text: str) -> None:
    if why_bad_condition(text):
        return
    try:
        judgement = judge(text, lambda _: 1, lambda _stage, _name: 1.0)
    except Unanswerable:
        return
    assert judgement.holds in (True, False)
