"""Single notebooks: a trivial one while others run, and a lone one that has imports, with nothing prepared.

- *One trivial notebook more*: a process runs 21 notebooks, another one runs one; the difference, by 20, is what a
  notebook takes when everything around it has started, its kernel's start included. One after the other.
- *A lone notebook, cold*: the whole process, with pandas and scikit-learn to import and nothing that nbtools could have
  prepared; against the same code as a plain script. Tracking goes on beside the notebook and must be done at the end.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import PYTHON, Contender, Sample, Settings, in_turns, nbtools, times
from benchmarks.projects import BenchStage, independent_stages, write_project

_ROUNDS = 5
_MORE = 20
_PAPERMILL = """\
import json, sys
import papermill
for name in json.loads(sys.argv[1]):
    papermill.execute_notebook(f'notebooks/{name}.ipynb', f'executed/{name}.ipynb', progress_bar=False)
"""
_WORK = (
    "import pandas as pd\nfrom sklearn.ensemble import RandomForestRegressor",
    "frame = pd.DataFrame({'x': range(100), 'y': range(100)})",
    "forest = RandomForestRegressor(10, random_state=seed).fit(frame[['x']], frame['y'])",
    "frame.assign(y=forest.predict(frame[['x']])).to_parquet({result})",
)

#: Runs all notebooks of a project and tells what that took.
Way = Callable[[Settings, Path, Sequence[BenchStage]], Sample]


def benchmark(settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield the tables."""
    rounds = settings.rounds(_ROUNDS)
    untracked = _nbtools("--jobs", "1", "--no-tracking")
    more = 1 if settings.small else _MORE
    contenders = [
        Contender("papermill", partial(_one_more, settings, more, _papermill)),
        Contender("nbtools", partial(_one_more, settings, more, untracked)),
    ]
    yield in_turns("one trivial notebook more", contenders, rounds)
    ways = {"plain script": _script, "papermill": _papermill, "nbtools, untracked": untracked}
    if settings.tracked:
        ways["nbtools, tracked"] = _nbtools("--jobs", "1")
    contenders = [Contender(name, partial(_lone, settings, way)) for name, way in ways.items()]
    yield in_turns("a lone notebook, cold", contenders, rounds)


def _one_more(settings: Settings, more: int, way: Way, _: int) -> Sample:
    """Return what a notebook more takes."""
    one, many = (_timed(settings, independent_stages(count), way) for count in (1, 1 + more))
    return Sample((many.amount - one.amount) / more)


def _lone(settings: Settings, way: Way, _: int) -> Sample:
    stages = independent_stages(1) if settings.small else independent_stages(1, _WORK)
    return _timed(settings, stages, way)


def _timed(settings: Settings, stages: Sequence[BenchStage], way: Way) -> Sample:
    folder = Path(tempfile.mkdtemp(prefix="single-", dir=settings.folder))
    write_project(folder, stages, {"seed": 13})
    return way(settings, folder, stages)


def _papermill(settings: Settings, folder: Path, stages: Sequence[BenchStage]) -> Sample:
    names = json.dumps([stage.name for stage in stages])
    return times([PYTHON, "-c", _PAPERMILL, names], settings, folder)


def _script(settings: Settings, folder: Path, stages: Sequence[BenchStage]) -> Sample:
    (stage,) = stages
    (folder / "script.py").write_text(stage.script({"seed": 13}), encoding="utf-8")
    return times([PYTHON, "script.py"], settings, folder)


def _nbtools(*options: str) -> Way:
    return lambda settings, folder, _: times(nbtools("run", *options), settings, folder)
