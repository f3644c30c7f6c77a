"""Planning 10, 100, 1,000 and more stages that are all up to date.

What is timed is the whole process, as a person at a terminal waits for it: Python's start, imports, pipelines.yaml,
every notebook's and dataset's digest, every record. ``python -c pass`` is the floor that no Python program can
undercut. Every stage has a notebook of its own and reads what two earlier stages wrote, ten stages side by side.
The up-to-date state is real; how it comes about without running thousands of kernels says ``benchmarks.complete``.

DVC and Snakemake, up to a thousand stages, have the same notebooks and datasets, and take the outputs for those of a
run by ``dvc commit`` and ``snakemake --touch --forceall``; that nothing is left to do then is checked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
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
from benchmarks.peers import PEERS, Peer, executed
from benchmarks.projects import BenchStage, path_of, write_project

_ROUNDS = 7
_WIDTH = 10
#: Beyond, DVC takes minutes.
_LARGEST_OF_PEERS = 1_000
_PARAMS = {"seed": 13}


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
        if settings.peers and size <= _LARGEST_OF_PEERS:
            contenders += [_peer(peer, settings, size) for peer in PEERS]
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
    write_project(folder, stages, _PARAMS)
    _write_data(folder, ["raw"])
    times([PYTHON, "-m", "benchmarks.complete", str(folder)], settings, Path(__file__).parents[1])
    # This plan also lets nbtools remember what it read, as after any run.
    steps = json.loads(printed(nbtools("plan", "--json"), settings, folder))
    if len(steps) != size or any(step["action"] != "up to date" for step in steps):
        raise SystemExit(f"not all of the {size} stages are up to date")
    return folder


def _peer(peer: Peer, settings: Settings, size: int) -> Contender:
    """Return another tool at a project of its own of so many stages."""
    progress(f"plan: preparing {size} stages for {peer.name}")
    folder = settings.folder / f"plan-{size}-{peer.name}"
    stages = _stages(size)
    write_project(folder, stages, _PARAMS)
    peer.prepare(folder, stages, _PARAMS, settings)
    _write_data(folder, ["raw", *(name for stage in stages for name in stage.outputs)])
    peer.accepts(settings, folder)
    before = executed(folder)

    def measure(_: int) -> Sample:
        sample = peer.times(settings, folder)
        if executed(folder) != before:
            raise SystemExit(f"{peer.name} ran stages that were up to date: the times do not compare")
        return sample

    return Contender(" ".join(peer.run), measure)


def _write_data(folder: Path, datasets: Sequence[str]) -> None:
    for name in datasets:
        (folder / path_of(name)).write_text(f"{name}\n", encoding="utf-8")


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
