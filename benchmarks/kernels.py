"""What a kernel takes: from asking for it to its first cell's reply, and in memory.

The first cell imports pandas and scikit-learn. A warm kernel is forked from a process that has imported them, as in a
run; making that process is not counted, since a run makes it once. An ordinary kernel is started by jupyter_client.
The floor of an ordinary one is a Python that imports the same and ends.

Memory is the proportional set size, in which pages that several processes share are divided among them, of all
processes (for warm kernels also of the one that they are forked from), by the number of kernels.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from benchmarks.harness import PYTHON, Contender, Settings, in_turns, reported, times

_ROUNDS = 7
_COUNT = 4
_MODULES = ("pandas", "sklearn.ensemble")
_SMALL = ("json",)


def benchmark(settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield the tables; warm kernels, and what tells their memory, there are on Linux only."""
    if not sys.platform.startswith("linux"):
        return
    modules = _SMALL if settings.small else _MODULES
    script = [PYTHON, "-c", f"import {', '.join(modules)}"]
    names = " and ".join(name.partition(".")[0] for name in modules)
    contenders = [
        _kernel(settings, "ordinary kernel", "first-reply", "ordinary", *modules),
        Contender("a script that imports the same", lambda _: times(script, settings, settings.folder)),
        _kernel(settings, "warm kernel", "first-reply", "warm", *modules),
    ]
    yield in_turns(
        f"from asking for a kernel to its first reply, {names} imported",
        contenders,
        settings.rounds(_ROUNDS),
    )
    count = 2 if settings.small else _COUNT
    words = ("--count", str(count), *modules)
    contenders = [
        _kernel(settings, "ordinary kernels", "memory", "ordinary", *words),
        _kernel(settings, "warm kernels", "memory", "warm", *words),
    ]
    title = f"memory of a kernel, {count} at once, {names} imported"
    yield in_turns(title, contenders, settings.rounds(3), unit="MiB")


def _kernel(settings: Settings, name: str, *words: str) -> Contender:
    return Contender(name, lambda _: reported("one_kernel", words, settings, settings.folder))
