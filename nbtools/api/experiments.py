"""Finding runs in MLflow, and comparing them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbtools.api.direction import direction_of
from nbtools.api.opening import find
from nbtools.errors import UsageError, suggest
from nbtools.pipeline.load import load
from nbtools.tracking.address import StoreAddress, resolve
from nbtools.tracking.experiments import Columns, Experiments, Level, TrackedRun, has

if TYPE_CHECKING:
    import pandas as pd

    from nbtools.reports.compare import CodeDifference, Comparison
    from nbtools.tracking.experiments import Point
    from nbtools.tracking.experiments_detail import NotebookRef, RunDetails

#: How many runs are looked at to find out which names there are.
_NEWEST = 1000


def runs(  # noqa: PLR0913 - each is an option of the command
    filter_string: str = "",
    *,
    metrics: Sequence[str] | None = None,
    params: Sequence[str] | None = None,
    sort: str | Sequence[str] = (),
    limit: int | None = None,
    level: Level = "stage",
    experiments: str | Sequence[str] = (),
    project: Path | str | None = None,
) -> pd.DataFrame:
    """Return runs that MLflow knows, one a row; the newest first unless ``sort`` says otherwise.

    Parameters
    ----------
    filter_string
        In MLflow's grammar: ``"metrics.r2 > 0.24 and params.alpha = '0.5'"``; none keeps all.
    metrics, params
        The columns of metrics and params, in that order; None gives all.
    sort
        In MLflow's grammar: ``"metrics.r2 desc"``; several decide one after the other.
    limit
        How many rows at most; no more are read.
    level
        ``stage``: the runs of stages; ``pipeline``: those of pipelines; ``all``: others in the experiment too.
    experiments
        Names of MLflow's experiments; none means the project's.
    project
        A folder of the project; default: the working directory.

    Returns
    -------
    pandas.DataFrame
        Columns ``run_id``, ``time`` (of the start, UTC), ``name``, ``status``, ``stage``, ``run``, ``experiment``,
        ``duration_s``, ``user``, ``source``, ``version``, then ``params.*`` (texts) and ``metrics.*`` (numbers).

    Raises
    ------
    UsageError
        If MLflow does not understand the filter or the order, or an experiment is not there or was deleted.
    OperationError
        If the store cannot be read.
    """
    wanted = RunSearch(filter_string, metrics, params, sort, limit, level, experiments)
    return frame(search(wanted, project=project), metrics, params)


@dataclass(frozen=True, slots=True)
class RunSearch:
    """What is searched for; the fields are the arguments of ``runs``."""

    filter_string: str = ""
    metrics: Sequence[str] | None = None
    params: Sequence[str] | None = None
    sort: str | Sequence[str] = ()
    limit: int | None = None
    level: Level = "stage"
    experiments: str | Sequence[str] = ()


def search(wanted: RunSearch, *, project: Path | str | None = None) -> list[TrackedRun]:
    """Return what ``runs`` returns as values; pandas is not needed for it."""
    if wanted.limit is not None and wanted.limit < 1:
        raise UsageError.of(f"{wanted.limit} is no number of runs", where="--limit", fix="give 1 or more")
    return Experiments(_address(project), _listed(wanted.experiments)).search(
        wanted.filter_string,
        level=wanted.level,
        sort=_listed(wanted.sort),
        limit=wanted.limit,
        columns=Columns(wanted.metrics, wanted.params),
    )


def unknown_names(wanted: RunSearch, *, project: Path | str | None = None) -> list[str]:
    """Return, in words, the metrics and params that were asked for and that none of the newest runs has."""
    from nbtools.tracking.experiments_filter import names_in, sorted_metric

    asked = names_in(wanted.filter_string)
    asked += [("metric", name) for name in map(sorted_metric, _listed(wanted.sort)) if name]
    asked += [("metric", name) for name in wanted.metrics or ()]
    asked += [("parameter", name) for name in wanted.params or ()]
    store = Experiments(_address(project), _listed(wanted.experiments))
    newest = store.search(level=wanted.level, limit=_NEWEST)
    known = {
        "metric": {name for run in newest for name in run.metrics},
        "parameter": {name for run in newest for name in run.params},
    }
    return [
        f"no run has a {kind.replace('parameter', 'param')} {name!r}; {suggest(name, known[kind])}"
        for kind, name in dict.fromkeys(asked)
        if newest and kind in known and name not in known[kind]
    ]


def best(
    metric: str,
    *,
    direction: str = "max",
    filter_string: str = "",
    level: Level = "stage",
    experiments: str | Sequence[str] = (),
    project: Path | str | None = None,
) -> TrackedRun:
    """Return the run with the best value of a metric, among those that finished.

    Parameters
    ----------
    direction
        ``max`` or ``min``; ``maximize`` and ``minimize`` mean the same.
    filter_string
        In MLflow's grammar, which runs are looked at.

    Raises
    ------
    UsageError
        If no run that finished has the metric, or MLflow does not understand the filter.
    OperationError
        If the store cannot be read.
    """
    from nbtools.tracking.experiments_filter import check_filter

    ascending = direction_of(direction) == "minimize"
    if not metric or "`" in metric:
        raise UsageError.of(f"{metric!r} is no metric's name", where="--metric")
    store = Experiments(_address(project), _listed(experiments))
    order = f"metrics.`{metric}` {'asc' if ascending else 'desc'}"
    check_filter(filter_string)  # alone, so that a mistake is shown where it was typed
    finished = " AND ".join(filter(None, ["attributes.status = 'FINISHED'", filter_string.strip()]))
    found = store.search(finished, level=level, sort=[order], limit=1)
    if found and has(found[0], metric):
        return found[0]
    if not found:
        among = f" that {filter_string!r} keeps" if filter_string else ""
        raise UsageError.of(f"there is no finished run{among}", fix="nbtools runs search shows what there is")
    newest = store.search(finished, level=level, limit=_NEWEST)
    known = {name for run in newest for name in run.metrics}
    raise UsageError.of(f"no finished run has a metric {metric!r}", fix=suggest(metric, known, "metric"))


def compare(
    runs: Iterable[str],
    *,
    html: Path | str | None = None,
    experiments: str | Sequence[str] = (),
    project: Path | str | None = None,
) -> Comparison:
    """Return what differs between two or more runs; the first is what the others are compared with.

    Parameters
    ----------
    runs
        MLflow run ids or beginnings of them, nbtools runs (``latest``, ``latest~1``, an id or its end), or a stage of
        one: ``latest:fit``; a stage with several variants means all of them.
    html
        A file to write a page with tables and pictures to.

    Raises
    ------
    UsageError
        If a name means no run, or it is not clear which; if a run has been deleted; if there are fewer than two.
    OperationError
        If the store cannot be read, or the page cannot be written.
    """
    from nbtools.reports import compare as comparing
    from nbtools.tracking.experiments_detail import details
    from nbtools.tracking.experiments_naming import resolve as resolve_name

    store = Experiments(_address(project), _listed(experiments))
    named = [run for name in ([runs] if isinstance(runs, str) else runs) for run in resolve_name(store, name)]
    chosen = list({run.run_id: run for run in named}.values())
    if len(chosen) < 2:
        one = f"all of it means the one run {chosen[0].run_id}" if chosen else "none was named"
        raise UsageError.of(
            f"it takes two runs to compare: {one}", fix="nbtools runs compare latest~1 latest"
        )
    everything = [details(store, run) for run in chosen]
    stages = comparing.common_stages(everything)
    found = comparing.compare(everything, _code(store, everything, stages))
    if html is not None:
        from nbtools.execution.files import explained, write_atomically
        from nbtools.reports.compare_page import page

        shown = [
            replace(item.run, params=comparing.params(item, stages), metrics=comparing.metrics(item, stages))
            for item in everything
        ]
        content = page(found, frame(shown), _histories(store, found.labels, everything, stages))
        with explained(f"cannot write {html}"):
            write_atomically(Path(html), content.encode("utf-8", "replace"))
    return found


def metric_points(
    runs: str | Iterable[str],
    metric: str,
    *,
    experiments: str | Sequence[str] = (),
    project: Path | str | None = None,
) -> dict[str, list[Point]]:
    """Return all values of a metric, by the label of the run, of the runs that have it.

    Raises
    ------
    UsageError
        If a name means no run, or no run has the metric.
    """
    from nbtools.reports.compare import short_labels
    from nbtools.tracking.experiments_naming import resolve as resolve_name

    store = Experiments(_address(project), _listed(experiments))
    named = [run for name in ([runs] if isinstance(runs, str) else runs) for run in resolve_name(store, name)]
    chosen = list({run.run_id: run for run in named}.values())
    labels = short_labels(chosen)
    found = {
        f"{label} {run.name}": store.history(run.run_id, metric)
        for label, run in zip(labels, chosen, strict=True)
        if metric in run.metrics
    }
    if not found:
        known = {name for run in chosen for name in run.metrics}
        raise UsageError.of(f"none of the runs has a metric {metric!r}", fix=suggest(metric, known, "metric"))
    return found


def frame(
    found: Sequence[TrackedRun], metrics: Sequence[str] | None = None, params: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return runs as a DataFrame; see ``runs`` for its columns."""
    import pandas as pd

    params = names_of((run.params for run in found), params)
    metrics = names_of((run.metrics for run in found), metrics)
    columns: dict[str, Any] = {
        "run_id": [run.run_id for run in found],
        "time": pd.to_datetime([run.started_at for run in found], unit="s", utc=True),
        "name": [run.name for run in found],
        "status": [run.status for run in found],
        "stage": [run.stage for run in found],
        "run": [run.run for run in found],
        "experiment": [run.experiment for run in found],
        "duration_s": pd.Series([run.duration_s for run in found], dtype="float64"),
        "user": [run.user for run in found],
        "source": [run.source for run in found],
        "version": [run.version for run in found],
    }
    columns |= {f"params.{name}": [run.params.get(name) for run in found] for name in params}
    columns |= {
        f"metrics.{name}": pd.Series([run.metrics.get(name) for run in found], dtype="float64")
        for name in metrics
    }
    return pd.DataFrame(columns)


