"""All that MLflow holds of one run, for comparing it: params, metrics, digests of data, packages, notebooks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nbtools.tracking.experiments import Columns, Experiments, TrackedRun

_DATA = ("nbtools.input.", "nbtools.output.")
_EVERYTHING = Columns(every_tag=True)


@dataclass(frozen=True, slots=True)
class NotebookRef:
    """A notebook as it was run: its path, the digest of its bytes, and the MLflow run that holds the executed one."""

    path: str
    digest: str
    run_id: str


@dataclass(frozen=True, slots=True)
class RunDetails:
    """What a run was made from and what came of it.

    Parameters
    ----------
    data
        Digests by ``input NAME`` and ``output NAME``.
    packages
        Versions by name, with ``python``; None if they were not recorded.
    stages
        Of a pipeline's run: what it executed of each stage, or what made the result that it found up to date.
    """

    run: TrackedRun
    data: Mapping[str, str] = field(default_factory=dict)
    packages: Mapping[str, str] | None = None
    notebook: NotebookRef | None = None
    stages: Mapping[str, RunDetails] = field(default_factory=dict)


def details(experiments: Experiments, run: TrackedRun) -> RunDetails:
    """Return all that MLflow holds of a run; of a pipeline's run, that of all its stages, too.

    Parameters
    ----------
    run
        With all its tags.

    Raises
    ------
    OperationError
        If the store cannot be read.
    """
    alone = _of_one(experiments, run)
    if run.stage or not run.tags.get("nbtools.targets"):
        return alone
    stages = {stage.stage: _of_one(experiments, stage) for stage in _stages(experiments, run)}
    return replace(alone, stages=stages)


def notebook(experiments: Experiments, ref: NotebookRef) -> str | None:
    """Return an executed notebook as JSON text; None if it is not in the store."""
    for path in experiments.artifacts(ref.run_id, "notebook"):
        if path.endswith(".ipynb") and (found := experiments.artifact(ref.run_id, path)) is not None:
            return found.decode("utf-8", "replace")
    return None


def _of_one(experiments: Experiments, run: TrackedRun) -> RunDetails:
    path = run.tags.get("nbtools.notebook", "")
    data = {
        f"{kind.split('.')[1]} {name.removeprefix(kind)}": value
        for kind in _DATA
        for name, value in run.tags.items()
        if name.startswith(kind)
    }
    ref = NotebookRef(path, run.tags.get("nbtools.notebook_digest", ""), run.run_id)
    return RunDetails(run, data, _packages(experiments, run), ref if path else None)


def _packages(experiments: Experiments, run: TrackedRun) -> dict[str, str] | None:
    manifest = _json(experiments.artifact(run.run_id, "manifest.json")) if run.stage else None
    packages = (manifest or {}).get("packages")
    python = (manifest or {}).get("python") or run.tags.get("nbtools.python", "")
    known = {"python": str(python)} if python else {}
    if not isinstance(packages, dict):
        return None
    return {**{str(name): str(version) for name, version in packages.items()}, **known}


def _stages(experiments: Experiments, run: TrackedRun) -> Iterator[TrackedRun]:
    """Yield the last attempt of each stage of a run; of a stage that was up to date, the run that made its result."""
    own: dict[str, TrackedRun] = {}
    children = experiments.search(f"tags.`mlflow.parentRunId` = '{run.run_id}'", columns=_EVERYTHING)
    for child in reversed(children):  # the newest comes first
        own[child.stage] = child
    plan = _json(experiments.artifact(run.run_id, "plan.json")) or {}
    stages = plan.get("stages")
    for stage, outcome in (stages if isinstance(stages, dict) else {}).items():
        fingerprint = outcome.get("fingerprint", "") if isinstance(outcome, dict) else ""
        if stage not in own and isinstance(fingerprint, str) and fingerprint.isalnum():
            query = f"tags.`nbtools.fingerprint` = '{fingerprint}' AND attributes.status = 'FINISHED'"
            made = experiments.search(query, columns=_EVERYTHING, limit=1)
            if made and made[0].stage == stage:
                own[stage] = made[0]
    yield from (own[stage] for stage in sorted(own))


def _json(content: bytes | None) -> dict[str, Any] | None:
    if content is None:
        return None
    try:
        found = json.loads(content)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
