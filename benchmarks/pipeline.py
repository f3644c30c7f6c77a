"""A pipeline of eight notebooks: cold, with nothing changed, and with one param changed.

Each stage imports pandas and scikit-learn, reads parquet, fits a forest for half a second on one core and writes
parquet; the graph has a width of two::

    ingest ─┬─ prepare_a ── fit_a ── rank_a ─┬─ report
            └─ prepare_b ── fit_b ── rank_b ─┘

What makes it fair:

- Everybody runs the very same notebooks (for Snakemake's one cell more: ``benchmarks.peers``); the plain scripts are
  the same cells, one under the other.
- How many trees take half a second is found once, before; from then on everybody does the same work, and the last
  dataset must have the same bytes for everybody.
- Every round begins in fresh folders. Only what a machine has after the first use ever is there: Python's byte
  code, and the empty MLflow store that nbtools keeps in the user's cache. Both are made beforehand, untimed.
- nbtools tracks its runs in MLflow, which nobody else does; ``--untracked`` tells what that costs.
- The scripts and the papermill loop two at a time are scheduled as well as this graph allows, by hand.

The changed param clips the data of ``prepare_a`` at another value. Three stages must run again; the ranking that
comes out is the same, so ``report`` need not.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.harness import (
    PYTHON,
    Contender,
    Sample,
    Settings,
    in_turns,
    nbtools,
    printed,
    progress,
    times,
)
from benchmarks.peers import PEERS, Peer, executed, ran
from benchmarks.projects import BenchStage, path_of, write_project

_ROUNDS = 3
_WORK_S = 0.5
_JOBS = 2

_RAW = """\
import numpy as np
import pandas as pd
random = np.random.default_rng(13)
frame = pd.DataFrame(random.normal(size=(2_000, 6)), columns=list('abcdef'))
frame['y'] = frame.to_numpy() @ (32, 16, 8, 4, 2, 1) + random.normal(size=len(frame))
frame.to_parquet('data/raw.parquet')
"""
_IMPORTS = "import pandas as pd\nfrom sklearn.ensemble import RandomForestRegressor"
_FIT = "forest = RandomForestRegressor(trees, n_jobs=1, random_state=0).fit(features, frame['y'])"
_SMOOTH = "frame['y'] = 0.9 * frame['y'] + 0.1 * forest.predict(features)"
_RANK = """\
importance = pd.Series(forest.feature_importances_, features.columns)
frame = pd.DataFrame({'feature': importance.sort_values(ascending=False).index})"""

#: Tells how many trees take half a second; the best of five, because others may be using the machine.
_CALIBRATE = f"""\
import time
{_IMPORTS}
frame = pd.read_parquet('data/raw.parquet')
features = frame.drop(columns='y')
seconds = []
for trees in 5 * [10]:
    started = time.perf_counter()
    {_FIT}
    seconds.append(time.perf_counter() - started)
print(max(1, round({_WORK_S} * trees / min(seconds))))
"""
#: Groups of notebooks: one group after the other, the branches of a group at once, a branch's notebooks in order.
_PAPERMILL_LOOP = """\
import json, multiprocessing, sys
import papermill
params, groups = map(json.loads, sys.argv[1:])
def run(branch):
    for name in branch:
        papermill.execute_notebook(
            f'notebooks/{name}.ipynb', f'executed/{name}.ipynb', params, progress_bar=False
        )
with multiprocessing.get_context('fork').Pool(max(map(len, groups))) as pool:
    for group in groups:
        pool.map(run, group, chunksize=1)
