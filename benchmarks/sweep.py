"""A sweep: a notebook whose slow beginning is the same for all variants.

The cells above the parameters cell work for a second (they grow a forest), those below for a fiftieth of one. The floor
is one plain script that does the beginning once and the rest for each variant, in one process, one after the other.
nbtools runs two variants at a time, each a stage with a kernel, an executed notebook and an output of its own, with
tracking unless told otherwise. What everybody writes must be the same.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
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
from benchmarks.projects import BenchStage, write_notebooks, write_spec

_ROUNDS = 3
_PREFIX_S = 1.0
_REST_S = 0.02

_IMPORTS = """\
import numpy as np
from sklearn.ensemble import RandomForestRegressor
x = np.random.default_rng(13).normal(size=(2_000, 6))
y = x @ (32, 16, 8, 4, 2, 1)"""
_PREFIX = "forest = RandomForestRegressor({trees}, random_state=0).fit(x, y)"
_REST = (
    "tried = RandomForestRegressor({trees}, random_state=variant).fit(x, forest.predict(x))",
    "open(found, 'w').write(repr(tried.predict(x[:5]).tolist()));",
)
_CALIBRATE = f"""\
import time
{_IMPORTS}
seconds = []
for _ in range(5):
    started = time.perf_counter()
    {_PREFIX.format(trees=10)}
    seconds.append(time.perf_counter() - started)
print(10 / min(seconds))
"""
#: The variable that each variant has a value of.
_VARIANT = "variant"
_FOUND = "data/found-{variant}.txt"


def benchmark(settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield the table."""
    progress("sweep: preparing")
    stage = _stage(settings)
    alone = replace(stage, options={**stage.options, "share_prefix": False})
    digests: set[str] = set()
    ways = {
        "plain script, the beginning once": partial(_script, stage),
        "nbtools, the beginning shared": partial(_nbtools, stage),
        "nbtools, share_prefix: false": partial(_nbtools, alone),
    }
    contenders = [Contender(name, partial(_run, settings, digests, way)) for name, way in ways.items()]
    title = f"a sweep of {settings.variants} variants whose beginning takes {_PREFIX_S:g} s, 2 jobs"
    yield in_turns(title, contenders, settings.rounds(_ROUNDS))


def _stage(settings: Settings) -> BenchStage:
    per_second = (
        1.0 if settings.small else float(printed([PYTHON, "-c", _CALIBRATE], settings, settings.folder))
    )
    slow, quick = (max(1, round(seconds * per_second)) for seconds in (_PREFIX_S, _REST_S))
    return BenchStage(
        name="try",
        params=f"{_VARIANT} = 0\nfound = ''",
        cells=tuple(cell.replace("{trees}", str(quick)) for cell in _REST),
        inputs=(),
        outputs=("found",),
        prefix=(_IMPORTS, _PREFIX.format(trees=slow)),
        options={"matrix": {_VARIANT: list(range(settings.variants))}},
    )


def _run(settings: Settings, digests: set[str], way: Callable[[Settings, Path], Sample], _: int) -> Sample:
    folder = Path(tempfile.mkdtemp(prefix="sweep-", dir=settings.folder))
    (folder / "data").mkdir()
    sample = way(settings, folder)
    texts = [(folder / _FOUND.format(variant=number)).read_bytes() for number in range(settings.variants)]
    digests.add(hashlib.sha256(b"\n".join(texts)).hexdigest())
    if len(digests) > 1:
        raise SystemExit("the variants do not find the same for everybody: the times do not compare")
    return sample


def _script(stage: BenchStage, settings: Settings, folder: Path) -> Sample:
    rest = [f"for {_VARIANT} in range({settings.variants}):", f"    found = f'{_FOUND}'"]
    rest += [f"    {line}" for cell in stage.cells for line in cell.splitlines()]
    (folder / "script.py").write_text("\n".join([*stage.prefix, *rest]) + "\n", encoding="utf-8")
    return times([PYTHON, "script.py"], settings, folder)


def _nbtools(stage: BenchStage, settings: Settings, folder: Path) -> Sample:
    write_notebooks(folder, [stage])
    write_spec(folder, [stage], {}, {"found": _FOUND})
    tracking = [] if settings.tracked else ["--no-tracking"]
    return times(nbtools("run", "--jobs", "2", *tracking), settings, folder)
