"""Planning 10, 100 and 1,000 stages that are all up to date.

What is timed is the whole process, as a person at a terminal waits for it: Python's start, imports, pipelines.yaml,
every notebook's and dataset's digest, every record. ``python -c pass`` is the floor that no Python program can
undercut. Every stage has a notebook of its own and reads what two earlier stages wrote, ten stages side by side.
The up-to-date state is real; how it comes about without running thousands of kernels says ``benchmarks.complete``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import PYTHON, Contender, Settings, in_turns, nbtools, printed, progress, times
from benchmarks.projects import BenchStage, path_of, write_project

_ROUNDS = 7
_WIDTH = 10


def benchmark(settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield a table for each number of stages."""
    for size in settings.sizes:
        progress(f"plan: preparing {size} stages")
        folder = up_to_date(settings, size)
        tracking = [] if settings.tracked else ["--no-tracking"]
        commands = {
            "python -c pass": [PYTHON, "-c", "pass"],
            "nbtools plan --json": nbtools("plan", "--json"),
            "nbtools run": nbtools("run", *tracking),
            "nbtools status": nbtools("status"),
        }
        contenders = timed(commands, settings, folder)
        yield in_turns(f"{size:,} stages, all up to date", contenders, settings.rounds(_ROUNDS))


def up_to_date(settings: Settings, size: int) -> Path:
    """Make a project of ``size`` stages that are up to date.

    Raises
    ------
    SystemExit
        If nbtools says otherwise.
    """
    folder = settings.folder / f"plan-{size}"
    stages = _stages(size)
    write_project(folder, stages, {"seed": 13})
    (folder / path_of("raw")).write_text("raw\n", encoding="utf-8")
    times([PYTHON, "-m", "benchmarks.complete", str(folder)], settings, Path(__file__).parents[1])
    # This plan also lets nbtools remember what it read, as after any run.
    steps = json.loads(printed(nbtools("plan", "--json"), settings, folder))
    if len(steps) != size or any(step["action"] != "up to date" for step in steps):
        raise SystemExit(f"not all of the {size} stages are up to date")
    return folder


def timed(commands: Mapping[str, Sequence[str]], settings: Settings, folder: Path) -> list[Contender]:
    """Return one contender for each command."""

    def contender(name: str, command: Sequence[str]) -> Contender:
        return Contender(name, lambda _: times(command, settings, folder))

    return [contender(*item) for item in commands.items()]


def _stages(size: int) -> list[BenchStage]:
    return [_stage(number) for number in range(size)]


def _stage(number: int) -> BenchStage:
    before = (number - _WIDTH, number - _WIDTH + 1) if number >= _WIDTH else ()
    inputs = tuple(f"d{earlier:05}" for earlier in before) or ("raw",)
    output = f"d{number:05}"
    paths = [f"{name} = {path_of(name)!r}" for name in (*inputs, output)]
    return BenchStage(
        name=f"s{number:05}",
        params="\n".join(["seed = 1", *paths]),
        cells=(
            "import pathlib\nimport random",
            f"# Stage number {number}\nrandom.seed(seed + {number})",
            f"texts = [pathlib.Path(path).read_text() for path in ({', '.join(inputs)},)]",
            f"pathlib.Path({output}).write_text(f'{{random.random()}} {{sum(map(len, texts))}}')",
        ),
        inputs=inputs,
        outputs=(output,),
    )
