"""A sweep: a notebook whose slow beginning is the same for all variants.

The cells above the parameters cell read a table of text for a second, those below look at a part of it for some
milliseconds. The floor is one plain script that does the beginning once and the rest for each variant, in one process, one
after the other. nbtools runs two variants at a time, each a stage with a kernel, an executed notebook and an output of
its own, with tracking unless told otherwise. What everybody writes must be the same, and how often the beginning ran is
counted: nbtools does not share it if it leaves threads behind, as reading parquet or fitting a forest does.
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

_IMPORTS = "import io\nimport pandas as pd"
_PREFIX = """\
print('x', end='', file=open('began.txt', 'a'))
text = 'a,b,c\\n' + 50_000 * '1.25,2,2013-01-01T12:00:00\\n'
for _ in range({times}):
    frame = pd.read_csv(io.StringIO(text))
frame['a'] += frame.index"""
_REST = (
    "part = frame.sample(5_000, random_state=variant)",
    "print(part['a'].describe(), part.groupby('b')['a'].mean(), file=open(found, 'w'))",
)
_CALIBRATE = f"""\
import time
{_IMPORTS}
seconds = []
for _ in range(5):
    started = time.perf_counter()
    {_PREFIX.replace("{times}", "5").replace(chr(10), chr(10) + 4 * " ")}
    seconds.append(time.perf_counter() - started)
print(5 / min(seconds))
"""
#: The variable that each variant has a value of.
_VARIANT = "variant"
_FOUND = "data/found-{variant}.txt"


def benchmark(settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield the table."""
    progress("sweep: preparing")
    stage = _stage(settings)
    alone = replace(stage, options={**stage.options, "share_prefix": False})
    checks = _Checks(settings)
    ways = {
        "plain script, the beginning once": partial(_script, stage),
        "nbtools, the beginning shared": partial(_nbtools, stage),
        "nbtools, share_prefix: false": partial(_nbtools, alone),
    }
    contenders = [
        Contender(name, partial(checks.run, name, way), partial(checks.note, name))
        for name, way in ways.items()
    ]
    title = f"a sweep of {settings.variants} variants with a slow beginning, 2 jobs"
    yield in_turns(title, contenders, settings.rounds(_ROUNDS))


def _stage(settings: Settings) -> BenchStage:
    often = 1
    if not settings.small:
        per_second = float(printed([PYTHON, "-c", _CALIBRATE], settings, settings.folder))
        often = max(1, round(_PREFIX_S * per_second))
    return BenchStage(
        name="try",
        params=f"{_VARIANT} = 0\nfound = ''",
        cells=_REST,
        inputs=(),
        outputs=("found",),
        prefix=(_IMPORTS, _PREFIX.replace("{times}", str(often))),
        options={"matrix": {_VARIANT: list(range(settings.variants))}},
    )


class _Checks:
    """Runs a sweep in a folder of its own, and looks at what came out."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.digests: set[str] = set()
        self.began: dict[str, int] = {}

    def note(self, name: str) -> str:
        """Return how often the beginning ran."""
        many = self.began[name]
        return f"the beginning ran {'once' if many == 1 else f'{many} times'}"

    def run(self, name: str, way: Callable[[Settings, Path], Sample], _: int) -> Sample:
        """Run it once."""
        folder = Path(tempfile.mkdtemp(prefix="sweep-", dir=self.settings.folder))
        (folder / "data").mkdir()
        sample = way(self.settings, folder)
        numbers = range(self.settings.variants)
        texts = [(folder / _FOUND.format(variant=number)).read_bytes() for number in numbers]
        self.digests.add(hashlib.sha256(b"\n".join(texts)).hexdigest())
        if len(self.digests) > 1:
            raise SystemExit("the variants do not find the same for everybody: the times do not compare")
        self.began[name] = len((folder / "began.txt").read_text(encoding="utf-8"))
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
