"""How long nbtools takes to start, against a Python that does nothing; the project's 20 stages are up to date."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.harness import PYTHON, Settings, in_turns, nbtools, progress
from benchmarks.plans import timed, up_to_date

_ROUNDS = 11
_STAGES = 20


def benchmark(settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield the table."""
    progress("start: preparing")
    folder = up_to_date(settings, _STAGES)
    commands = {
        "python -c pass": [PYTHON, "-c", "pass"],
        "import nbtools": [PYTHON, "-c", "import nbtools"],
        "import nbtools.api": [PYTHON, "-c", "import nbtools.api"],
        "nbtools --help": nbtools("--help"),
        "nbtools status": nbtools("status"),
        "nbtools plan": nbtools("plan"),
        "nbtools history": nbtools("history"),
    }
    yield in_turns(f"start, {_STAGES} stages", timed(commands, settings, folder), settings.rounds(_ROUNDS))
