"""Which values a stage's notebook receives.

Rules of this file: no I/O. Later layers win: project, pipeline, stage, params file, command line.
A param reaches exactly the stages whose notebook declares it in its parameters cell.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from nbtools.errors import NotebookError, Problem, UsageError, nearest, suggest
from nbtools.pipeline.notebook import NotebookFacts
from nbtools.pipeline.spec import ParamValue, Secret, Spec, Stage
from nbtools.pipeline.values import why_bad_name, why_unfit


@dataclass(frozen=True, slots=True)
class Overrides:
    """Params given for one run; ``source`` says where from, such as ``-p`` or a file's name.

    A name may be limited to a stage or a pipeline: ``fit.alpha``, ``train.fit.alpha``.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    source: str = "-p"


def declared(stage: Stage, facts: NotebookFacts) -> dict[str, str]:
    """Return the params that the notebook declares, with their kinds: no inputs, no outputs."""
    bound = {item.variable for item in (*stage.inputs, *stage.outputs)}
    return {name: kind for name, kind in facts.parameters.items() if name not in bound}


def resolve(
    stage: Stage, facts: NotebookFacts, spec: Spec, overrides: Iterable[Overrides] = ()
) -> dict[str, ParamValue | Secret]:
    """Return the params that are injected into the stage's notebook, without those of a matrix."""
    return _layered(stage, declared(stage, facts), spec, overrides)


def of_condition(
    stage: Stage, spec: Spec, overrides: Iterable[Overrides] = ()
) -> dict[str, ParamValue | Secret]:
    """Return the params that the stage's condition names, without those of a matrix."""
    return _layered(stage, _in_condition(stage), spec, overrides)


def _in_condition(stage: Stage) -> tuple[str, ...]:
    return stage.when.params if stage.when else ()


def _layered(
    stage: Stage, names: Collection[str], spec: Spec, overrides: Iterable[Overrides]
) -> dict[str, ParamValue | Secret]:
    pipeline = next(item for item in spec.pipelines if item.name == stage.pipeline)
    values: dict[str, ParamValue | Secret] = {}
    for layer in (spec.params, pipeline.params, stage.params):
        values.update((name, value) for name, value in layer.items() if name in names)
    for given in overrides:
        for key, value in given.values.items():
            scope, name = split(key)
            if name in names and _covers(scope, stage):
                values[name] = value
    spread = stage.spread if stage.has_matrix else ()
    return {name: value for name, value in values.items() if name not in spread}


def split(key: str) -> tuple[str, str]:
    """Return scope and name of an override: ``train.fit.alpha`` is ``("train.fit", "alpha")``."""
    scope, _, name = key.rpartition(".")
    return scope, name


def check_notebooks(spec: Spec, facts: Mapping[str, NotebookFacts]) -> None:
    """Check that every notebook declares what pipelines.yaml gives it, in kind too.

    Parameters
    ----------
    facts
        By stage key.

    Raises
    ------
    NotebookError
        With all that is missing.
    """
    problems = [
        problem for stage in spec.stages() for problem in _stage_problems(stage, facts[stage.key], spec)
    ]
    problems += _unused(spec, facts)
    problems += _several_parameters_cells(spec, facts)
    if problems:
        raise NotebookError(*problems)


def check_overrides(
    overrides: Iterable[Overrides], stages: Iterable[Stage], facts: Mapping[str, NotebookFacts], spec: Spec
) -> None:
    """Check the params given for a run against the stages that take part in it.

    Raises
    ------
    UsageError
        For names that no stage declares, values that do not fit, and secrets given in the open.
    """
    taking_part = list(stages)
    problems = [
        problem
        for layer in overrides
        for key, value in layer.values.items()
        for problem in _override_problems(layer.source, key, value, taking_part, facts, spec)
    ]
    if problems:
        raise UsageError(*problems)


def why_wrong_kind(value: Any, kind: str) -> str:
    """Return why ``value`` cannot stand where a ``kind`` is expected, or an empty string.

    None fits everywhere, a whole number fits where a float is expected.

    >>> why_wrong_kind("ten", "int")
    "a whole number is expected, not 'ten'"
    """
    if not kind or value is None or isinstance(value, Secret):
        return ""
    actual = type(value).__name__
    if actual == kind or (kind == "float" and actual == "int"):
        return ""
    return f"{_KIND_NAMES[kind]} is expected, not {value!r}"


_KIND_NAMES = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "list": "a list",
    "dict": "a mapping",
}


def _covers(scope: str, stage: Stage) -> bool:
    return scope in ("", stage.name, stage.key, stage.pipeline)


def _stage_problems(stage: Stage, facts: NotebookFacts, spec: Spec) -> Iterator[Problem]:
    bound = [item.variable for item in (*stage.inputs, *stage.outputs)]
    varied = stage.varied
    for name in dict.fromkeys([*stage.params, *varied, *bound]):
        if name not in facts.parameters:
            yield _undeclared(stage, facts, name)
    names = declared(stage, facts)
    for name, value in resolve(stage, facts, spec).items():
        if reason := why_wrong_kind(value, "str" if isinstance(value, Secret) else names[name]):
            yield _wrong_kind(stage, facts, name, reason, spec)
        if isinstance(value, Secret) and names[name] not in ("str", ""):
            yield _wrong_kind(
                stage, facts, name, "a secret needs a text (the variable's name) as default", spec
            )
    for name, values in varied.items():
        for value in values:
            if reason := why_wrong_kind(value, names.get(name, "")):
                yield _wrong_kind(stage, facts, name, reason, spec)


