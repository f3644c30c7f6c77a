"""What MLflow costs: tracking a stage, and registering a model.

- *Tracking*: a pipeline of 20 trivial stages and one of a single stage, each with ``--no-tracking`` and without. The
  milliseconds behind the rows are what tracking adds, by the number of stages. The single stage has to bear MLflow's
  import alone, which goes on beside the notebooks.
- *Registering*: a small scikit-learn model is logged and registered in a store that is there, from a process that has
  imported everything: ``nbtools.package`` against ``mlflow.sklearn.log_model(registered_model_name=…)``. MLflow finds
  out a model's requirements by loading it in another process, unless it is told; both ways are measured.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import Contender, Sample, Settings, in_turns, nbtools, reported, times
from benchmarks.projects import independent_stages, write_project

_ROUNDS = 5
_STAGES = 20
_WAYS = {
    "mlflow.sklearn.log_model": "log-model",
    "the same, requirements given": "log-model-given",
    "nbtools.package": "package",
}


def benchmark(settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield the tables."""
    ways = dict(list(_WAYS.items())[1:]) if settings.small else _WAYS  # the first one takes its time
    for stages in (2,) if settings.small else (1, _STAGES):
        yield _tracking(settings, stages)
    contenders = [Contender(name, partial(_register, settings, way)) for name, way in ways.items()]
    yield in_turns("logging and registering a model", contenders, settings.rounds(_ROUNDS))


def _tracking(settings: Settings, stages: int) -> dict[str, Any]:
    tracked: list[Sample] = []
    untracked: list[Sample] = []

    def added() -> str:
        pairs = zip(tracked, untracked, strict=True)
        more = median(one.amount - other.amount for one, other in pairs)
        return f"{1000 * more / stages:.0f} ms more a stage"

    contenders = [
        Contender("untracked", partial(_run, settings, stages, ["--no-tracking"]), samples=untracked),
        Contender("tracked", partial(_run, settings, stages, []), added, tracked),
    ]
    title = f"{stages} trivial stage{'s' * (stages > 1)}, 2 jobs"
    return in_turns(title, contenders, settings.rounds(_ROUNDS))


def _run(settings: Settings, stages: int, options: Sequence[str], _: int) -> Sample:
    folder = _folder(settings)
    write_project(folder, independent_stages(stages), {"seed": 13})
    return times(nbtools("run", "--jobs", "2", *options), settings, folder)


def _register(settings: Settings, way: str, _: int) -> Sample:
    folder = _folder(settings)
    write_project(folder, independent_stages(1), {"seed": 13})
    return reported("register", [way], settings, folder)


def _folder(settings: Settings) -> Path:
    return Path(tempfile.mkdtemp(prefix="tracking-", dir=settings.folder))
