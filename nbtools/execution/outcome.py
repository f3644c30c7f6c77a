"""What the attempts of a run share, and how one ends: values only, so that a run that starts nothing stays light."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from nbtools.execution.cancellation import Cancellation
from nbtools.execution.contracts import Contracts
from nbtools.execution.events import Artifact, Failure, Revision
from nbtools.execution.kernels.warm.nursery import Nursery
from nbtools.execution.masking import Masking
from nbtools.execution.workspace import Workspace
from nbtools.pipeline.gates import Verdict
from nbtools.pipeline.plan import Completion
from nbtools.pipeline.spec import Stage


@dataclass(frozen=True, slots=True)
class Tracking:
    """What execution asks of whoever keeps the runs.

    Parameters
    ----------
    begin
        Begins the MLflow run of a stage (key, attempt); the variables that put a kernel inside it follow.
    spool
        Returns variables that have a stage (key, attempt) log to this machine while its server is away; None where that
        is not wanted.
    spool_after_s
        How long the server is waited for before that.
    address
        Variables that name the store; known at once.
    metrics
        What a stage's notebook logged; None if that cannot be found out.
    history
        Steps and values of one metric (stage key, name) that a stage has logged so far; None if that cannot be found out.
    """

    begin: Callable[[str, int], Future[dict[str, str]]]
    address: Callable[[], Mapping[str, str]] = dict
    metrics: Callable[[str], Mapping[str, float] | None] = lambda _stage: {}
    history: Callable[[str, str], Sequence[tuple[int, float]] | None] = lambda _stage, _metric: ()
    spool: Callable[[str, int], Mapping[str, str]] | None = None
    spool_after_s: Callable[[], float] = lambda: 0.0


@dataclass(frozen=True, slots=True)
class KeepRule:
    """That kernels of failed cells are kept: how many, and for how long."""

    most: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Around:
    """What all attempts of a run share."""

    run: str
    workspace: Workspace
    tracking: Tracking
    contracts: Contracts
    cancellation: Cancellation
    masking: Masking
    revision: Revision
    note: Callable[[str], None]
    nursery: Nursery | None = None
    keeping: KeepRule | None = None
    prefixes: dict[str, Any] = field(default_factory=dict)
    making: threading.Lock = field(default_factory=threading.Lock)

    def prefix_of(self, stage: str) -> Any:
        """Return what the variants of a stage share; a ``SharedPrefix``."""
        from nbtools.execution.kernels.warm.prefix import SharedPrefix

        assert self.nursery is not None
        with self.making:
            if stage not in self.prefixes:
                self.prefixes[stage] = SharedPrefix(lambda why: self.note(f"{stage}: {why}"))
                self.nursery.before_closing(self.prefixes[stage].close)
            return self.prefixes[stage]


@dataclass(frozen=True, slots=True)
class Success:
    """What a stage made."""

    completion: Completion
    outputs: tuple[Artifact, ...]
    executed: str
    gates: tuple[str, ...] = ()


class Failed(Exception):
    """The attempt ended without a result; ``failure`` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def gate_failure(stage: Stage, verdicts: Sequence[Verdict]) -> Failure:
    """Return the failure of a stage whose result its gates refuse."""
    refused = [verdict for verdict in verdicts if not verdict.holds]
    places = {gate.condition: gate.location for gate in stage.gates}
    count = f"{len(refused)} of {len(verdicts)} gates refuse" if len(verdicts) > 1 else "its gate refuses"
    lines = [f"{'✓' if verdict.holds else '✗'} {verdict}" for verdict in verdicts]
    message = "\n".join([f"{count} the result; the last accepted one stays in use", *lines])
    fix = f"change what it is made of, or the gate at {places[refused[0].condition]}; --force runs it again"
    return Failure("gate", message, fix=fix)
