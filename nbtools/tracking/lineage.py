"""Where a model came from, as one value.

Rules of this file: no I/O. The stage's context and the facts of the environment come in as arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SCHEMA = "nbtools/lineage/1"


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