def _undeclared(stage: Stage, facts: NotebookFacts, name: str) -> Problem:
    if facts.parameters_cell:
        fix = f"add {name} = … to code cell {facts.parameters_cell} (tagged parameters) of {stage.notebook}"
        if close := suggest(name, facts.parameters, "variable"):
            fix += f"; {close}"
    else:
        fix = f"{stage.notebook} has no such cell: tag the one that sets its params with `parameters`"
    where = str(stage.location)
    message = f"the parameters cell of {stage.notebook} does not set {name!r}"
    return Problem(message, where, f"stage {stage.key}", fix)


def _wrong_kind(stage: Stage, facts: NotebookFacts, name: str, reason: str, spec: Spec) -> Problem:
    candidates = (
        f"pipelines.{stage.pipeline}.stages.{stage.name}.matrix.{name}",
        f"pipelines.{stage.pipeline}.stages.{stage.name}.params.{name}",
        f"pipelines.{stage.pipeline}.params.{name}",
        f"params.{name}",
    )
    place = next(filter(None, map(spec.place, candidates)), stage.location)
    fix = f"its default in code cell {facts.parameters_cell} of {stage.notebook} says so; change one of them"
    return Problem(f"param {name!r} of {stage.key}: {reason}", str(place), fix=fix)


def _several_parameters_cells(spec: Spec, facts: Mapping[str, NotebookFacts]) -> Iterator[Problem]:
    for notebook, stage in {stage.notebook: stage for stage in spec.stages()}.items():
        if others := facts[stage.key].other_parameters_cells:
            numbers = ", ".join(map(str, (facts[stage.key].parameters_cell, *others)))
            # The values are injected after the first, and the others would undo that.
            fix = "keep the tag on the cell that sets the defaults"
            yield Problem(f"code cells {numbers} are all tagged parameters", notebook, fix=fix)


def _unused(spec: Spec, facts: Mapping[str, NotebookFacts]) -> Iterator[Problem]:
    for prefix, names, stages in _shared_params(spec):
        known = {name for stage in stages for name in declared(stage, facts[stage.key])}
        known.update(name for stage in stages for name in _in_condition(stage))
        for name in names:
            if name not in known:
                place = spec.place(f"{prefix}{name}")
                message = f"no notebook declares the param {name!r} in its parameters cell"
                fix = _how_to_declare(name, known, stages, facts)
                yield Problem(message, str(place or ""), f"{prefix}{name}", fix)


def _how_to_declare(
    name: str, known: Collection[str], stages: list[Stage], facts: Mapping[str, NotebookFacts]
) -> str:
    if nearest(name, known):
        return suggest(name, known)
    untagged = dict.fromkeys(item.notebook for item in stages if not facts[item.key].parameters_cell)
    if untagged:
        return f"tag the cell that sets it with `parameters`: there is no such cell in {', '.join(untagged)}"
    return f"add {name} = … to the parameters cell of the notebook that is to have it, or remove it here"


def _shared_params(spec: Spec) -> Iterator[tuple[str, Iterable[str], list[Stage]]]:
    yield "params.", spec.params, list(spec.stages())
    for pipeline in spec.pipelines:
        yield f"pipelines.{pipeline.name}.params.", pipeline.params, list(pipeline.stages)


def _override_problems(
    source: str, key: str, value: Any, stages: list[Stage], facts: Mapping[str, NotebookFacts], spec: Spec
) -> Iterator[Problem]:
    scope, name = split(key)
    where = f"{source} {key}"
    covered = [stage for stage in stages if _covers(scope, stage)]
    if scope and not covered:
        known = [*(s.key for s in stages), *(s.name for s in stages), *(s.pipeline for s in stages)]
        yield Problem(
            f"no stage or pipeline of this run is called {scope!r}", where, fix=suggest(scope, known)
        )
        return
    if reason := why_bad_name(name) or why_unfit(value):
        yield Problem(reason, where)
        return
    users = [stage for stage in covered if name in declared(stage, facts[stage.key])]
    if not users and not any(name in _in_condition(stage) for stage in covered):
        yield _unknown(name, where, covered, facts, spec)
    for stage in users:
        if name in stage.varied:
            fix = "change the matrix in pipelines.yaml"
            yield Problem(f"{name!r} is spread by the matrix of {stage.key}", where, fix=fix)
        secret = resolve(stage, facts[stage.key], spec).get(name)
        if isinstance(secret, Secret):
            fix = f"set the environment variable {secret.env} instead"
            yield Problem(f"{name!r} is a secret and must not be written down", where, fix=fix)
        elif reason := why_wrong_kind(value, declared(stage, facts[stage.key])[name]):
            yield Problem(f"{stage.key}: {reason}", where)


def _unknown(
    name: str, where: str, covered: list[Stage], facts: Mapping[str, NotebookFacts], spec: Spec
) -> Problem:
    elsewhere = [stage.key for stage in spec.stages() if name in declared(stage, facts[stage.key])]
    if elsewhere:
        fix = f"{elsewhere[0]} declares it, but is not part of this run"
        return Problem(f"no stage of this run has a param {name!r}", where, fix=fix)
    known = {
        param for stage in covered for param in (*declared(stage, facts[stage.key]), *_in_condition(stage))
    }
    return Problem(f"unknown param {name!r}", where, fix=suggest(name, known, "param"))
