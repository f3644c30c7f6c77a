"""Brings a project up to date without running a notebook: ``python -m benchmarks.complete FOLDER``.

Running thousands of kernels would take hours and leave nothing else behind than what is written here, by the same
functions that a run calls: for each stage, in running order, the real ingredients and fingerprint (of the notebook,
params, interpreter, and the digests of what the stages before it wrote), its outputs in the workspace and in the
store, its notebook in the store, the completion record, and the events of a run in the journal. Only the outputs'
contents are made up, and "executed" is the notebook itself.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

from nbtools.execution.database import Database
from nbtools.execution.events import (
    Artifact,
    PlannedStep,
    Revision,
    RunFinished,
    RunStarted,
    StageFinished,
    StageStarted,
)
from nbtools.execution.workspace import Workspace
from nbtools.pipeline.dag import build
from nbtools.pipeline.load import load
from nbtools.pipeline.plan import Action, Completion, Step, decide
from nbtools.project import open_project

_RUN = "20260101-000000-0000"


def complete(folder: Path) -> None:
    """Complete every stage of the project in ``folder``."""
    project = open_project(folder)
    spec = load(project.file)
    database = Database(project.database, writable=True)
    workspace = Workspace(project, spec, database)
    world = workspace.surroundings()
    variants = build(spec).variants
    planned = tuple(
        PlannedStep(key, "run", "it has not run yet", variant.stage.notebook)
        for key, variant in variants.items()
    )
    database.append(RunStarted(_RUN, time.time(), spec.project, (), planned, Revision()))
    done: dict[str, Step] = {}
    for key, variant in variants.items():
        step = decide(variant, done, world)
        completion = _commit(step, workspace)
        done[key] = replace(step, action=Action.NOTHING, completion=completion)
    database.append(RunFinished(_RUN, time.time(), "passed", 1.0))
    database.close()


def _commit(step: Step, workspace: Workspace) -> Completion:
    assert step.ingredients is not None
    stage = step.variant.stage
    store, database = workspace.store, workspace.database
    found = []
    for output in step.variant.outputs:
        path = workspace.project.root / output.path
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"what {step.key} made\n", encoding="utf-8")
        found.append((output, store.add(path)))
    source = store.add_bytes(workspace.notebook_text(stage.notebook).encode())
    completion = Completion(
        stage=step.key,
        fingerprint=step.fingerprint,
        ingredients=step.ingredients,
        outputs={output.variable: measured.digest for output, measured in found},
        sizes={output.variable: measured.size_bytes for output, measured in found},
        executed=source,
        source=source,
        run=_RUN,
        finished_at=time.time(),
        duration_s=1.0,
    )
    database.commit(completion, f"{_RUN}/{step.key}/1")
    digest = workspace.digests[stage.notebook]
    cells = len(workspace.notebooks[stage.key].digests)
    database.append(
        StageStarted(_RUN, time.time(), step.key, stage.notebook, digest, cells, step.fingerprint, 1)
    )
    artifacts = tuple(Artifact(to.dataset, to.path, got.digest, got.size_bytes) for to, got in found)
    database.append(StageFinished(_RUN, time.time(), step.key, step.fingerprint, 1.0, artifacts))
    return completion


if __name__ == "__main__":
    complete(Path(sys.argv[1]))