def names_of(values: Iterable[Any], chosen: Sequence[str] | None) -> list[str]:
    """Return the names that are columns: the chosen ones, or all that there are, in order."""
    if chosen is not None:
        return list(dict.fromkeys(chosen))
    return sorted({name for each in values for name in each})


def _address(project: Path | str | None) -> StoreAddress:
    home = find(project)
    spec = load(home.file)
    return resolve(home.root, spec.tracking, spec.project, os.environ)


def _listed(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) and given else tuple(given)


def _code(
    store: Experiments, everything: Sequence[RunDetails], stages: Sequence[str]
) -> list[CodeDifference]:
    """Return how the notebooks of each run differ from those of the first; only those with other bytes are read."""
    from nbtools.reports.compare import short_labels

    first, *others = everything
    _, *labels = short_labels([item.run for item in everything])
    found = []
    for label, other in zip(labels, others, strict=True):
        pairs = [("", first, other), *((stage, first.stages[stage], other.stages[stage]) for stage in stages)]
        for stage, one, two in pairs:
            was, now = one.notebook, two.notebook
            # Two different notebooks are no versions of one: that they differ, `source` says.
            if was and now and was.path == now.path and was.digest != now.digest:
                changes = _cells(store, label, stage or now.path, was, now)
                found += [changes] if changes.cells or changes.missing else []
    return found


