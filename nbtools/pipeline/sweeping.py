"""A stage with another matrix than its own, for one command.

Rules of this file: no I/O.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import replace

from nbtools.pipeline.dag import VARIANT
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
