"""Delivering to MLflow what it could not take when it happened: the journal is told again."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from nbtools.errors import NbtoolsError
from nbtools.execution.database import Database
from nbtools.execution.events import (
    Event,
    Failure,
    RunDelivered,
    RunFinished,
    RunStarted,
    StageFailed,
    StageFinished,
    StageRetried,
    StageStarted,
)
from nbtools.execution.state import fold
from nbtools.execution.store import Store
from nbtools.project import Project
from nbtools.tracking.address import StoreAddress
from nbtools.tracking.capturing import captured
from nbtools.tracking.recording import Recorder
from nbtools.tracking.tracker import MlflowTracker, spool_of


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of a run that MLflow did not know in full; ``problems`` is empty if it does now."""

    run: str
    problems: tuple[str, ...] = ()


def undelivered(database: Database, running: str | None) -> list[str]:
    """Return the ids of the runs that MLflow does not know in full, oldest first.

    Parameters
    ----------
    running
        Id of the run that is under way, which is not waited for.
    """
    events = database.events(kinds=("RunStarted", "StageStarted", "RunDelivered"))
    begun = {event.run for event in events if isinstance(event, StageStarted)}
    delivered = {event.run for event in events if isinstance(event, RunDelivered)}
    tracked = [event.run for event in events if isinstance(event, RunStarted) and event.tracked]
    return [run for run in tracked if run in begun and run not in delivered and run != running]


def deliver(
    run: str,
    database: Database,
    project: Project,
    address: StoreAddress,
    note: Callable[[str], None],
    secrets: Collection[str] = (),
    *,
    redirect: bool = False,
) -> Delivery:
    """Tell MLflow all of one run; what it has already is completed, never made twice.

    Parameters
    ----------
    redirect
        Whether a run that was meant for another server may be told of here.
    """
    events = database.events(run=run)
    (meant_for,) = {event.server for event in events if isinstance(event, RunStarted)} or {""}
    if meant_for and meant_for != address.server and not redirect:
        advice = "set MLFLOW_TRACKING_URI to that, or deliver it here all the same: nbtools sync --redirect"
        return Delivery(run, (f"it is meant for {meant_for}: {advice}",))
    recorder = Recorder(project, lambda: captured(project, run), note)
    tracker = MlflowTracker(address, project.root, note, resuming=True, secrets=secrets, recorder=recorder)
    with tempfile.TemporaryDirectory(dir=project.state, prefix="sync-") as folder:
        notebooks = _Notebooks(database, Store(project.store), Path(folder), project)
        for event in [*events, *_ends_of_an_aborted_run(events)]:
            if isinstance(event, StageStarted):
                tracker.begin(event.stage, event.attempt, event.at)
            recorder(event)
            tracker(notebooks.as_they_were(event))
        problems = tracker.close()
    if not problems:
        database.append(RunDelivered(run, time.time()))
        shutil.rmtree(spool_of(project.root, run).parent, ignore_errors=True)
    return Delivery(run, problems)


def _ends_of_an_aborted_run(events: list[Event]) -> Iterator[Event]:
    """Yield what would have been told of a run whose process was killed."""
    if any(isinstance(event, RunFinished) for event in events):
        return
    state, last = fold(events), events[-1].at
    for stage in state.stages.values():
        if stage.status == "running":
            yield StageFailed(state.run, last, stage.stage, 0.0, Failure("cancelled", "nbtools was killed"))
    yield RunFinished(state.run, last, "cancelled", last - state.started_at)


class _Notebooks:
    """Executed notebooks as they were then: by now, others may lie where they lay."""

    def __init__(self, database: Database, store: Store, folder: Path, project: Project) -> None:
        self._completions, _ = database.completions()
        self._last = database.last_outcomes()
        self._store = store
        self._folder = folder
        self._project = project

    def as_they_were(self, event: Event) -> Event:
        """Return the event with the place of its notebook, or without if that is gone."""
        if isinstance(event, StageFinished):
            return replace(event, executed=self._executed(event))
        if isinstance(event, StageFailed | StageRetried) and not self._is_last(event):
            return replace(event, failure=replace(event.failure, notebook=""))
        return event

    def _executed(self, event: StageFinished) -> str:
        completion = self._completions.get(event.fingerprint)
        if completion is None:
            return ""
        path = self._folder / Path(event.executed).name
        try:
            path.write_bytes(self._store.read(completion.executed))
        except (NbtoolsError, OSError):
            return ""
        return self._project.relative(path)

    def _is_last(self, event: StageFailed | StageRetried) -> bool:
        last = self._last.get(event.stage)
        return last == event and (self._project.root / event.failure.notebook).is_file()
