"""Reading runs back from MLflow, page by page.

MLflow's grammar of filters and orders is passed on unchanged. Where the store is a database that this process can open,
only the ids come from MLflow's own query, and their columns are read together (``experiments_sql``); a server is asked
through MLflow's client.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nbtools.errors import NbtoolsError, OperationError, UsageError, suggest
from nbtools.tracking.address import StoreAddress, without_credentials
from nbtools.tracking.experiments_filter import check_filter, check_sort

Level = Literal["stage", "pipeline", "all"]
#: How many runs are read at once: few enough for SQLite's limit on variables and for a server's patience.
PAGE = 500
#: What only the runs of one level have. LIKE, because servers before MLflow 3.10 know no IS NOT NULL.
_LEVELS: Mapping[str, str] = {
    "stage": "tags.`nbtools.stage` LIKE '%'",
    "pipeline": "tags.`nbtools.targets` LIKE '%'",
    "all": "",
}
#: The tags that every run is read with; others may be as long as a notebook's params.
TAGS = (
    "mlflow.user",
    "mlflow.source.name",
    "mlflow.source.git.commit",
    "mlflow.runName",
    "mlflow.parentRunId",
    "nbtools.run",
    "nbtools.stage",
    "nbtools.targets",
    "nbtools.attempt",
)
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    # Who looks waits: a server that does not answer is reported after seconds, not after minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """One run as MLflow knows it.

    Parameters
    ----------
    run_id
        MLflow's id.
    status
        MLflow's: ``RUNNING``, ``FINISHED``, ``FAILED`` or ``KILLED``.
    stage, run
        The stage (empty for the run of a pipeline) and the nbtools run that it belongs to; empty for runs of others.
    started_at
        Seconds since the epoch.
    duration_s
        None while it runs.
    source, version
        The notebook or project, and the git commit.
    params
        Texts, as MLflow keeps them.
    metrics
        The last value of each.
    tags
        Those in ``TAGS``; all of them if the run was asked for by name.
    """

    run_id: str
    experiment: str
    name: str
    status: str
    started_at: float
    duration_s: float | None = None
    user: str = ""
    source: str = ""
    version: str = ""
    stage: str = ""
    run: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Columns:
    """Which metrics and params are read; None reads all."""

    metrics: Collection[str] | None = None
    params: Collection[str] | None = None
    every_tag: bool = False


@dataclass(frozen=True, slots=True)
class Point:
    """A value of a metric: its step, and when it was logged, in seconds since the epoch."""

    step: int
    at: float
    value: float


ALL = Columns()


class Experiments:
    """The runs of some experiments of one store.

    Parameters
    ----------
    names
        Names or ids of the experiments; none means the project's, which may not exist yet.

    Raises
    ------
    UsageError
        If an experiment is not there or has been deleted.
    OperationError
        If the store cannot be read.
    """

    def __init__(self, address: StoreAddress, names: Sequence[str] = ()) -> None:
        self._address = address
        self._client: Any = None
        self._ids: dict[str, str] = {}
        if address.database is not None and not address.database.exists():
            # Looking makes no store. What is in none is in no experiment either.
            if names:
                raise UsageError.of("nothing has been tracked yet", fix="nbtools run")
            return
        with self._reading():
            self._client = _client(address)
            found = [self._experiment(name, required=bool(names)) for name in names or (address.experiment,)]
            self._ids = {item.experiment_id: item.name for item in found if item is not None}

    @property
    def empty(self) -> bool:
        """Whether there is no experiment, so that there can be no run."""
        return not self._ids

    def pages(
        self,
        filter_string: str = "",
        *,
        level: Level = "stage",
        sort: Sequence[str] = (),
        limit: int | None = None,
        columns: Columns = ALL,
        deleted: bool = False,
    ) -> Iterator[list[TrackedRun]]:
        """Yield the runs that a filter keeps, some at a time; nothing is read beyond what is taken.

        Parameters
        ----------
        filter_string, sort
            In MLflow's grammar; without ``sort`` the newest comes first.
        limit
            How many runs at most.
        deleted
            Whether deleted runs are meant instead.

        Raises
        ------
        UsageError
            If MLflow does not understand the filter or the order.
        OperationError
            If the store cannot be read.
        """
        self._check(filter_string, sort)
        if not self._ids:
            return
        whole = " AND ".join(filter(None, [_LEVELS[level], filter_string.strip()]))
        pages = self._read(whole, list(sort), limit, columns, deleted)
        while True:
            with self._reading():
                page = next(pages, None)
            if page is None:
                return
            yield page

    def search(self, filter_string: str = "", **options: Any) -> list[TrackedRun]:
        """Return all that ``pages`` yields."""
        return list(itertools.chain.from_iterable(self.pages(filter_string, **options)))

    def by_id(self, run_id: str) -> TrackedRun | None:
        """Return the run of an id with all its tags, in whatever experiment it is; None if there is none.

        Raises
        ------
        UsageError
            If it has been deleted.
        """
        if self._client is None:
            return None
        from mlflow.exceptions import MlflowException

        with self._reading():
            try:
                found = self._client.get_run(run_id)
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return None
                raise
            if found.info.lifecycle_stage == "deleted":
                raise self._deleted(run_id, found.info.experiment_id)
            name = self._client.get_experiment(found.info.experiment_id).name
        return from_entity(found, name, Columns(every_tag=True))

    def history(self, run_id: str, metric: str) -> list[Point]:
        """Return all values of a metric, in the order of their steps."""
        with self._reading():
            found = self._client.get_metric_history(run_id, metric)
        points = [Point(item.step, item.timestamp / 1000, item.value) for item in found]
        return sorted(points, key=lambda point: (point.step, point.at))

    def artifact(self, run_id: str, path: str) -> bytes | None:
        """Return an artifact's bytes; None if the run has none of that name or it cannot be had."""
        with self._reading(), tempfile.TemporaryDirectory() as folder:
            try:
                return Path(self._client.download_artifacts(run_id, path, folder)).read_bytes()
            except Exception:  # noqa: BLE001 - each kind of store raises its own; what is missing is said by the caller
                return None

    def artifacts(self, run_id: str, folder: str) -> list[str]:
        """Return the paths of the artifacts in a folder; none if they cannot be listed."""
        with self._reading():
            try:
                return [item.path for item in self._client.list_artifacts(run_id, folder)]
            except Exception:  # noqa: BLE001 - as above
                return []

    def _check(self, filter_string: str, sort: Sequence[str]) -> None:
        if filter_string:
            check_filter(filter_string)
        for order in sort:
            check_sort(order)

    def _read(
        self, filter_string: str, sort: list[str], limit: int | None, columns: Columns, deleted: bool
    ) -> Iterator[list[TrackedRun]]:
        store = self._client._tracking_client.store
        if not _is_database(store):
            yield from self._ask(filter_string, sort, limit, columns, deleted)
            return
        from nbtools.tracking import experiments_sql

        ids = experiments_sql.run_ids(store, list(self._ids), filter_string, sort, limit, deleted=deleted)
        for start in range(0, len(ids), PAGE):
            yield experiments_sql.read(store, ids[start : start + PAGE], self._ids, columns)

    def _ask(
        self, filter_string: str, sort: list[str], limit: int | None, columns: Columns, deleted: bool
    ) -> Iterator[list[TrackedRun]]:
        from mlflow.entities import ViewType

        view = ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY
        token, left = None, limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            page = self._client.search_runs(list(self._ids), filter_string, view, size, sort, token)
            yield [from_entity(run, self._ids.get(run.info.experiment_id, ""), columns) for run in page]
            left = None if left is None else left - len(page)
            token = page.token
            if not token:
                return

    def _experiment(self, name: str, *, required: bool) -> Any:
        found = self._client.get_experiment_by_name(name)
        if found is None and name.isdigit():
            found = next((item for item in self._every_experiment() if item.experiment_id == name), None)
        if found is None:
            if not required:
                return None
            names = [item.name for item in self._every_experiment() if item.lifecycle_stage == "active"]
            raise UsageError.of(
                f"there is no experiment {name!r} at {self._address.shown}",
                fix=suggest(name, names, "experiment"),
            )
        if found.lifecycle_stage == "deleted":
            raise UsageError.of(f"the experiment {name!r} has been deleted", fix=_restore(found))
        return found

    def _every_experiment(self) -> Iterator[Any]:
        from mlflow.entities import ViewType

        token = None
        while True:
            page = self._client.search_experiments(ViewType.ALL, 1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _deleted(self, run_id: str, experiment_id: str) -> UsageError:
        experiment = self._client.get_experiment(experiment_id)
        if experiment.lifecycle_stage == "deleted":
            message = (
                f"the run {run_id} belongs to the experiment {experiment.name!r}, which has been deleted"
            )
            return UsageError.of(message, fix=_restore(experiment))
        return UsageError.of(
            f"the run {run_id} has been deleted",
            fix=f"mlflow runs restore --run-id {run_id} brings it back (with MLFLOW_TRACKING_URI set to the store)",
        )

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Have MLflow be quiet and in a hurry meanwhile, and turn what it raises into words."""
        given = {name: value for name, value in _QUIET.items() if name not in os.environ}
        os.environ.update(given)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        try:
            yield
        except NbtoolsError:
            raise
        except Exception as error:
            raise self._said(error) from error
        finally:
            for name in given:
                os.environ.pop(name, None)

    def _said(self, error: Exception) -> NbtoolsError:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = without_credentials(lines[0] if lines else type(error).__name__)[:300]
        if "Max retries exceeded" in reason:
            reason = "it does not answer"
        if getattr(error, "error_code", "") == "INVALID_PARAMETER_VALUE":
            return UsageError.of(f"MLflow refuses: {reason}")
        fix = "start the server, or correct the address (MLFLOW_TRACKING_URI, or tracking: in pipelines.yaml)"
        if "out-of-date database schema" in str(error):
            fix = f"mlflow db upgrade {self._address.shown}"
        elif self._address.database is not None:
            fix = "check the file"
        return OperationError.of(f"MLflow's store at {self._address.shown} cannot be read: {reason}", fix=fix)


def _is_database(store: Any) -> bool:
    """Return whether a store is a database that this process has open, and can be read as one."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    if not isinstance(store, SqlAlchemyStore):
        return False
    from nbtools.tracking import experiments_sql

    return experiments_sql.possible()


def from_entity(run: Any, experiment: str, columns: Columns) -> TrackedRun:
    """Return a run from MLflow's own value."""
    tags = run.data.tags
    info = run.info
    return made(
        info.run_id,
        experiment,
        (info.run_name, info.status, info.start_time, info.end_time, info.user_id),
        _chosen(run.data.params, columns.params),
        _chosen(run.data.metrics, columns.metrics),
        tags if columns.every_tag else _chosen(tags, TAGS),
    )


def made(
    run_id: str,
    experiment: str,
    info: tuple[str | None, str, int | None, int | None, str | None],
    params: Mapping[str, str],
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
) -> TrackedRun:
    """Return a run from what MLflow keeps of it; ``info`` is name, status, start, end (ms), and user."""
    name, status, start, end, user = info
    return TrackedRun(
        run_id=run_id,
        experiment=experiment,
        name=tags.get("mlflow.runName") or name or "",
        status=status,
        started_at=(start or 0) / 1000,
        duration_s=None if end is None or start is None else max((end - start) / 1000, 0.0),
        user=tags.get("mlflow.user") or user or "",
        source=tags.get("mlflow.source.name", ""),
        version=tags.get("mlflow.source.git.commit", ""),
        stage=tags.get("nbtools.stage", ""),
        run=tags.get("nbtools.run", ""),
        params=params,
        metrics=metrics,
        tags=tags,
    )


def has(run: TrackedRun, metric: str) -> bool:
    """Return whether a run has a value of a metric that can be compared."""
    return not math.isnan(run.metrics.get(metric, math.nan))


def _chosen(values: Mapping[str, Any], names: Collection[str] | None) -> dict[str, Any]:
    return {name: value for name, value in values.items() if names is None or name in names}


def _restore(experiment: Any) -> str:
    return (
        f"mlflow experiments restore --experiment-id {experiment.experiment_id} brings it back "
        "(with MLFLOW_TRACKING_URI set to the store)"
    )


def _client(address: StoreAddress) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=address.uri, registry_uri=address.uri)
