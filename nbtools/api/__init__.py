"""One short function per verb; the only place where the parts are wired together.

The command line and the widgets call these functions and nothing beneath them. Heavy parts are
imported inside the functions that need them, so that a command that runs nothing answers at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nbtools.api.debugging import debug, resume
from nbtools.api.delivering import sync
from nbtools.api.experiments import RunSearch, best, compare, names_of, runs, search, unknown_names
from nbtools.api.lab import LabCommand, lab
from nbtools.api.looking import (
    ProjectStatus,
    StageStatus,
    graph,
    history,
    plan,
    schema,
    show,
    status,
    why,
)
from nbtools.api.opening import find
from nbtools.api.running import Listener, run
from nbtools.api.sweeping import SweepResult, SweptVariant, plan_sweep, sweep
from nbtools.api.ui import Pages, ui
from nbtools.api.upkeep import fsck, gc
from nbtools.execution.state import RunState
from nbtools.pipeline.explain import Explanation
from nbtools.tracking.experiments import Level, TrackedRun
from nbtools.tracking.history import HistoryRow

if TYPE_CHECKING:
    from nbtools.api.datasets import (
        DataComparison,
        DatasetChange,
        DatasetDetails,
        DatasetStatus,
        Restored,
        data,
        data_diff,
        data_restore,
        data_show,
    )
    from nbtools.api.reproducing import Reproduction, reproduce

__all__ = [
    "DataComparison",
    "DatasetChange",
    "DatasetDetails",
    "DatasetStatus",
    "Explanation",
    "HistoryRow",
    "LabCommand",
    "Level",
    "Listener",
    "Pages",
    "ProjectStatus",
    "Reproduction",
    "Restored",
    "RunSearch",
    "RunState",
    "StageStatus",
    "SweepResult",
    "SweptVariant",
    "TrackedRun",
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
    "names_of",
    "plan",
    "plan_sweep",
    "reproduce",
    "resume",
    "run",
    "runs",
    "schema",
    "search",
    "show",
    "status",
    "sweep",
    "sync",
    "ui",
    "unknown_names",
    "why",
]

#: What most commands do without: loaded when it is first used.
_HOMES = {
    **dict.fromkeys(
        (
            "DataComparison",
            "DatasetChange",
            "DatasetDetails",
            "DatasetStatus",
            "Restored",
            "data",
            "data_diff",
            "data_restore",
            "data_show",
        ),
        "nbtools.api.datasets",
    ),
    **dict.fromkeys(("Reproduction", "reproduce"), "nbtools.api.reproducing"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
