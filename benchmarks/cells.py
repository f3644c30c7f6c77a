"""Notebooks of one, 100 and 1,000 trivial cells: what a cell costs.

What is timed is the whole process, from Python's start to the executed notebook on the disk. The milliseconds behind a
row are what each cell more than the one of the smallest notebook took. Every cell adds 1 to a variable; the last one
writes the sum to a file, which is looked at.

- nbtools begins with an empty project folder each time, and plans, caches and commits as always. It does not track,
  as the others do not.
- nbclient and papermill start a kernel; papermill writes the whole notebook before and after every cell.
- ploomber-engine runs the cells in its own process, with no kernel (``make peers`` installs it).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.harness import PYTHON, Contender, Sample, Settings, in_turns, nbtools, times
from benchmarks.projects import BenchStage, path_of, write_project

_ROUNDS = {1: 5, 100: 5, 1_000: 3}
_NBCLIENT = """\
import nbformat
from nbclient import NotebookClient
notebook = nbformat.read('notebooks/count.ipynb', as_version=4)
NotebookClient(notebook).execute()
nbformat.write(notebook, 'executed/count.ipynb')
"""
_EXECUTE = """\
import {0}
{0}.execute_notebook('notebooks/count.ipynb', 'executed/count.ipynb', progress_bar=False)
"""


def benchmark(settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield a table for each number of cells."""
    least: dict[str, float] = {}
    for size in (1, 3) if settings.small else _ROUNDS:
        title = f"{size:,} trivial cell{'s' * (size > 1)} in one notebook"
        result = in_turns(title, _contenders(settings, size), settings.rounds(_ROUNDS.get(size, 1)))
        for row in result["rows"]:
            seconds = row["seconds"]["median"]
            if size > 1:
                row["note"] = f"{1000 * (seconds - least[row['name']]) / (size - 1):.1f} ms a cell"
            else:
                least[row["name"]] = seconds
        yield result


def _contenders(settings: Settings, size: int) -> list[Contender]:
    commands = {
        "nbclient": [PYTHON, "-c", _NBCLIENT],
        "papermill": [PYTHON, "-c", _EXECUTE.format("papermill")],
    }
    if settings.peers:
        python = str(settings.peers / "python")
        commands["ploomber-engine"] = [python, "-c", _EXECUTE.format("ploomber_engine")]
    commands["nbtools run"] = nbtools("run", "--no-tracking")
    return [
        Contender(name, partial(_run, settings, size, name, command)) for name, command in commands.items()
    ]


def _run(settings: Settings, size: int, name: str, command: Sequence[str], number: int) -> Sample:
    folder = settings.folder / f"cells-{size}-{name.replace(' ', '-')}-{number}"
    _write(folder, size)
    environment = peers.environment(settings) if name == "ploomber-engine" else None
    sample = times(command, settings, folder, environment)
    if (folder / path_of("sum")).read_text(encoding="utf-8") != str(size):
        raise SystemExit(f"{name} did not run the {size} cells of {folder.name}")
    return sample


def _write(folder: Path, size: int) -> None:
    stage = BenchStage(
        name="count",
        params=f"start = 0\nsum = {path_of('sum')!r}",
        cells=("total = start", *size * ("total += 1",), "print(total, end='', file=open(sum, 'w'))"),
        inputs=(),
        outputs=("sum",),
    )
    write_project(folder, [stage], {"start": 0})
