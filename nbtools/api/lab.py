"""Opening JupyterLab."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nbtools.api.opening import Opened, address_of, open_for
from nbtools.errors import UsageError
from nbtools.execution.kernels.warm.imports import MODULES_VARIABLE, PROVISIONER
from nbtools.pipeline import dag as dags
from nbtools.project import Project


@dataclass(frozen=True, slots=True)
class LabCommand:
    """A program to start: its words, what to add to its environment, and the folder to start it in."""

    words: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path


def lab(stage: str = "", *, project: Path | str | None = None) -> LabCommand:
    """Return how to open JupyterLab: on a stage's last executed notebook, or on the whole project.

    Kernels run in the project's folder with the project's modules and tracking store, so that every
    path in an executed notebook means the same there. They are forked from a process that has imported what
    the project's notebooks import, unless ``kernels: {warm: false}``.

    Raises
    ------
    UsageError
        If the stage has not been executed yet, or has several variants.
    """
    with open_for(project) as opened:
        home = opened.project
        store = address_of(opened)
        environment = {"MLFLOW_TRACKING_URI": store.uri, "MLFLOW_EXPERIMENT_NAME": store.experiment}
        environment["NBTOOLS_PROJECT"] = str(home.root)
        environment |= {"PYTHONPATH": _joined([str(home.root)]), **_warm(opened)}
        command = [sys.executable, "-m", "jupyterlab"]
        if not stage:
            return LabCommand((*command, f"--ServerApp.root_dir={home.root}"), environment, home.root)
        swept = stage.partition("[")[0]
        # A variant of a sweep from the command line stands in no file, but its notebook is there.
        is_swept = swept != stage and stage not in opened.dag.variants and _executed(home, stage) is not None
        keys = dags.select(opened.dag, (swept if is_swept else stage,))
        if len(keys) > 1 and not is_swept:
            raise UsageError.of(f"{stage!r} has several notebooks", fix=f"name one: {', '.join(keys[:5])}")
        found = _executed(home, stage if is_swept else keys[0])
        if found is None:
            raise UsageError.of(f"{keys[0]} has not been executed yet", fix=f"nbtools run {keys[0]}")
        folders = opened.workspace.import_folders(opened.dag.variants[keys[0]].stage)
        environment["PYTHONPATH"] = _joined([str(home.root / item) for item in folders])
        # The file browser is rooted where the notebook lies (JupyterLab shows no hidden folders), kernels
        # where its paths begin: jupyter_server starts them at the nearest folder that exists below that.
        roots = (f"--ServerApp.root_dir={found.parent}", f"--MappingKernelManager.root_dir={home.root}")
        return LabCommand((*command, *roots, str(found)), environment, home.root)


def _executed(home: Project, variant: str) -> Path | None:
    """Return the last executed notebook of a variant, the failed one if it failed; None if there is none."""
    from nbtools.execution.placing import file_name

    name = f"{file_name(variant)}.ipynb"
    return next((place / name for place in (home.failed, home.executed) if (place / name).exists()), None)


def _warm(opened: Opened) -> dict[str, str]:
    """Return what has kernels forked."""
    if not opened.spec.warm_kernels:
        return {}
    workspace = opened.workspace
    stages = [stage for stage in opened.spec.stages() if not stage.python]
    python = [stage for stage in stages if workspace.notebooks[stage.key].language == "python"]
    names = dict.fromkeys(name for stage in python for name in workspace.warm_imports(stage))
    return {"JUPYTER_DEFAULT_PROVISIONER_NAME": PROVISIONER, MODULES_VARIABLE: ",".join(names)}


def _joined(folders: Sequence[str]) -> str:
    return os.pathsep.join(filter(None, [*folders, os.environ.get("PYTHONPATH", "")]))
