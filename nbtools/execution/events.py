"""What happens in a run, as values; and the journal's form of them.

Rules of this file: no I/O. Every event carries the run it belongs to and when it happened
(seconds since the epoch, UTC). A run's state, its history, live progress, reports and MLflow
logging are readers of this one sequence.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Revision:
    """The state of the code: what git says of the project folder; empty strings without git."""

    commit: str = ""
    branch: str = ""
    message: str = ""
    dirty: bool = False
    user: str = ""
    remote: str = ""


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step as the plan saw it: ``action`` is ``run``, ``restore`` or ``up to date``."""

    stage: str
    action: str
    reason: str
    notebook: str = ""


@dataclass(frozen=True, slots=True)
class Artifact:
    """Bytes that a stage read or wrote: a dataset, its path in the project, digest and size."""

    dataset: str
    path: str
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a stage failed.

    Parameters
    ----------
    kind
        ``error``, ``exit``, ``timeout``, ``kernel died``, ``output missing``, ``contract``,
        ``gate``, ``memory``, ``zygote died``, ``tracking lost``, ``cancelled``, ``pruned``, ``condition`` or ``system``.
    message
        One sentence for people, secrets masked, no ANSI codes.
    cell
        Number of the code cell in the source notebook, from 1; 0 when no cell is to blame.
    line
        Line within that cell, from 1; 0 when unknown.
    excerpt
        The cell's source around the failing line, with line numbers and a marker.
    traceback
        The error's traceback without ANSI codes.
    notebook
        Path of the partially executed notebook, relative to the project.
    """

    kind: str
    message: str
    cell: int = 0
    line: int = 0
    excerpt: str = ""
    traceback: str = ""
    notebook: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A plan begins to be carried out; ``tracked`` if MLflow is to know of it, ``server`` if that is not local.

    ``command`` is what was typed; empty for a plain ``nbtools run`` of the targets.
    """

    run: str
    at: float
    project: str
    targets: tuple[str, ...]
    steps: tuple[PlannedStep, ...]
    revision: Revision
    overrides: Mapping[str, Any] = field(default_factory=dict)
    jobs: int = 1
    tracked: bool = False
    server: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True)
class StageDrawn:
    """A variant joins a run that is under way, as a sampler has drawn it."""

    run: str
    at: float
    stage: str
    notebook: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A stage's notebook begins; ``params`` show a secret as ``{"secret": NAME}``."""

    run: str
    at: float
    stage: str
    notebook: str
    notebook_digest: str
    cells: int
    fingerprint: str
    attempt: int
    params: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[Artifact, ...] = ()
    python: str = ""
    interpreter: str = ""
    seeds: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StageTracked:
    """MLflow has a run for an attempt at a stage; it may come later than the attempt's start, and than its end."""

    run: str
    at: float
    stage: str
    attempt: int
    tracking_run: str


@dataclass(frozen=True, slots=True)
class CellStarted:
    """A code cell of the source notebook begins; ``cell`` counts from 1."""

    run: str
    at: float
    stage: str
    cell: int


@dataclass(frozen=True, slots=True)
class CellFinished:
    """A code cell ran to its end."""

    run: str
    at: float
    stage: str
    cell: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class StageRetried:
    """An attempt failed and the stage is tried again."""

    run: str
    at: float
    stage: str
    attempt: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class StageFinished:
    """A stage's outputs, executed notebook and completion record are committed.

    ``executed`` is the executed notebook's path relative to the project, ``gates`` a sentence for each
    condition that holds, ``resumed`` whether it went on at a failed cell.
    """

    run: str
    at: float
    stage: str
    fingerprint: str
    duration_s: float
    outputs: tuple[Artifact, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    executed: str = ""
    gates: tuple[str, ...] = ()
    resumed: bool = False


@dataclass(frozen=True, slots=True)
class StageReused:
    """Nothing had to run: ``how`` is ``up to date``, ``restored`` or ``unchanged inputs``."""

    run: str
    at: float
    stage: str
    fingerprint: str
    how: str
    outputs: tuple[Artifact, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StageFailed:
    """A stage ended without a result."""

    run: str
    at: float
    stage: str
    duration_s: float
    failure: Failure
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class StagePruned:
    """A variant was stopped half-way because others do better: no failure, and no result.

    ``notebook`` is the path of the partially executed notebook, relative to the project.
    """

    run: str
    at: float
    stage: str
    duration_s: float
    why: str
    notebook: str = ""
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class StageSkipped:
    """A stage was not tried because of ``because``: the stage it needs, or a reason."""

    run: str
    at: float
    stage: str
    because: str


@dataclass(frozen=True, slots=True)
class RunDelivered:
    """Everything that MLflow should know of the run has arrived there."""

    run: str
    at: float


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The run ended; ``status`` is ``passed``, ``failed`` or ``cancelled``."""

    run: str
    at: float
    status: str
    duration_s: float


Event: TypeAlias = (
    RunStarted
    | StageDrawn
    | StageStarted
    | StageTracked
    | CellStarted
    | CellFinished
    | StageRetried
    | StageFinished
    | StageReused
    | StageFailed
    | StagePruned
    | StageSkipped
    | RunFinished
    | RunDelivered
)

_TYPES: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        RunStarted,
        StageDrawn,
        StageStarted,
        StageTracked,
        CellStarted,
        CellFinished,
        StageRetried,
        StageFinished,
        StageReused,
        StageFailed,
        StagePruned,
        StageSkipped,
        RunFinished,
        RunDelivered,
    )
}
_PARTS: dict[str, type] = {
    "steps": PlannedStep,
    "revision": Revision,
    "inputs": Artifact,
    "outputs": Artifact,
    "failure": Failure,
}


def encode(event: Event) -> dict[str, Any]:
    """Return the event as JSON-ready values; its kind stands under ``event``."""
    name = type(event).__name__
    values = {item: getattr(event, item) for item in type(event).__slots__}
    if all(isinstance(value, str | float | int | None) for value in values.values()):
        return {"event": name, **values}  # those of cells are many
    return {"event": name, **dataclasses.asdict(event)}


def decode(record: Mapping[str, Any]) -> Event:
    """Return the event that ``encode`` made ``record`` from.

    Fields that this version does not know are passed over, so that a newer journal stays readable.

    Raises
    ------
    ValueError
        If the record is of no known kind.
    """
    kind = _TYPES.get(str(record.get("event")))
    if kind is None:
        raise ValueError(f"unknown event {record.get('event')!r}")
    event: Event = _build(kind, record)
    return event


def _build(kind: type, record: Mapping[str, Any]) -> Any:
    names = {item.name for item in dataclasses.fields(kind)}
    return kind(**{name: _part(name, value) for name, value in record.items() if name in names})


def _part(name: str, value: Any) -> Any:
    part = _PARTS.get(name)
    if isinstance(value, list):
        return tuple(_build(part, item) if part else item for item in value)
    if part and isinstance(value, Mapping):
        return _build(part, value)
    return value
