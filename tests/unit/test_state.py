from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbtools.execution.events import (
    Artifact,
    CellFinished,
    CellStarted,
    Event,
    Failure,
    PlannedStep,
    Revision,
    RunFinished,
    RunStarted,
    StageFailed,
    StageFinished,
    StageRetried,
    StageReused,
    StageSkipped,
    StageStarted,
    StageTracked,
    decode,
    encode,
)
from nbtools.execution.state import RunState, StageState, fold

FAILURE = Failure("error", "ValueError: no", cell=3, line=2)
MODEL = Artifact("model", "models/best", "aa", 12)
STARTED = RunStarted(
    "r1", 1.0, "x", ("fit",), (PlannedStep("p.a", "run", "1 cell changed", "a.ipynb"), PlannedStep("p.b", "run", "")),
    Revision("c0ffee", "main"), {"seed": 1}, 2,
)  # fmt: skip
STAGE = StageStarted(
    "r1",
    2.0,
    "p.a",
    "a.ipynb",
    "dd",
    5,
    "ff",
    1,
    {"seed": 1},
    (MODEL,),
    "CPython 3.11",
    "/usr/bin/python3",
)


def _stage(*events: Event) -> StageState:
    return fold([STARTED, *events]).stages["p.a"]


# The journal's form


@pytest.mark.parametrize("kind", get_args(Event), ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_every_event_comes_back_through_json(kind: type, data: st.DataObject) -> None:
    event = data.draw(st.builds(kind))
    again = decode(json.loads(json.dumps(encode(event))))
    # JSON has neither tuples nor keys other than texts; inside mappings of outside values both may be lost.
    assert json.dumps(encode(again)) == json.dumps(encode(event))
    assert type(again) is kind


@pytest.mark.parametrize(
    "event",
    [
        STARTED,
        STAGE,
        CellStarted("r1", 2.0, "p.a", 1),
        CellFinished("r1", 2.0, "p.a", 1, 0.5),
        StageRetried("r1", 3.0, "p.a", 1, FAILURE),
        StageFinished("r1", 4.0, "p.a", "ff", 2.0, (MODEL,), {"auc": 0.7}, "executed/a.ipynb"),
        StageReused("r1", 4.0, "p.a", "ff", "restored", (MODEL,)),
        StageFailed("r1", 4.0, "p.a", 2.0, FAILURE, 2),
        StageSkipped("r1", 4.0, "p.a", "p.b"),
        RunFinished("r1", 5.0, "passed", 4.0),
    ],
    ids=lambda event: type(event).__name__,
)
def test_an_event_is_equal_to_what_the_journal_gives_back(event: Event) -> None:
    assert decode(json.loads(json.dumps(encode(event)))) == event


def test_fields_of_a_newer_version_are_passed_over() -> None:
    record = {**encode(RunFinished("r1", 5.0, "passed", 4.0)), "mood": "good"}
    assert decode(record) == RunFinished("r1", 5.0, "passed", 4.0)


@pytest.mark.parametrize("record", [{}, {"event": "Sunrise"}, {"event": None}])
def test_an_unknown_event_is_refused(record: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="unknown event"):
        decode(record)


# The fold


def test_a_run_begins_with_its_planned_stages_waiting() -> None:
    state = fold([STARTED])
    assert (state.run, state.status, state.started_at, state.targets) == ("r1", "running", 1.0, ("fit",))
    assert state.overrides == {"seed": 1}
    assert state.revision.commit == "c0ffee"
    assert [(key, stage.status, stage.reason) for key, stage in state.stages.items()] == [
        ("p.a", "waiting", "1 cell changed"),
        ("p.b", "waiting", ""),
    ]


def test_a_started_stage_is_running_with_all_that_it_was_given() -> None:
    stage = _stage(STAGE)
    assert (stage.status, stage.started_at, stage.cells, stage.cell, stage.attempt) == (
        "running",
        2.0,
        5,
        0,
        1,
    )
    assert (stage.params, stage.inputs, stage.fingerprint) == ({"seed": 1}, (MODEL,), "ff")
    assert stage.interpreter == "/usr/bin/python3"
    assert (stage.tracking_run, _stage(STAGE, StageTracked("r1", 3.0, "p.a", 1, "m1")).tracking_run) == (
        "",
        "m1",
    )
    assert stage.reason == "1 cell changed"


def test_a_running_stage_knows_the_cell_that_began_last() -> None:
    assert _stage(STAGE, CellStarted("r1", 2.1, "p.a", 2), CellFinished("r1", 2.2, "p.a", 2, 0.1)).cell == 2


def test_a_finished_stage_has_outputs_metrics_and_no_failure() -> None:
    finished = StageFinished("r1", 4.0, "p.a", "ff", 2.0, (MODEL,), {"auc": 0.7}, "executed/a.ipynb")
    stage = _stage(STAGE, StageRetried("r1", 3.0, "p.a", 1, FAILURE), STAGE, finished)
    assert (stage.status, stage.duration_s, stage.failure) == ("finished", 2.0, None)
    assert (stage.outputs, stage.metrics, stage.executed) == ((MODEL,), {"auc": 0.7}, "executed/a.ipynb")


def test_a_retried_stage_waits_with_its_failure() -> None:
    stage = _stage(STAGE, StageRetried("r1", 3.0, "p.a", 1, FAILURE))
    assert (stage.status, stage.failure) == ("waiting", FAILURE)


def test_a_failed_stage_keeps_its_failure() -> None:
    stage = _stage(STAGE, StageFailed("r1", 4.0, "p.a", 2.0, FAILURE))
    assert (stage.status, stage.failure, stage.duration_s) == ("failed", FAILURE, 2.0)


@pytest.mark.parametrize("how", ["up to date", "restored", "unchanged inputs"])
def test_a_reused_stage_says_how(how: str) -> None:
    stage = _stage(StageReused("r1", 4.0, "p.a", "ff", how, (MODEL,)))
    assert (stage.status, stage.outputs, stage.fingerprint) == (how, (MODEL,), "ff")


def test_a_skipped_stage_says_because_of_what() -> None:
    stage = _stage(StageSkipped("r1", 4.0, "p.a", "p.b"))
    assert (stage.status, stage.reason) == ("skipped", "p.b")


def test_a_finished_run_has_its_status_and_end() -> None:
    state = fold([STARTED, RunFinished("r1", 5.0, "failed", 4.0)])
    assert (state.status, state.finished_at, state.duration_s) == ("failed", 5.0, 4.0)


def test_a_stage_that_was_not_planned_is_taken_in() -> None:
    assert fold([STARTED, StageSkipped("r1", 4.0, "p.new", "x")]).stages["p.new"].status == "skipped"


def test_a_run_without_events_has_no_state() -> None:
    with pytest.raises(ValueError, match="no state"):
        fold([])


STAGE_EVENTS = st.sampled_from(
    [
        STAGE,
        CellStarted("r1", 2.0, "p.a", 1),
        StageRetried("r1", 3.0, "p.a", 1, FAILURE),
        StageFinished("r1", 4.0, "p.a", "ff", 2.0),
        StageFailed("r1", 4.0, "p.b", 2.0, FAILURE),
        RunFinished("r1", 5.0, "passed", 4.0),
    ]
)


@given(st.lists(STAGE_EVENTS), st.lists(STAGE_EVENTS))
def test_a_state_can_be_folded_in_parts(first: Sequence[Event], second: Sequence[Event]) -> None:
    state: RunState = fold([STARTED, *first])
    for event in second:
        state = state.after(event)
    assert state == fold([STARTED, *first, *second])
