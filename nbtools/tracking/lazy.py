"""MLflow's side of a run begins when the first notebook needs it, and not at all if none does."""

from __future__ import annotations

import math
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from nbtools.execution.events import Event, RunDelivered, RunStarted
from nbtools.execution.outcome import Tracking
from nbtools.tracking.address import StoreAddress, sqlite_address
from nbtools.tracking.recording import Recorder
from nbtools.tracking.template import ensure_store
from nbtools.tracking.tracker import MlflowTracker, spool_of

#: How long a stage waits for its server before it logs here: at first, and once the server is known to be away.
_GONE_S = 20.0
_AWAY_S = 1.0


def untracked(folder: Path) -> Tracking:
    """Return a tracking that forgets: what notebooks log goes to a store that is removed with the run's folder."""
    database = folder / "mlflow.db"
    experiments: dict[str, str] = {}

    def address() -> dict[str, str]:
        return {"MLFLOW_TRACKING_URI": sqlite_address(database).uri}

    def begin(stage: str, attempt: int) -> Future[dict[str, str]]:
        ensure_store(database, lambda _: None)
        experiments[stage] = f"{stage} {attempt}"
        begun: Future[dict[str, str]] = Future()
        begun.set_result({**address(), "MLFLOW_EXPERIMENT_NAME": experiments[stage]})
        return begun

    return Tracking(
        begin,
        address,
        lambda stage: _latest_metrics(database, experiments[stage]),
        lambda stage, metric: (
            _history(database, experiments[stage], metric) if stage in experiments else None
        ),
    )


def _latest_metrics(database: Path, experiment: str) -> dict[str, float]:
    """Return the newest value of each metric in an experiment, read without importing MLflow."""
    query = (
        "SELECT key, value, is_nan FROM latest_metrics JOIN runs USING (run_uuid) "
        "JOIN experiments USING (experiment_id) WHERE experiments.name = ? ORDER BY timestamp"
    )
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        rows = connection.execute(query, (experiment,)).fetchall()
    return {key: math.nan if is_nan else value for key, value, is_nan in rows}


def _history(database: Path, experiment: str, metric: str) -> list[tuple[int, float]]:
    """Return step and value of all that was logged of a metric in an experiment, oldest first."""
    query = (
        "SELECT step, value, is_nan FROM metrics JOIN runs USING (run_uuid) "
        "JOIN experiments USING (experiment_id) WHERE experiments.name = ? AND key = ? ORDER BY timestamp, step"
    )
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        rows = connection.execute(query, (experiment, metric)).fetchall()
    return [(step, math.nan if is_nan else value) for step, value, is_nan in rows]


class Spool:
    """Takes what notebooks log while their server is away; one experiment for each attempt at a stage."""

    def __init__(self, database: Callable[[], Path]) -> None:
        self._database = database
        self._experiments: dict[str, str] = {}
        self._making = threading.Lock()

    @property
    def is_used(self) -> bool:
        """Whether some stage has had to log here."""
        return bool(self._experiments)

    def has(self, stage: str) -> bool:
        """Tell whether a stage logs here."""
        return stage in self._experiments

    def begin(self, stage: str, attempt: int) -> dict[str, str]:
        """Return what has a stage's kernel log here."""
        database = self._database()
        with self._making:
            ensure_store(database, lambda _: None)
        self._experiments[stage] = name = f"{stage} {attempt}"
        return {"MLFLOW_TRACKING_URI": sqlite_address(database).uri, "MLFLOW_EXPERIMENT_NAME": name}

    def metrics(self, stage: str) -> dict[str, float]:
        """Return what a stage has logged."""
        return _latest_metrics(self._database(), self._experiments[stage])

    def history(self, stage: str, metric: str) -> list[tuple[int, float]]:
        """Return steps and values of a metric that a stage has logged."""
        return _history(self._database(), self._experiments[stage], metric)


class LazyTracker:
    """Starts MLflow's side of a run when the first notebook needs it, and not at all if none does.

    Parameters
    ----------
    journal
        Told when everything has been delivered.
    hurry, secrets, recorder
        As of ``MlflowTracker``.
    """

    def __init__(
        self,
        address: StoreAddress,
        root: Path,
        note: Callable[[str], None],
        journal: Callable[[Event], None],
        hurry: Callable[[], bool] = bool,
        secrets: Collection[str] = (),
        recorder: Recorder | None = None,
    ) -> None:
        self._recorder = recorder
        self._hurry = hurry
        self._secrets = secrets
        self._address = address
        self._root = root
        self._note = note
        self._journal = journal
        self._tracker: MlflowTracker | None = None
        self._begun: RunStarted | None = None
        self._starting = threading.Lock()  # several stages may be the first

    def tracking(self, *, spooling: bool = False) -> Tracking:
        """Return what execution asks.

        Parameters
        ----------
        spooling
            Whether stages go on while a server is away; what they log is kept here until it is delivered.
        """
        if spooling and self._address.database is None:
            return self._spooling()
        return Tracking(
            begin=lambda stage, attempt: self._started().begin(stage, attempt),
            address=lambda: self._started().address(),
            metrics=lambda stage: self._started().metrics(stage),
            history=lambda stage, metric: self._started().history(stage, metric),
        )

    def _spooling(self) -> Tracking:
        own, here = (
            self.tracking(),
            Spool(lambda: spool_of(self._root, self._begun.run if self._begun else "")),
        )
        return replace(
            own,
            metrics=lambda stage: here.metrics(stage) if here.has(stage) else own.metrics(stage),
            history=lambda stage, name: (
                here.history(stage, name) if here.has(stage) else own.history(stage, name)
            ),
            spool=here.begin,
            spool_after_s=lambda: _AWAY_S if here.is_used else _GONE_S,
        )

    def __call__(self, event: Event) -> None:
        """Take in an event."""
        if isinstance(event, RunStarted):
            self._begun = event
            if any(step.action == "run" for step in event.steps):
                self._started()
        elif self._tracker is not None:
            self._tracker(event)

    def close(self, given_up: Callable[[], bool] = bool) -> None:
        """Wait until everything is delivered or somebody has ``given_up``, and tell what could not be."""
        if self._tracker is None or self._begun is None:
            return
        warnings = self._tracker.close(given_up)
        for warning in warnings:
            self._note(warning)
        if warnings:
            self._note("tracking: nothing is lost; nbtools sync delivers it")
        else:
            self._journal(RunDelivered(self._begun.run, time.time()))
            shutil.rmtree(spool_of(self._root, self._begun.run).parent, ignore_errors=True)

    def _started(self) -> MlflowTracker:
        with self._starting:
            if self._tracker is None:
                self._tracker = MlflowTracker(
                    self._address,
                    self._root,
                    self._note,
                    hurry=self._hurry,
                    secrets=self._secrets,
                    recorder=self._recorder,
                )
                if self._begun is not None:
                    self._tracker(self._begun)
            return self._tracker