"""
_WARM = "import pandas, sklearn.ensemble, papermill, mlflow"


def _stage(
    name: str, source: str, target: str, *cells: str, params: str = "", also: Sequence[str] = ()
) -> BenchStage:
    """Return a stage that reads ``source`` (and, in its cells, ``also``) and writes ``target``."""
    paths = [f"{dataset} = {path_of(dataset)!r}" for dataset in (source, *also, target)]
    read = f"frame = pd.read_parquet({source})\nfeatures = frame.drop(columns='y')"
    return BenchStage(
        name=name,
        params="\n".join(filter(None, ["trees = 1", params, *paths])),
        cells=(_IMPORTS, read, *cells, f"frame.to_parquet({target})"),
        inputs=(source, *also),
        outputs=(target,),
    )


def _branch(letter: str, *, small: bool) -> list[BenchStage]:
    """Return the stages of a branch; a small one has a single stage."""
    cap, prepared, fitted = f"cap_{letter}", f"prepared_{letter}", f"fitted_{letter}"
    clip = f"features = frame[features.columns] = features.clip(-{cap}, {cap})"
    if small:
        return [
            _stage(f"prepare_{letter}", "clean", f"ranked_{letter}", clip, _FIT, _RANK, params=f"{cap} = 3.0")
        ]
    return [
        _stage(f"prepare_{letter}", "clean", prepared, clip, _FIT, _SMOOTH, params=f"{cap} = 3.0"),
        _stage(f"fit_{letter}", prepared, fitted, _FIT, _SMOOTH),
        _stage(f"rank_{letter}", fitted, f"ranked_{letter}", _FIT, _RANK),
    ]


_BEST = "features = features[[*pd.read_parquet(ranked_a)['feature'][:3], *pd.read_parquet(ranked_b)['feature'][3:]]]"
_FIRST = _stage("ingest", "raw", "clean", "frame = frame.dropna()", _FIT)
_LAST = _stage("report", "clean", "report", _BEST, _FIT, _RANK, also=("ranked_a", "ranked_b"))
_CHANGE = {"cap_a": 2.5}


def benchmark(settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield the table."""
    progress("pipeline: preparing")
    arena = _Arena(settings)
    note = arena.note
    contenders = [
        Contender("plain scripts, one after the other", arena.scripts),
        Contender("plain scripts, 2 at a time", arena.scripts_in_parallel),
        Contender("papermill loop", arena.papermill),
        Contender("papermill loop, 2 at a time", arena.papermill_in_parallel),
        Contender("nbtools, cold", arena.cold, note("cold")),
        Contender("nbtools, nothing changed", arena.unchanged, note("unchanged")),
        Contender("nbtools, one param changed", arena.changed, note("changed")),
    ]
    if settings.small:
        contenders = [
            item for item in contenders if "one after" not in item.name and item.name[-4:] != "loop"
        ]
    for peer in PEERS if settings.peers else ():
        contenders += _Visitor(arena, peer).contenders()
    how = "tracked" if settings.tracked else "untracked"
    title = f"{len(arena.stages)} notebooks, 2 jobs, {how}, {arena.params['trees']:g} trees a stage"
    yield in_turns(title, contenders, settings.rounds(_ROUNDS))


