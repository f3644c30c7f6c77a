"""What would run, and exactly why: every decision is made here, before anything happens.

Rules of this file: no I/O. What is known of the workspace and the store comes in as functions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from nbtools.errors import Problem, suggest
from nbtools.pipeline.conditions import Judgement, Unanswerable
from nbtools.pipeline.conditions import judge as judge_condition
from nbtools.pipeline.dag import Dag, Input, Variant, stage_keys
from nbtools.pipeline.expressions import Missing
from nbtools.pipeline.fingerprint import Ingredients, differences, digest
from nbtools.pipeline.gates import Verdict, judge
from nbtools.pipeline.spec import Dataset


class Action(Enum):
    """What a step needs; GATE and BLOCKED need a person, SKIP is for a stage whose condition does not hold."""

    RUN = "run"
    RESTORE = "restore"
    NOTHING = "up to date"
    SKIP = "skipped"
    GATE = "gate failed"
    BLOCKED = "blocked"


_STUCK = (Action.GATE, Action.BLOCKED)


@dataclass(frozen=True, slots=True)
class Completion:
    """A result that was committed: exactly one stands for each fingerprint.

    Parameters
    ----------
    outputs
        Digest of each output by variable.
    sizes
        Size in bytes of each output by variable.
    executed, source
        Digests of the executed notebook and of the notebook as it was before.
    resumed
        Whether it went on at a failed cell: what that cell had done before it failed is in it, too.
    streams
        Digests of what cells printed beyond what their notebook keeps, by file name.
    champion
        Metrics of the result that was in use when this one was made; None if there was none. With
        ``metrics`` they are all that a gate is judged by, so that a result's verdict never depends on
        when it is asked for.
    changed_inputs
        Inputs that changed while it was made: nobody knows which of their bytes it belongs to, so that it
        is in use, but never found by its fingerprint.
    """

    stage: str
    fingerprint: str
    ingredients: Ingredients
    outputs: Mapping[str, str]
    sizes: Mapping[str, int] = field(default_factory=dict)
    executed: str = ""
    source: str = ""
    run: str = ""
    tracking_run: str = ""
    finished_at: float = 0.0
    duration_s: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    champion: Mapping[str, float] | None = None
    changed_inputs: Sequence[str] = ()
    streams: Mapping[str, str] = field(default_factory=dict)
    resumed: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What planning may ask about the world.

    Parameters
    ----------
    ingredients
        Of a variant, all but its inputs.
    params
        Of a variant, what its condition may name.
    digest_of
        Digest of a path in the workspace; None if nothing is there.
    completion_of
        The completion with a fingerprint.
    latest_of
        The latest completion of a variant, by key.
    is_stored
        Whether the store holds the bytes of a digest.
    datasets
        By name: external ones may have to have a certain digest.
    """

    ingredients: Callable[[Variant], Ingredients]
    digest_of: Callable[[str], str | None]
    completion_of: Callable[[str], Completion | None]
    latest_of: Callable[[str], Completion | None]
    is_stored: Callable[[str], bool]
    params: Callable[[Variant], Mapping[str, Any]] = lambda variant: variant.point
    datasets: Mapping[str, Dataset] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """A planned stage.

    Parameters
    ----------
    reasons
        Why, one sentence each; what matters most comes first.
    ingredients, fingerprint
        None and empty while an input is not known yet, because a stage before this one runs first.
    completion
        The result that is used if nothing runs.
    """

    variant: Variant
    action: Action
    reasons: tuple[str, ...]
    ingredients: Ingredients | None = None
    fingerprint: str = ""
    completion: Completion | None = None

    @property
    def key(self) -> str:
        """The variant's key."""
        return self.variant.key

    @property
    def reason(self) -> str:
        """All reasons as one line."""
        return "; ".join(self.reasons)


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps in running order, and the external data that are missing, or not the expected ones."""

    steps: tuple[Step, ...]
    missing: tuple[Problem, ...] = ()

    def to_run(self) -> tuple[Step, ...]:
        """Return the steps whose notebooks would run."""
        return tuple(step for step in self.steps if step.action is Action.RUN)

    def step(self, key: str) -> Step:
        """Return the step of a variant."""
        return next(step for step in self.steps if step.key == key)


def plan(dag: Dag, keys: Iterable[str], world: Surroundings, *, forced: Collection[str] = ()) -> Plan:
    """Return what must be done so that the variants ``keys`` are up to date.

    Parameters
    ----------
    keys
        Variants in running order, everything that they need included.
    forced
        Keys of variants that run even if they are up to date.
    """
    steps: dict[str, Step] = {}
    missing: dict[str, Problem] = {}
    for key in keys:
        variant = dag.variants[key]
        steps[key] = decide(variant, steps, world, forced=key in forced)
        if steps[key].action is not Action.SKIP:
            missing.update(_missing(variant, world))
    return Plan(tuple(steps.values()), tuple(missing.values()))


def decide(variant: Variant, done: Mapping[str, Step], world: Surroundings, *, forced: bool = False) -> Step:
    """Return the step for one variant, given the steps of what it needs."""
    if blocking := [key for key in variant.upstream if key in done and done[key].action in _STUCK]:
        return Step(variant, Action.BLOCKED, (f"{blocking[0]} has no result that may be used",))
    return _unasked(variant, done, world) or _asked(_without_skipped(variant, done), done, world, forced)


def _asked(variant: Variant, done: Mapping[str, Step], world: Surroundings, forced: bool) -> Step:
    """Return the step of a variant that is to have a result."""
    local = world.ingredients(variant)
    inputs = input_digests(variant, done, world)
    if inputs is None:
        unknown = _reasons_before_inputs_are_known(variant, local, done, world)
        return Step(variant, Action.RUN, ("forced",) if forced else unknown)
    ingredients = replace(local, inputs=inputs)
    fingerprint = digest(ingredients)
    step = Step(variant, Action.RUN, (), ingredients, fingerprint)
    if forced:
        return replace(step, reasons=("forced",))
    completion = world.completion_of(fingerprint)
    if completion is not None and completion.changed_inputs:
        changed = ", ".join(completion.changed_inputs)
        return replace(step, reasons=(f"{changed} changed while it was made",))
    if completion is None:
        return replace(step, reasons=_why_run(variant.key, ingredients, world))
    step = replace(step, completion=completion)
    if failed := [verdict for verdict in verdicts(step) if not verdict.holds]:
        return replace(step, action=Action.GATE, reasons=tuple(map(str, failed)))
    return _reuse(step, world)


def _unasked(variant: Variant, done: Mapping[str, Step], world: Surroundings) -> Step | None:
    """Return the step of a variant that is not to have a result, or not for sure; else None."""
    for item in variant.inputs:
        absent = [key for key in item.producers if _is_skipped(done.get(key))]
        if absent and len(absent) == len(item.producers):
            return Step(variant, Action.SKIP, (f"{absent[0]} is skipped, and makes {item.dataset}",))
    when = variant.stage.when
    if when is None:
        return None
    try:
        judgement = _judged(variant, done, world)
    except _StageSkipped as error:
        return Step(variant, Action.SKIP, (f"{error} is skipped, and {when.text} asks for its metrics",))
    except Unanswerable as error:
        return Step(variant, Action.BLOCKED, (f"its condition {when.text} cannot be judged: {error}",))
    if judgement.holds is False:
        said = f"{when.text} does not hold: {judgement.explanation}"
        return Step(variant, Action.SKIP, (said if judgement.explanation else f"when: {when.text}",))
    if judgement.holds is None:
        return Step(variant, Action.RUN, (f"if {when.text}",))
    return None


class _StageSkipped(Exception):
    """A stage whose metric a condition names is skipped itself."""


def _judged(variant: Variant, done: Mapping[str, Step], world: Surroundings) -> Judgement:
    when = variant.stage.when
    assert when is not None

    def metric(stage: str, name: str) -> float | Missing:
        (key,) = stage_keys([stage], variant.upstream, variant.stage.pipeline)
        if _is_skipped(done.get(key)):
            raise _StageSkipped(key)
        completion = _completion(done.get(key))
        if completion is None:
            return Missing.UNKNOWN
        if name not in completion.metrics:
            known = completion.metrics
            fix = suggest(name, known, "metric") if known else "it logged none"
            raise Unanswerable(f"{key} did not log the metric {name!r}; {fix}")
        return completion.metrics[name]

    return judge_condition(when.text, world.params(variant).__getitem__, metric)


def _is_skipped(step: Step | None) -> bool:
    return step is not None and step.action is Action.SKIP


def _without_skipped(variant: Variant, done: Mapping[str, Step]) -> Variant:
    """Return a variant whose lists of inputs do without what is not made."""
    return replace(variant, inputs=tuple(_made(item, done) for item in variant.inputs))


def _made(item: Input, done: Mapping[str, Step]) -> Input:
    pairs = zip(item.paths, item.producers, strict=False)
    kept = [(path, key) for path, key in pairs if not _is_skipped(done.get(key))]
    if len(kept) == len(item.producers):
        return item
    paths, producers = zip(*kept, strict=True)
    return replace(item, paths=paths, producers=producers)


def verdicts(step: Step) -> tuple[Verdict, ...]:
    """Return what the stage's gates say of the step's completion."""
    assert step.completion is not None
    conditions = [gate.condition for gate in step.variant.stage.gates]
    return judge(conditions, step.completion.metrics, step.completion.champion)


def input_digests(
    variant: Variant, done: Mapping[str, Step], world: Surroundings
) -> dict[str, str | list[str]] | None:
    """Return the digest of each input by variable, or None while a stage before must still run."""
    found: dict[str, str | list[str]] = {}
    for item in variant.inputs:
        digests: list[str] = []
        for number, path in enumerate(item.paths):
            if not item.producers:
                digests.append(world.digest_of(path) or "")
                continue
            completion = _completion(done.get(item.producers[number]))
            if completion is None:
                return None
            digests.append(_output_digest(completion, done[item.producers[number]].variant, item.dataset))
        found[item.variable] = digests if item.many else digests[0]
    return found


def _output_digest(completion: Completion, producer: Variant, dataset: str) -> str:
    variable = next(output.variable for output in producer.outputs if output.dataset == dataset)
    return completion.outputs[variable]


def _is_open(step: Step | None) -> bool:
    return _completion(step) is None


def _completion(step: Step | None) -> Completion | None:
    if step is None or step.action not in (Action.NOTHING, Action.RESTORE):
        return None
    return step.completion


def _reuse(step: Step, world: Surroundings) -> Step:
    """Return the step that brings back a known result, or runs again if its bytes are gone."""
    completion = step.completion
    assert completion is not None
    differing: list[str] = []
    for output in step.variant.outputs:
        wanted = completion.outputs[output.variable]
        present = world.digest_of(output.path)
        if present == wanted:
            continue
        state = "is missing" if present is None else "was changed"
        if not world.is_stored(wanted):
            reason = f"{output.dataset} {state} and its stored copy is gone"
            return replace(step, action=Action.RUN, reasons=(reason,), completion=None)
        differing.append(f"{output.dataset} {state}")
    if not differing:
        reason = (
            "nothing changed; it was resumed at a failed cell" if completion.resumed else "nothing changed"
        )
        return replace(step, action=Action.NOTHING, reasons=(reason,))
    latest = world.latest_of(step.key)
    if latest is not None and latest.fingerprint != step.fingerprint:
        return replace(step, action=Action.RESTORE, reasons=("an earlier result fits", *differing))
    return replace(step, action=Action.RESTORE, reasons=tuple(differing))


def _why_run(key: str, ingredients: Ingredients, world: Surroundings) -> tuple[str, ...]:
    latest = world.latest_of(key)
    if latest is None:
        return ("it has not run yet",)
    return tuple(map(str, differences(latest.ingredients, ingredients))) or ("its record is gone",)


def _reasons_before_inputs_are_known(
    variant: Variant, local: Ingredients, done: Mapping[str, Step], world: Surroundings
) -> tuple[str, ...]:
    latest = world.latest_of(variant.key)
    if latest is None:
        return ("it has not run yet",)
    own = differences(latest.ingredients, replace(local, inputs=latest.ingredients.inputs))
    if own:
        return tuple(map(str, own))
    before = [key for key in variant.upstream if _is_open(done.get(key))]
    shown = ", ".join(before[:3]) + (" …" if len(before) > 3 else "")
    return (f"if {shown} makes another result",)


def _missing(variant: Variant, world: Surroundings) -> dict[str, Problem]:
    found = {}
    for item in variant.inputs:
        if item.producers:
            continue
        digest, dataset = world.digest_of(item.paths[0]), world.datasets.get(item.dataset)
        if digest and dataset and dataset.digest and digest != dataset.digest:
            found[item.dataset] = Problem(
                f"the dataset {item.dataset!r} is not the expected one: {item.paths[0]} has the digest {digest}, "
                f"not {dataset.digest}",
                str(dataset.location),
                f"data.{item.dataset}.digest",
                "bring back the expected data, or write the new digest once you have looked: nbtools data show "
                + item.dataset,
            )
        if digest is None:
            found[item.dataset] = Problem(
                f"the dataset {item.dataset!r} is missing: there is nothing at {item.paths[0]}",
                str(_place(variant, item.dataset)),
                f"inputs of {variant.stage.key}",
                "put the file there, or add a stage that lists it as output",
            )
    return found


def _place(variant: Variant, dataset: str) -> object:
    places = [binding.location for binding in variant.stage.inputs if binding.dataset == dataset]
    return places[0] if places else variant.stage.location
