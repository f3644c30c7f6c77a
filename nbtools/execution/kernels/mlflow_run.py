"""Keeps a kernel inside the MLflow run of its stage.

MLflow forgets MLFLOW_RUN_ID as soon as that run is resumed, and ``autolog`` and ``with mlflow.start_run()`` end what
they have resumed: what is logged after that would go to a run that nobody knows of. Here the variable is set
again whenever the stage's run ends, so that the next thing that is logged resumes it.

This file also runs under interpreters that know nothing of nbtools: standard library only.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Sequence
from typing import Any

#: Id of the stage's run, for as long as the kernel lives.
VARIABLE = "NBTOOLS_TRACKING_RUN"
_MODULE = "mlflow.tracking.fluent"


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

            def execute_and_keep(module: Any) -> None:
                execute(module)
                _keep(module)

            loader.exec_module = execute_and_keep
        return spec


def install() -> None:
    """Have MLflow, when it is imported, come back to the stage's run."""
    sys.meta_path.insert(0, _Finder())


def _keep(fluent: Any) -> None:
    end = fluent.end_run

    @functools.wraps(end)
    def end_run(*arguments: Any, **options: Any) -> Any:
        run = fluent.active_run()
        ended = end(*arguments, **options)
        if run is not None and run.info.run_id == os.environ.get(VARIABLE):
            os.environ["MLFLOW_RUN_ID"] = run.info.run_id
        return ended

    fluent.end_run = end_run
