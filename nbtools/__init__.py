"""Continuous delivery for machine learning, from notebooks.

``import nbtools`` has the verbs of the command line under the same names; they are loaded when they
are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbtools.api import (
        best,
        compare,
        data,
        data_diff,
        data_restore,
        data_show,
        debug,
        find,
        fsck,
        gc,
        graph,
        history,
        lab,
        plan,
        plan_sweep,
        reproduce,
        resume,
        run,
        runs,
        schema,
        show,
        status,
        sweep,
        sync,
        ui,
        why,
    )
    from nbtools.api import plots as plots
    from nbtools.registry.package import PackagedVersion, package

__version__ = "0.1.0"

_HOMES = {
    **dict.fromkeys(
        (
            "best",
            "compare",
            "data",
            "data_diff",
            "data_restore",
            "data_show",
            "debug",
            "find",
            "fsck",
            "gc",
            "graph",
            "history",
            "lab",
            "plan",
            "plan_sweep",
            "reproduce",
            "resume",
            "run",
            "runs",
            "schema",
            "show",
            "status",
            "sweep",
            "sync",
            "ui",
            "why",
        ),
        "nbtools.api",
    ),
    **dict.fromkeys(("package", "PackagedVersion"), "nbtools.registry.package"),
}

__all__ = [
    "PackagedVersion",
    "best",
    "compare",
    "data",
    "data_diff",
    "data_restore",
    "data_show",
    "debug",
    "find",
    "fsck",
    "gc",
    "graph",
    "history",
    "lab",
    "package",
    "plan",
    "plan_sweep",
    "plots",
    "reproduce",
    "resume",
    "run",
    "runs",
    "schema",
    "show",
    "status",
    "sweep",
    "sync",
    "ui",
    "why",
]


def __getattr__(name: str) -> Any:
    if name == "plots":
        return importlib.import_module("nbtools.api.plots")
    if name not in _HOMES:
        raise AttributeError(f"module 'nbtools' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
