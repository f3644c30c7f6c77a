"""All that MLflow holds of one run, for comparing it: params, metrics, digests of data, packages, notebooks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
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
    run
        The run itself.
    params, metrics
        Its own; of a pipeline's run also those of its stages, as ``train.fit.alpha``.
    data
        Digests by ``input NAME`` and ``output NAME``.
    packages
        Versions by name, with ``python``; None if they were not recorded.
    notebooks
        By stage; by path if the run is that of a single stage.
    parts
        The runs that all this is from: this one, and those of its stages.
    """

    run: TrackedRun
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    packages: Mapping[str, str] | None = None
    notebooks: Mapping[str, NotebookRef] = field(default_factory=dict)
    parts: tuple[TrackedRun, ...] = ()


def details(experiments: Experiments, run: TrackedRun) -> RunDetails:
    """Return all that MLflow holds of a run; of a pipeline's run, all of its stages, reused ones too.

    Parameters
    ----------
    run
        With all its tags.

    Raises
    ------
    OperationError
        If the store cannot be read.
    """
    if run.stage or not run.tags.get("nbtools.targets"):
        return _of_one(experiments, run, "")
    parts = [_of_one(experiments, run, "")]
    parts += [_of_one(experiments, stage, f"{stage.stage}.") for stage in _stages(experiments, run)]
    packages = [part.packages for part in parts if part.packages is not None]
    return RunDetails(
        run,
        _joined(part.params for part in parts),
        _joined(part.metrics for part in parts),
        _joined(part.data for part in parts),
        _joined(packages) if packages else None,
        _joined(part.notebooks for part in parts),
        tuple(part.run for part in parts),
    )


def notebook(experiments: Experiments, ref: NotebookRef) -> str | None:
    """Return an executed notebook as JSON text; None if it is not in the store."""
    for path in experiments.artifacts(ref.run_id, "notebook"):
        if path.endswith(".ipynb") and (found := experiments.artifact(ref.run_id, path)) is not None:
            return found.decode("utf-8", "replace")
    return None


def _of_one(experiments: Experiments, run: TrackedRun, prefix: str) -> RunDetails:
    path = run.tags.get("nbtools.notebook", "")
    ref = NotebookRef(path, run.tags.get("nbtools.notebook_digest", ""), run.run_id)
    return RunDetails(
        run,
        {f"{prefix}{name}": value for name, value in run.params.items()},
        {f"{prefix}{name}": value for name, value in run.metrics.items()},
        {
            f"{kind.split('.')[1]} {prefix}{name.removeprefix(kind)}": value
            for kind in _DATA
            for name, value in run.tags.items()
            if name.startswith(kind)
        },
        _packages(experiments, run),
        {prefix.removesuffix(".") or path: ref} if path else {},
        (run,),
    )


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


def _joined(parts: Any) -> dict[str, Any]:
    return {name: value for part in parts for name, value in part.items()}
