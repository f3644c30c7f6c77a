"""Where a result, or a model, came from, as one value.

Rules of this file: no I/O. A run's state, a stage's context and the facts of the environment come in as arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from nbtools.execution.events import Artifact
from nbtools.execution.state import RunState, StageState

SCHEMA = "nbtools/lineage/1"
RUN_SCHEMA = "nbtools/run/1"
STAGE_SCHEMA = "nbtools/stage-run/1"
#: What became of a stage whose notebook was executed, for better or worse.
EXECUTED = ("finished", "failed", "pruned", "cancelled", "running")


@dataclass(frozen=True, slots=True)
class Environment:
    """A Python and everything that is installed in it.

    Parameters
    ----------
    packages
        Version of every distribution, by name.
    origins
        Where those were installed from that are from no index.
    """

    python: str
    packages: Mapping[str, str] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Capture:
    """What is kept of the code and the machine when a run begins, so that it can be repeated.

    Parameters
    ----------
    files
        Digest of every file of the project that is code: notebooks, modules, schemas, pipelines.yaml; by path.
    patch
        Digest of what differed from the commit, as ``git diff --binary`` writes it; empty if nothing did.
    left_out
        Files that are not kept, each with the reason.
    environments
        By the path of the interpreter.
    interpreters
        The path of the interpreter by what pipelines.yaml calls it; an empty text is the default one.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    patch: str = ""
    left_out: tuple[str, ...] = ()
    environments: Mapping[str, Environment] = field(default_factory=dict)
    interpreters: Mapping[str, str] = field(default_factory=dict)
    platform: str = ""
    nbtools: str = ""


def run_manifest(
    state: RunState, capture: Capture, described: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the manifest of a run, JSON-ready; docs/manifest.schema.json says what it holds.

    Parameters
    ----------
    described
        Rows and columns of datasets, by digest.
    """
    return {
        "schema": RUN_SCHEMA,
        "run": state.run,
        "project": state.project,
        "status": state.status,
        "targets": list(state.targets),
        "params": dict(state.overrides),
        "started_at": _iso(state.started_at),
        "duration_s": round(state.duration_s, 3),
        "user": state.revision.user,
        "revision": _revision(state, capture),
        "files": dict(sorted(capture.files.items())),
        "left_out": list(capture.left_out),
        "environments": {
            path: {
                "python": item.python,
                "packages": dict(item.packages),
                "origins": dict(item.origins),
            }
            for path, item in capture.environments.items()
        },
        "interpreters": dict(capture.interpreters),
        "platform": capture.platform,
        "nbtools": capture.nbtools,
        "stages": {key: _stage(stage, described) for key, stage in state.stages.items()},
    }


def stage_manifest(
    state: RunState, stage: StageState, capture: Capture, described: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the manifest of an executed stage, JSON-ready, complete in itself."""
    environment = capture.environments.get(stage.interpreter, Environment(stage.python))
    own = _stage(stage, described)
    own.pop("interpreter")
    return {
        "schema": STAGE_SCHEMA,
        "run": state.run,
        "stage": stage.stage,
        **own,
        "packages": dict(environment.packages),
        "origins": dict(environment.origins),
        "platform": capture.platform,
        "nbtools": capture.nbtools,
        "revision": _revision(state, capture),
    }


def _stage(stage: StageState, described: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    tracking = {"tracking": {"run_id": stage.tracking_run}} if stage.tracking_run else {}
    return {
        "status": stage.status,
        "attempt": stage.attempt,
        "fingerprint": stage.fingerprint,
        "notebook": stage.notebook,
        "notebook_digest": stage.notebook_digest,
        "params": dict(stage.params),
        "inputs": _datasets(stage.inputs, described),
        "outputs": _datasets(stage.outputs, described),
        "metrics": {name: _finite(value) for name, value in stage.metrics.items()},
        "python": stage.python,
        "interpreter": stage.interpreter,
        "seeds": dict(stage.seeds),
        "started_at": _iso(stage.started_at),
        "duration_s": round(stage.duration_s, 3),
        "resumed": stage.resumed,
        "failure": stage.failure.message if stage.failure else "",
        **tracking,
    }


def _datasets(artifacts: Sequence[Artifact], described: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    names = [item.dataset for item in artifacts]
    return {
        # A list of variants is one dataset with several paths.
        item.dataset if names.count(item.dataset) == 1 else f"{item.dataset}:{item.path}": {
            "path": item.path,
            "digest": item.digest,
            "bytes": item.size_bytes,
            **described.get(item.digest, {}),
        }
        for item in artifacts
    }


def artifacts_of(stages: Iterable[StageState]) -> dict[str, Artifact]:
    """Return what stages read and wrote, by digest."""
    return {item.digest: item for stage in stages for item in (*stage.inputs, *stage.outputs)}


def _revision(state: RunState, capture: Capture) -> dict[str, Any]:
    revision = state.revision
    known = {
        "commit": revision.commit,
        "branch": revision.branch,
        "message": revision.message,
        "dirty": revision.dirty,
    }
    return {**known, **({"patch": capture.patch} if capture.patch else {})}


def _finite(value: float) -> float | str:
    """Return a number as JSON has it: the others as texts that ``float`` reads."""
    return value if value - value == 0 else str(value)


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds") if moment else ""


def manifest(
    context: Mapping[str, Any],
    *,
    requirements: Sequence[str],
    python: str,
    platform: str,
    metrics: Mapping[str, float],
    created_at: str,
) -> dict[str, Any]:
    """Return the lineage manifest of a model, JSON-ready.

    Parameters
    ----------
    context
        What the executor told the notebook about its run; empty outside a pipeline.
    requirements
        ``name==version`` of every package that the model needs.
    created_at
        ISO 8601, UTC.
    """
    own = {
        name: context.get(name)
        for name in (
            "stage",
            "fingerprint",
            "notebook",
            "notebook_digest",
            "params",
            "inputs",
            "modules",
            "packages",
        )
        if name in context
    }
    return {
        "schema": SCHEMA,
        "created_at": created_at,
        "project": context.get("project", ""),
        "run": context.get("run", ""),
        "tracking_run": context.get("tracking_run", ""),
        "revision": dict(context.get("revision", {})),
        "stage": own,
        "upstream": [dict(item) for item in context.get("upstream", ())],
        "environment": {"python": python, "platform": platform, "requirements": list(requirements)},
        "metrics": dict(metrics),
        "missing": list(missing(context)),
    }


def missing(context: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what is not known of a model's origin, in words; nothing if all is."""
    if not context:
        return ("it was not made by a pipeline run, so no notebook, params or data are recorded",)
    found = []
    revision = context.get("revision", {})
    if not revision.get("commit"):
        found.append("the project is in no git commit, so its code cannot be named")
    elif revision.get("dirty"):
        found.append("there were uncommitted changes, so the commit alone does not give this code")
    if not context.get("tracking_run"):
        found.append("the run was not tracked in MLflow")
    return tuple(found)
