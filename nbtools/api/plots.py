"""Pictures of runs, as matplotlib figures; as ``nbtools.plots`` in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nbtools.api.experiments import metric_points
from nbtools.reports import plots as drawing
from nbtools.reports.plots import heat_map, parallel_coordinates, scatter

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["heat_map", "metric_history", "parallel_coordinates", "scatter"]


def metric_history(
    runs: str | Iterable[str],
    metric: str,
    *,
    experiments: str | Sequence[str] = (),
    project: Path | str | None = None,
) -> Figure:
    """Return a metric over its steps, a line for each run.

    Parameters
    ----------
    runs
        As ``nbtools.compare`` takes them: ``"latest:fit"``, MLflow run ids …

    Raises
    ------
    UsageError
        If a name means no run, or no run has the metric.
    OperationError
        If the store cannot be read.
    """
    found = metric_points(runs, metric, experiments=experiments, project=project)
    return drawing.metric_history(found, metric)