class _Arena:
    """The folders in which the contenders run."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.branches = [_branch(letter, small=settings.small) for letter in "ab"]
        self.stages = [_FIRST, *(stage for branch in self.branches for stage in branch), _LAST]
        self.home = settings.folder / "pipeline"
        (self.home / "data").mkdir(parents=True)
        self._python(_RAW)
        if not settings.small:
            self._python(_WARM)
        self.raw = (self.home / path_of("raw")).read_bytes()
        trees = 1 if settings.small else int(printed([PYTHON, "-c", _CALIBRATE], settings, self.home))
        self.params: dict[str, float] = {"trees": trees, "cap_a": 3.0, "cap_b": 2.0}
        self.ran: dict[str, str] = {}
        self.report = ""

    def note(self, name: str) -> Callable[[], str]:
        """Return what tells how many stages ran."""
        return lambda: self.ran[name]

    def scripts(self, number: int) -> Sample:
        folder = self.fresh(f"scripts-{number}")
        sample = _all_of(lambda: [self._script(folder, stage) for stage in self.stages])
        return self.checked(folder, sample)

    def scripts_in_parallel(self, number: int) -> Sample:
        folder = self.fresh(f"parallel-{number}")

        def branch(stages: Sequence[BenchStage]) -> list[Sample]:
            return [self._script(folder, stage) for stage in stages]

        def everything() -> list[Sample]:
            with ThreadPoolExecutor(_JOBS) as pool:
                first = branch([_FIRST])
                both = [sample for samples in pool.map(branch, self.branches) for sample in samples]
                return [*first, *both, *branch([_LAST])]

        return self.checked(folder, _all_of(everything))

    def papermill(self, number: int) -> Sample:
        return self._papermill(f"papermill-{number}", [[[stage.name for stage in self.stages]]])

    def papermill_in_parallel(self, number: int) -> Sample:
        both = [[stage.name for stage in branch] for branch in self.branches]
        return self._papermill(f"papermills-{number}", [[[_FIRST.name]], both, [[_LAST.name]]])

    def _papermill(self, name: str, groups: list[list[list[str]]]) -> Sample:
        folder = self.fresh(name)
        # papermill warns of params that a notebook does not have; nobody would pass them.
        words = [json.dumps({"trees": self.params["trees"]}), json.dumps(groups)]
        return self.checked(folder, times([PYTHON, "-c", _PAPERMILL_LOOP, *words], self.settings, folder))

    def cold(self, number: int) -> Sample:
        folder = self.fresh(f"nbtools-{number}")
        return self.checked(folder, self._counted("cold", folder))

    def unchanged(self, number: int) -> Sample:
        return self._counted("unchanged", self.folder(f"nbtools-{number}"))

    def changed(self, number: int) -> Sample:
        words = [word for name, value in _CHANGE.items() for word in ("-p", f"{name}={value}")]
        return self._counted("changed", self.folder(f"nbtools-{number}"), *words)

    def _counted(self, name: str, folder: Path, *words: str) -> Sample:
        """Time ``nbtools run`` and keep how many stages it ran."""
        sample = self._nbtools(folder, *words)
        run = json.loads(printed(nbtools("show", "--json"), self.settings, folder))
        ran = [stage for stage in run["stages"].values() if stage["status"] == "finished"]
        if any(bool(stage["tracking_run"]) != self.settings.tracked for stage in ran):
            raise SystemExit(f"{folder.name}: MLflow did not keep what it should, or kept what it should not")
        self.ran[name] = f"{len(ran)} of {len(run['stages'])} stages ran"
        return sample

    def _nbtools(self, folder: Path, *words: str) -> Sample:
        tracking = [] if self.settings.tracked else ["--no-tracking"]
        return times(nbtools("run", "--jobs", str(_JOBS), *tracking, *words), self.settings, folder)

    def _script(self, folder: Path, stage: BenchStage) -> Sample:
        return times([PYTHON, f"{stage.name}.py"], self.settings, folder)

    def _python(self, code: str) -> Sample:
        return times([PYTHON, "-c", code], self.settings, self.home)

    def folder(self, name: str) -> Path:
        return self.home / name

    def fresh(self, name: str) -> Path:
        folder = self.folder(name)
        write_project(folder, self.stages, self.params)
        for stage in self.stages:
            (folder / f"{stage.name}.py").write_text(stage.script(self.params), encoding="utf-8")
        (folder / path_of("raw")).write_bytes(self.raw)
        return folder

    def checked(self, folder: Path, sample: Sample) -> Sample:
        """Check that the same came out as for the others."""
        found = hashlib.sha256((folder / path_of("report")).read_bytes()).hexdigest()
        self.report = self.report or found
        if found != self.report:
            raise SystemExit(
                f"{folder.name} made another report than the plain scripts: the times do not compare"
            )
        return sample


class _Visitor:
    """Another tool in the arena."""

    def __init__(self, arena: _Arena, peer: Peer) -> None:
        self.arena = arena
        self.peer = peer
        self.ran: dict[str, str] = {}

    def contenders(self) -> list[Contender]:
        ways = {"cold": self.cold, "nothing changed": self.unchanged, "one param changed": self.changed}
        return [Contender(f"{self.peer.name}, {way}", run, self.note(way)) for way, run in ways.items()]

    def note(self, way: str) -> Callable[[], str]:
        return lambda: self.ran[way]

    def cold(self, number: int) -> Sample:
        folder = self.arena.fresh(f"{self.peer.name}-{number}")
        self.peer.prepare(folder, self.arena.stages, self.arena.params, self.arena.settings)
        return self._counted("cold", folder)

    def unchanged(self, number: int) -> Sample:
        return self._counted("nothing changed", self.arena.folder(f"{self.peer.name}-{number}"))

    def changed(self, number: int) -> Sample:
        folder = self.arena.folder(f"{self.peer.name}-{number}")
        self.peer.write_params(folder, {**self.arena.params, **_CHANGE})
        return self._counted("one param changed", folder)

    def _counted(self, way: str, folder: Path) -> Sample:
        before = executed(folder)
        sample = self.peer.times(self.arena.settings, folder)
        self.ran[way] = ran(folder, before)
        return self.arena.checked(folder, sample)


def _all_of(run: Callable[[], list[Sample]]) -> Sample:
    """Return how long several processes took together, and the peak of the largest."""
    started = time.perf_counter()
    samples = run()
    return Sample(time.perf_counter() - started, max(sample.peak_bytes for sample in samples))