def _cells(store: Experiments, label: str, name: str, was: NotebookRef, now: NotebookRef) -> CodeDifference:
    from nbtools.reports.compare import CodeDifference
    from nbtools.reports.compare_code import cell_changes
    from nbtools.tracking.experiments_detail import notebook

    before, after = notebook(store, was), notebook(store, now)
    if before is None or after is None:
        missing = "it differs, but MLflow does not have both executed notebooks"
        return CodeDifference(label, name, missing=missing)
    try:
        return CodeDifference(label, name, cell_changes(before, after))
    except ValueError as error:
        return CodeDifference(label, name, missing=str(error))


def _histories(
    store: Experiments, labels: Sequence[str], everything: Sequence[RunDetails], stages: Sequence[str]
) -> dict[str, dict[str, list[Point]]]:
    """Return all values of each metric that a run has logged more than once, by metric and label."""
    found: dict[str, dict[str, list[Point]]] = {}
    for label, item in zip(labels, everything, strict=True):
        for prefix, part in [("", item), *((f"{stage}.", item.stages[stage]) for stage in stages)]:
            for metric in part.run.metrics:
                points = store.history(part.run.run_id, metric)
                found.setdefault(f"{prefix}{metric}", {})[label] = points
    return {
        metric: found[metric]
        for metric in sorted(found)
        if any(len(points) > 1 for points in found[metric].values())
    }
