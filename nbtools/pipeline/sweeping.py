"""A stage with another matrix than its own, for one command.

Rules of this file: no I/O.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import replace

from nbtools.pipeline.dag import VARIANT, shown_value
from nbtools.pipeline.spec import Dataset, ParamValue, Spec, Stage


def with_matrix(spec: Spec, stage: Stage, lists: Mapping[str, Sequence[ParamValue]], folder: str) -> Spec:
    """Return ``spec`` with another matrix for ``stage``, whose outputs go to a folder for each variant.

    Parameters
    ----------
    folder
        POSIX path relative to the project, in which those folders are made.
    """
    matrix = {name: tuple(values) for name, values in lists.items()}
    return _with_stage(spec, replace(stage, matrix=matrix, include=(), exclude=()), folder)


def with_points(spec: Spec, stage: Stage, points: Sequence[Mapping[str, ParamValue]], folder: str) -> Spec:
    """Return ``spec`` with exactly these variants of ``stage``; see ``with_matrix``."""
    return _with_stage(spec, replace(stage, matrix={}, include=tuple(points), exclude=()), folder)


def point_of(variant: str, params: Mapping[str, ParamValue]) -> dict[str, ParamValue] | None:
    """Return what a variant has in its name, of its params; None if that cannot be told.

    >>> point_of("train.fit[alpha=0.5,l1_ratio=0]", {"seed": 1, "l1_ratio": 0, "alpha": 0.5})
    {'alpha': 0.5, 'l1_ratio': 0}
    """
    inside = variant.partition("[")[2].removesuffix("]")
    named = sorted((f",{inside}".find(f",{name}="), name) for name in params)
    point = {name: params[name] for at, name in named if at >= 0}
    shown = ",".join(f"{name}={shown_value(value)}" for name, value in point.items())
    return point if shown == inside else None


def with_drawn_variants(spec: Spec, stage: Stage, folder: str) -> Spec:
    """Return ``spec`` with no matrix for ``stage``, because its variants are drawn while it runs."""
    return _with_stage(spec, replace(stage, matrix={}, include=(), exclude=(), drawn=True), folder)


def _with_stage(spec: Spec, stage: Stage, folder: str) -> Spec:
    pipelines = tuple(
        replace(pipeline, stages=tuple(stage if item.key == stage.key else item for item in pipeline.stages))
        for pipeline in spec.pipelines
    )
    written = {item.dataset: spec.datasets[item.dataset] for item in stage.outputs}
    moved = {name: _moved(dataset, f"{folder}/{stage.key}") for name, dataset in written.items()}
    return replace(spec, pipelines=pipelines, datasets={**spec.datasets, **moved})


def _moved(dataset: Dataset, folder: str) -> Dataset:
    ending = posixpath.splitext(dataset.path)[1]
    ending = "" if "{" in ending else ending
    path = f"{folder}/{{{VARIANT}}}/{dataset.name}{ending}"
    return replace(dataset, path=path, placeholders=(VARIANT,))
