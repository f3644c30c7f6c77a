"""A run's state: the fold of its events.

Rules of this file: no I/O. Terminal states are final.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never

from nbtools.execution.events import (
    Artifact,
    CellFinished,
    CellStarted,
    Event,
    Failure,
    Revision,
    RunDelivered,
    RunFinished,
    RunStarted,
    StageDrawn,
    StageFailed,
    StageFinished,
    StagePruned,
    StageRetried,
    StageReused,
    StageSkipped,
    StageStarted,
    StageTracked,
)


@dataclass(frozen=True, slots=True)
class StageState:
    """Where a stage of a run stands.

    Parameters
    ----------
    status
        ``waiting``, ``running``, ``finished``, ``failed``, ``cancelled``, ``pruned``, ``skipped``,
        ``up to date``, ``restored`` or ``unchanged inputs``.
    cells, cell
        How many code cells the notebook has, and which one began last.
    """

    stage: str
    status: str = "waiting"
    reason: str = ""
    notebook: str = ""
    started_at: float = 0.0
    duration_s: float = 0.0
    cells: int = 0
    cell: int = 0
    attempt: int = 0
    failure: Failure | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    inputs: tuple[Artifact, ...] = ()
    outputs: tuple[Artifact, ...] = ()
    params: Mapping[str, object] = field(default_factory=dict)
    fingerprint: str = ""
    notebook_digest: str = ""
    python: str = ""
    interpreter: str = ""
    seeds: Mapping[str, object] = field(default_factory=dict)
    executed: str = ""
    gates: tuple[str, ...] = ()
    resumed: bool = False
    tracking_run: str = ""


@dataclass(frozen=True, slots=True)
class RunState:
    """Where a run stands; ``status`` is ``running``, ``passed``, ``failed``, ``cancelled`` or ``aborted``."""

    run: str = ""
    project: str = ""
    status: str = "running"
    targets: tuple[str, ...] = ()
    overrides: Mapping[str, object] = field(default_factory=dict)
    revision: Revision = field(default_factory=Revision)
    started_at: float = 0.0
    finished_at: float | None = None
    duration_s: float = 0.0
    stages: Mapping[str, StageState] = field(default_factory=dict)

    def after(self, event: Event) -> RunState:
        """Return the state once ``event`` has happened."""
        if isinstance(event, RunStarted):
            return _started(event)
        if isinstance(event, RunFinished):
            return replace(self, status=event.status, finished_at=event.at, duration_s=event.duration_s)
        if isinstance(event, RunDelivered):
            return self
        before = self.stages.get(event.stage, StageState(event.stage))
        return replace(self, stages={**self.stages, event.stage: _stage_after(before, event)})


def fold(events: Iterable[Event]) -> RunState:
    """Return the state of a run after all its events.

    Raises
    ------
    ValueError
        If there are none.
    """
    state: RunState | None = None
    for event in events:
        state = (state or RunState()).after(event)
    if state is None:
        raise ValueError("a run without events has no state")
    return state


def _started(event: RunStarted) -> RunState:
    return RunState(
        run=event.run,
        project=event.project,
        targets=event.targets,
        overrides=event.overrides,
        revision=event.revision,
        started_at=event.at,
        stages={
            step.stage: StageState(step.stage, reason=step.reason, notebook=step.notebook)
            for step in event.steps
        },
    )


def _stage_after(stage: StageState, event: Event) -> StageState:  # noqa: C901, PLR0911, PLR0912 - a table of events
    match event:
        case StageStarted():
            return replace(
                stage,
                status="running",
                notebook=event.notebook,
                started_at=event.at,
                cells=event.cells,
                cell=0,
                attempt=event.attempt,
                params=event.params,
                inputs=event.inputs,
                fingerprint=event.fingerprint,
                notebook_digest=event.notebook_digest,
                python=event.python,
                interpreter=event.interpreter,
                seeds=event.seeds,
                outputs=(),
            )
        case StageTracked():
            return (
                replace(stage, tracking_run=event.tracking_run) if event.attempt >= stage.attempt else stage
            )
        case CellStarted():
            return replace(stage, cell=event.cell)
        case CellFinished():
            return stage
        case StageRetried():
            return replace(stage, status="waiting", failure=event.failure)
        case StageFinished():
            return replace(
                stage,
                status="finished",
                duration_s=event.duration_s,
                metrics=event.metrics,
                outputs=event.outputs,
                executed=event.executed,
                gates=event.gates,
                resumed=event.resumed,
                failure=None,
            )
        case StageReused():
            return replace(
                stage,
                status=event.how,
                outputs=event.outputs,
                metrics=event.metrics,
                fingerprint=event.fingerprint,
            )
        case StageFailed():
            status = "cancelled" if event.failure.kind == "cancelled" else "failed"
            return replace(stage, status=status, duration_s=event.duration_s, failure=event.failure)
        case StagePruned():
            return replace(stage, status="pruned", duration_s=event.duration_s, reason=event.why)
        case StageDrawn():
            return replace(stage, notebook=event.notebook, reason=event.reason)
        case StageSkipped():
            return replace(stage, status="skipped", reason=event.because)
        case RunStarted() | RunFinished() | RunDelivered():
            return stage
        case _:
            assert_never(event)
