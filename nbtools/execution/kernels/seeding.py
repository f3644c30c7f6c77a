"""Gives a kernel's global random number generators the seed of its stage, so that a stage draws the same numbers again.

``random`` is seeded at once; numpy's when it is imported, as it would otherwise be with what the system offers.

This file also runs under interpreters that know nothing of nbtools: standard library only.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import random
import sys
from collections.abc import Mapping, Sequence
from typing import Any

#: Holds the seed for as long as the kernel lives.
VARIABLE = "NBTOOLS_SEED"
#: Python reads the order of sets from it, when it starts.
HASH_SEED = "PYTHONHASHSEED"
_MODULE = "numpy.random"


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        del target
        if name != _MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            execute = loader.exec_module

            def execute_and_seed(module: Any) -> None:
                execute(module)
                if (number := _number()) is not None:
                    module.seed(number)

            loader.exec_module = execute_and_seed
        return spec


def install() -> None:
    """Have numpy's global generator seeded when it is imported."""
    sys.meta_path.insert(0, _Finder())


def seed() -> None:
    """Seed the global generators that are there; without a seed, with what the system offers."""
    number = _number()
    random.seed(number)
    if _MODULE in sys.modules:
        sys.modules[_MODULE].seed(number)


def with_hash_seed(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which Python's sets of texts have the same order each time, unless it says otherwise."""
    return {HASH_SEED: "0", **environment}


def _number() -> int | None:
    given = os.environ.get(VARIABLE, "")
    return int(given) if given.isdecimal() else None
