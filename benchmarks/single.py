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
from benchmarks.projects import BenchStage, path_of, write_notebooks, write_spec

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
_NOTHING = ("text = str(seed)", "print(text, file=open({result}, 'w'))")

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
    cells = _NOTHING if settings.small else _WORK
    ways = {"plain script": _script, "papermill": _papermill, "nbtools, untracked": untracked}
    if settings.tracked:
        ways["nbtools, tracked"] = _nbtools("--jobs", "1")
    contenders = [Contender(name, partial(_lone, settings, cells, way)) for name, way in ways.items()]
    yield in_turns("a lone notebook, cold", contenders, rounds)


def _one_more(settings: Settings, more: int, way: Way, _: int) -> Sample:
    """Return what a notebook more takes."""
    one, many = (way(settings, *_project(settings, count, _NOTHING)) for count in (1, 1 + more))
    return Sample((many.amount - one.amount) / more)


def _lone(settings: Settings, cells: Sequence[str], way: Way, _: int) -> Sample:
    return way(settings, *_project(settings, 1, cells))


def _project(settings: Settings, count: int, cells: Sequence[str]) -> tuple[Path, list[BenchStage]]:
    """Write a project of so many independent stages into a new folder."""
    folder = Path(tempfile.mkdtemp(prefix="single-", dir=settings.folder))
    stages = [_stage(number, cells) for number in range(count)]
    write_notebooks(folder, stages)
    write_spec(folder, stages, {"seed": 13})
    (folder / "data").mkdir()
    (folder / "executed").mkdir()
    return folder, stages


def _stage(number: int, cells: Sequence[str]) -> BenchStage:
    output = f"d{number}"
    return BenchStage(
        name=f"s{number}",
        params=f"seed = 1\n{output} = {path_of(output)!r}",
        cells=tuple(cell.replace("{result}", output) for cell in cells),
        inputs=(),
        outputs=(output,),
    )


def _papermill(settings: Settings, folder: Path, stages: Sequence[BenchStage]) -> Sample:
    names = json.dumps([stage.name for stage in stages])
    return times([PYTHON, "-c", _PAPERMILL, names], settings, folder)


def _script(settings: Settings, folder: Path, stages: Sequence[BenchStage]) -> Sample:
    (stage,) = stages
    (folder / "script.py").write_text(stage.script({"seed": 13}), encoding="utf-8")
    return times([PYTHON, "script.py"], settings, folder)


def _nbtools(*options: str) -> Way:
    return lambda settings, folder, _: times(nbtools("run", *options), settings, folder)
