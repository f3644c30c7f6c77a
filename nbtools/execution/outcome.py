"""What the attempts of a run share, and how one ends: values only, so that a run that starts nothing stays light."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from nbtools.execution.cancellation import Cancellation
from nbtools.execution.contracts import Contracts
from nbtools.execution.events import Artifact, Failure, Revision
from nbtools.execution.masking import Masking
from nbtools.execution.workspace import Workspace
from nbtools.pipeline.plan import Completion


@dataclass(frozen=True, slots=True)
class Tracking:
    """What execution asks of whoever keeps the runs.

    Parameters
    ----------
    environment
        Of a stage (key, attempt): variables that put its kernel inside its own MLflow run.
    metrics
        What a stage's notebook logged.
    """

    environment: Callable[[str, int], Mapping[str, str]] = lambda _stage, _attempt: {}
    metrics: Callable[[str], Mapping[str, float]] = lambda _stage: {}


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


@dataclass(frozen=True, slots=True)
class Success:
    """What a stage made."""

    completion: Completion
    outputs: tuple[Artifact, ...]
    executed: str


class Failed(Exception):
    """The attempt ended without a result; ``failure`` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure
