"""The order of stages, inferred from the datasets that they share.

Rules of this file: no I/O. Whoever lists a dataset as output is before whoever lists it as input,
across pipelines; ``after``, and a metric that ``when`` names, add an edge without data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from nbtools.errors import UsageError, suggest
from nbtools.pipeline.spec import Dataset, ParamValue, Spec, Stage

#: What a path may name beside params: the whole variant, as the name of a folder. No file can write it.
VARIANT = "@variant"


@dataclass(frozen=True, slots=True)
class Input:
    """A variable of a notebook that holds the path, or the paths, of what it reads.

    Parameters
    ----------
    many
        True if the notebook receives the list of all variants of a pattern.
    producers
        Keys of the variants that write ``paths``, in the same order; empty for external data.
    """

    variable: str
    dataset: str
    paths: tuple[str, ...]
    many: bool = False
    producers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Output:
    """A variable of a notebook that holds the path of what it writes."""

    variable: str
    dataset: str
    path: str


@dataclass(frozen=True, slots=True)
class Variant:
    """One point of a stage's matrix; a stage without a matrix has one variant of the same name.

    Parameters
    ----------
    key
        Such as ``train.fit`` or ``train.fit[alpha=0.5,l1_ratio=0.2]``.
    upstream
        Keys of the variants that must be done before, in order and without repetition.
    """

    key: str
    stage: Stage
    point: Mapping[str, ParamValue]
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    upstream: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Dag:
    """All variants in an order in which they could run one after the other."""

    variants: Mapping[str, Variant]

    def ancestors(self, keys: Iterable[str]) -> tuple[str, ...]:
        """Return ``keys`` and everything that they need, in running order."""
        wanted: set[str] = set()
        pending = list(keys)
        while pending:
            key = pending.pop()
            if key not in wanted:
                wanted.add(key)
                pending += self.variants[key].upstream
        return tuple(key for key in self.variants if key in wanted)

    def descendants(self, keys: Iterable[str]) -> tuple[str, ...]:
        """Return ``keys`` and everything that needs them, in running order."""
        wanted = set(keys)
        for key, variant in self.variants.items():
            if wanted.intersection(variant.upstream):
                wanted.add(key)
        return tuple(key for key in self.variants if key in wanted)


def build(spec: Spec) -> Dag:
    """Return the variants of all stages; ``spec`` must be free of cycles, as ``load`` ensures."""
    stages = _in_order(list(spec.stages()))
    variants: dict[str, Variant] = {}
    by_stage: dict[str, tuple[Variant, ...]] = {}
    writers = {binding.dataset: stage for stage in stages for binding in stage.outputs}
    known = {stage.key for stage in stages}
    for stage in stages:
        inputs = tuple(_inputs(stage, spec.datasets, writers, by_stage))
        after = [
            variant.key
            for key in stage_keys(stage.waits_for, known, stage.pipeline)
            for variant in by_stage[key]
        ]
        upstream = tuple(dict.fromkeys([key for item in inputs for key in item.producers] + after))
        found = tuple(
            variant_of(stage, spec.datasets, inputs, upstream, point)
            for point in (stage.points if stage.has_matrix else ({},))
        )
        by_stage[stage.key] = found
        variants.update((variant.key, variant) for variant in found)
    return Dag(variants)


def select(dag: Dag, targets: Sequence[str]) -> tuple[str, ...]:
    """Return the variants that ``targets`` mean, in running order, without what they need.

    A target is a pipeline, a stage (``fit`` or ``train.fit``), a variant or a dataset; no target
    means everything.

    Raises
    ------
    UsageError
        If a target is unknown, external data, or could mean several things.
    """
    if not targets:
        return tuple(dag.variants)
    chosen = {key for target in targets for key in _targeted(dag, target)}
    return tuple(key for key in dag.variants if key in chosen)


def cycle(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """Return the stages of a cycle, each before the one that waits for it; empty if there is none."""
    try:
        _in_order(stages)
    except CycleError as error:
        by_key = {stage.key: stage for stage in stages}
        return tuple(by_key[key] for key in error.args[1][:-1])
    return ()


def stage_keys(names: Iterable[str], known: Collection[str], pipeline: str) -> list[str]:
    """Return the keys among ``known`` that ``names``, written in ``pipeline``, mean."""
    keys = [name if name in known else f"{pipeline}.{name}" for name in names]
    return [key for key in keys if key in known]


def _in_order(stages: Sequence[Stage]) -> list[Stage]:
    """Return ``stages`` with every stage after what it needs, else as written; raise CycleError."""
    writers = {binding.dataset: stage.key for stage in stages for binding in stage.outputs}
    position = {stage.key: number for number, stage in enumerate(stages)}
    needs: dict[str, list[str]] = {}
    for stage in stages:
        needs[stage.key] = [writers[item.dataset] for item in stage.inputs if item.dataset in writers]
        needs[stage.key] += stage_keys(stage.waits_for, position, stage.pipeline)
    sorter = TopologicalSorter(needs)
    sorter.prepare()
    order: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=position.__getitem__)
        order += ready
        sorter.done(*ready)
    return [stages[position[key]] for key in order]


def _inputs(
    stage: Stage,
    datasets: Mapping[str, Dataset],
    writers: Mapping[str, Stage],
    by_stage: Mapping[str, tuple[Variant, ...]],
) -> Iterable[Input]:
    for binding in stage.inputs:
        dataset = datasets[binding.dataset]
        writer = writers.get(dataset.name)
        if writer is None:
            yield Input(binding.variable, dataset.name, (dataset.path,))
            continue
        made = [
            (output.path, variant.key)
            for variant in by_stage[writer.key]
            for output in variant.outputs
            if output.dataset == dataset.name
        ]
        paths, producers = zip(*made, strict=True)
        yield Input(binding.variable, dataset.name, paths, bool(dataset.placeholders), producers)


def variant_of(
    stage: Stage,
    datasets: Mapping[str, Dataset],
    inputs: tuple[Input, ...],
    upstream: tuple[str, ...],
    point: Mapping[str, ParamValue],
) -> Variant:
    """Return the variant of a stage at one point."""
    shown = ",".join(f"{name}={shown_value(value)}" for name, value in point.items())
    texts = {**{name: path_part(value) for name, value in point.items()}, VARIANT: variant_folder(shown)}
    outputs = tuple(
        Output(item.variable, item.dataset, datasets[item.dataset].path.format(**texts))
        for item in stage.outputs
    )
    return Variant(f"{stage.key}[{shown}]" if shown else stage.key, stage, point, inputs, outputs, upstream)


def variant_folder(shown: str) -> str:
    """Return a variant's name as that of a folder: readable, and different for different variants."""
    kept = "".join(char if char.isalnum() or char in "._+=-," else "_" for char in shown)
    if kept == shown and len(kept.encode()) < 150:
        return kept
    return f"{kept[:60]}-{hashlib.sha256(shown.encode()).hexdigest()[:8]}"


