"""Times commands in turns and says how they compare.

The contenders of a benchmark run in one interleaved sequence (A B C A B C …), each as a process of its own,
measured from its start to its end, or by itself where only a part of it counts. Whatever slows the machine down for a
while then meets all of them, and a ratio is formed within a round before the median is taken. Nothing is asserted
about time.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

PYTHON = sys.executable
_PACKAGES = ("nbtools", "papermill", "ipykernel", "mlflow", "pandas", "pyarrow", "scikit-learn")
_LOG_TAIL = 3_000


@dataclass(frozen=True)
class Settings:
    """What the command line asked for.

    Parameters
    ----------
    folder
        A temporary folder that everything happens in.
    repeat
        How many rounds there are; None leaves it to the benchmark.
    sizes
        Numbers of stages whose plans are timed.
    tracked
        Whether nbtools keeps its runs in MLflow.
    variants
        How many variants are swept.
    small
        Whether everything has its smallest size: the numbers say nothing, but everything was done once.
    peers
        Folder of the programs of other tools; None leaves them out.
    """

    folder: Path
    repeat: int | None = None
    sizes: tuple[int, ...] = (10, 100, 1_000)
    tracked: bool = True
    variants: int = 50
    small: bool = False
    peers: Path | None = None

    def environment(self) -> dict[str, str]:
        """Return the environment of every command: caches of its own, and none of the caller's tracking."""
        ours = {
            name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "NBTOOLS_"))
        }
        # Small benchmarks use what the user's cache has: an empty MLflow store takes seconds to make.
        return ours if self.small else {**ours, "XDG_CACHE_HOME": str(self.folder / "cache")}

    def rounds(self, usual: int) -> int:
        """Return how many rounds there are of a benchmark that usually has so many."""
        return self.repeat or (1 if self.small else usual)


@dataclass(frozen=True)
class Sample:
    """One measurement.

    Parameters
    ----------
    amount
        Seconds, or what else the table is about.
    peak_bytes
        The largest resident set of its processes, not their sum; 0 if it is not known.
    """

    amount: float
    peak_bytes: int = 0


@dataclass
class Contender:
    """Something that is timed, once a round.

    Parameters
    ----------
    measure
        Runs it once, in a round of that number, and returns what it took. What it does before and after the
        command is not counted.
    note
        Shown behind its row, after the last round.
    """

    name: str
    measure: Callable[[int], Sample]
    note: Callable[[], str] = str
    samples: list[Sample] = field(default_factory=list)


def times(
    command: Sequence[str], settings: Settings, cwd: Path, environment: Mapping[str, str] | None = None
) -> Sample:
    """Run a command to its end and return how many seconds it took.

    The kernel counts a child's peak from its fork, so this process must stay small: it imports nothing heavy.

    Parameters
    ----------
    environment
        Complete; None means that of the settings.

    Raises
    ------
    SystemExit
        If the command fails, with the end of what it printed.
    """
    with tempfile.TemporaryFile(dir=settings.folder) as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment or settings.environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            said = output.read()[-_LOG_TAIL:].decode("utf-8", "replace")
            raise SystemExit(f"{' '.join(command)} failed with exit code {process.returncode}:\n{said}")
    return Sample(seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def printed(command: Sequence[str], settings: Settings, cwd: Path) -> str:
    """Return what a command prints, untimed."""
    environment = settings.environment()
    return subprocess.run(
        command, cwd=cwd, env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def reported(module: str, words: Sequence[str], settings: Settings, cwd: Path) -> Sample:
    """Return what a module of this package measured by itself: the last line that it prints, a number in JSON."""
    environment = {**settings.environment(), "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [PYTHON, "-m", f"benchmarks.{module}", *words]
    done = subprocess.run(command, cwd=cwd, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        said = (done.stdout + done.stderr)[-_LOG_TAIL:]
        raise SystemExit(f"{' '.join(command)} failed with exit code {done.returncode}:\n{said}")
    return Sample(float(json.loads(done.stdout.splitlines()[-1])))


def make_empty_store(settings: Settings) -> None:
    """Make, untimed, the empty MLflow store that projects begin with; nbtools makes it once for each user."""
    times([PYTHON, "-m", "nbtools.tracking.template"], settings, settings.folder)


def nbtools(*words: str) -> list[str]:
    """Return the command ``nbtools …`` of this environment."""
    return [PYTHON, "-m", "nbtools", *words]


def in_turns(
    title: str, contenders: Sequence[Contender], rounds: int, unit: str = "seconds"
) -> dict[str, Any]:
    """Measure every contender once a round and return the rows of a table; the first is what others are compared with."""
    for number in range(rounds):
        for contender in contenders:
            progress(f"{title}: round {number + 1} of {rounds}: {contender.name}")
            contender.samples.append(contender.measure(number))
    progress("")
    baseline = contenders[0].samples
    rows = [_row(contender, baseline, unit) for contender in contenders]
    return {"title": title, "rounds": rounds, "unit": unit, "rows": rows}


def _row(contender: Contender, baseline: Sequence[Sample], unit: str) -> dict[str, Any]:
    ratios = [one.amount / other.amount for one, other in zip(contender.samples, baseline, strict=True)]
    return {
        "name": contender.name,
        unit: _spread([sample.amount for sample in contender.samples]),
        "ratio": _spread(ratios),
        "peak_mib": round(median(sample.peak_bytes for sample in contender.samples) / 2**20, 1),
        "note": contender.note(),
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {name: round(of(values), 4) for name, of in (("median", median), ("min", min), ("max", max))}


def table(result: Mapping[str, Any]) -> str:
    """Return the rows of a benchmark as plain text."""
    rows = [("", result["unit"], "min-max", "ratio", "min-max", "peak MiB", "")]
    for row in result["rows"]:
        amount, ratio = row[result["unit"]], row["ratio"]
        rows.append(
            (
                row["name"],
                f"{amount['median']:.3f}",
                f"{amount['min']:.3f}-{amount['max']:.3f}",
                f"{ratio['median']:.2f}",
                f"{ratio['min']:.2f}-{ratio['max']:.2f}",
                f"{row['peak_mib']:.0f}" if row["peak_mib"] else "",
                row["note"],
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        name, *numbers, note = row
        cells = [
            name.ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=False)),
        ]
        lines.append("  ".join([*cells, note]).rstrip())
    rounds = result["rounds"]
    return "\n".join([f"{result['title']} ({rounds} round{'s' * (rounds > 1)})", *lines])


def machine() -> dict[str, Any]:
    """Return what the numbers depend on."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cpu": _cpu(),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: version(name) for name in _PACKAGES},
        "load": round(os.getloadavg()[0], 2),
    }


def described(found: Mapping[str, Any]) -> str:
    """Return a machine in words."""
    packages = ", ".join(f"{name} {number}" for name, number in found["packages"].items())
    return (
        f"{found['cores']} cores of {found['cpu']}, {found['system']}, {found['python']}, "
        f"load {found['load']} at the start\n{packages}"
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def progress(text: str) -> None:
    """Show what is going on, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