def shown_value(value: ParamValue) -> str:
    """Return a param's value as it stands in a variant's name."""
    return value if isinstance(value, str) else repr(value)


def path_part(value: ParamValue) -> str:
    """Return a param's value as part of a path; separators and odd characters become ``_``."""
    text = shown_value(value)
    kept = "".join(char if char.isalnum() or char in "._+=-" else "_" for char in text)
    return kept if kept.strip(".") else "_" * max(len(kept), 1)


def _targeted(dag: Dag, target: str) -> list[str]:
    if target in dag.variants:
        return [target]
    variants = dag.variants.values()
    meanings: dict[str, list[str]] = {}
    for variant in variants:
        stage = variant.stage
        if target == stage.pipeline:
            meanings.setdefault(f"the pipeline {target}", []).append(variant.key)
        if target in (stage.name, stage.key):
            meanings.setdefault(f"the stage {stage.key}", []).append(variant.key)
        if variant.point and target == variant.key.removeprefix(f"{stage.pipeline}."):
            meanings.setdefault(f"the variant {variant.key}", []).append(variant.key)
        if any(target == output.dataset for output in variant.outputs):
            meanings.setdefault(f"the dataset {target}", []).append(variant.key)
    found = list(meanings.values())
    if not found:
        raise UsageError.of(f"nothing is called {target!r}", fix=_advice(dag, target))
    if any(set(other) != set(found[0]) for other in found):
        options = ", ".join(meanings)
        fix = "write the full name, such as train.fit"
        raise UsageError.of(f"{target!r} could mean {options}", fix=fix)
    return found[0]


def _advice(dag: Dag, target: str) -> str:
    names: dict[str, None] = {}
    external: set[str] = set()
    for variant in dag.variants.values():
        stage = variant.stage
        names.update(dict.fromkeys([stage.pipeline, stage.name, stage.key]))
        names.update(dict.fromkeys(output.dataset for output in variant.outputs))
        external.update(item.dataset for item in variant.inputs if not item.producers)
    if target in external:
        return "it is external data: no stage makes it"
    return suggest(target, names, "target")
