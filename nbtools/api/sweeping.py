"""Running a stage at many points, given or drawn, and saying which is best."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nbtools.api.direction import Direction, direction_of
from nbtools.api.opening import Opened, check_data, find, open_for, overrides_of, planned
from nbtools.api.running import Listener, Manner, alone, carry_out
from nbtools.errors import Problem, UsageError, suggest
from nbtools.pipeline import dag as dags
from nbtools.pipeline.load import load
from nbtools.pipeline.matrix import MOST_POINTS
from nbtools.pipeline.params import check_overrides, declared, split, why_wrong_kind
from nbtools.pipeline.plan import Plan, Surroundings
from nbtools.pipeline.plan import plan as make_plan
from nbtools.pipeline.space import Axis, Interval, Values, axis_of, size
from nbtools.pipeline.spec import ParamValue, Secret, Stage
from nbtools.pipeline.sweeping import with_drawn_variants, with_matrix
from nbtools.pipeline.values import why_unfit

if TYPE_CHECKING:
    import pandas as pd

    from nbtools.execution.cancellation import Cancellation
    from nbtools.execution.search import Rule, Search
    from nbtools.execution.state import RunState, StageState

Sampler = Literal["grid", "random", "tpe"]

_TRIALS = 20
_REUSED = ("up to date", "restored", "unchanged inputs")
#: Metrics of which more is better, as the field calls them.
_SCORES = ("accuracy", "auc", "f1", "precision", "r2", "recall", "roc_auc", "score")


@dataclass(frozen=True, slots=True)
class SweptVariant:
    """One variant of a sweep.

    Parameters
    ----------
    params
        What this variant has, and others have otherwise.
    state
        ``finished``, ``cached`` (its result was known), ``failed``, ``pruned``, ``cancelled``, ``skipped`` or ``waiting``.
    duration_s
        How long its notebook ran, be it in this sweep or before.
    outputs
        Paths of what it wrote, relative to the project, by dataset.
    """

    variant: str
    params: Mapping[str, ParamValue]
    state: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    duration_s: float = 0.0
    reason: str = ""
    tracking_run: str = ""
    outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SweepResult:
    """How a sweep ended.

    Parameters
    ----------
    status
        ``passed``, ``failed`` (some variant, or a stage before them) or ``cancelled``.
    variants
        The best first if there is a metric to tell, those without a value of it last; else as they were run.
    problem
        Why no variant is the best although a metric was given; else empty.
    in_matrix
        Whether pipelines.yaml has a matrix for the stage, so that a run takes its variants from there.
    """

    stage: str
    run: str
    status: str
    variants: tuple[SweptVariant, ...]
    metric: str = ""
    direction: Direction = "minimize"
    problem: str = ""
    in_matrix: bool = False

    @property
    def best(self) -> SweptVariant | None:
        """The best variant; None without a metric, or if none has a value of it."""
        return next((item for item in self.variants if _value(item, self.metric) is not None), None)

    def frame(self) -> pd.DataFrame:
        """Return a row for each variant: params, metrics, state and duration in seconds."""
        import pandas as pd

        rows = [
            {**item.params, **item.metrics, "state": item.state, "duration_s": item.duration_s}
            for item in self.variants
        ]
        return pd.DataFrame(rows, index=[item.variant for item in self.variants])


def sweep(  # noqa: PLR0913 - each is an option of the command
    stage: str,
    space: Mapping[str, Any] | None = None,
    *,
    sampler: Sampler = "grid",
    trials: int | None = None,
    metric: str = "",
    direction: str | None = None,
    seed: int = 0,
    prune: bool = False,
    params: Mapping[str, Any] | None = None,
    params_file: Path | str | None = None,
    jobs: int | None = None,
    fail_fast: bool = False,
    track: bool = True,
    cold: bool = False,
    project: Path | str | None = None,
    listeners: Sequence[Listener] = (),
    note: Callable[[str], None] = lambda _: None,
    cancellation: Cancellation | None = None,
) -> SweepResult:
    """Run a stage at many points and return what came out; a failed variant is in it, not raised.

    Every variant is a cached stage run: the same call goes on where one that was killed had come to, and does
    nothing if all is known. Outputs go to ``.nbtools/sweeps/STAGE/VARIANT``, unless the matrix of
    pipelines.yaml is swept, which says where.

    Parameters
    ----------
    stage
        Name of the stage: ``fit`` or ``train.fit``.
    space
        Values by param: a list, or a text such as ``range(0, 1, 0.25)``, ``linspace(0, 1, 5)``, ``0..1`` (an interval,
        for samplers), ``log(1e-4..1)``. None: the matrix in pipelines.yaml.
    sampler
        ``grid`` runs every combination; ``random`` and ``tpe`` (tree-structured Parzen estimator) let Optuna draw.
    trials
        How many variants a sampler draws, those of earlier calls of the same search included; default: 20.
    metric, direction
        What the notebook logs, and whether ``min`` or ``max`` of it is the best (``minimize`` and ``maximize`` mean
        the same). Default: ``max`` of what is named like a score (r2, accuracy, auc …), ``min`` of all else.
    seed
        What a sampler's draws follow from.
    prune
        Whether a variant is stopped when what it logs (``mlflow.log_metric(name, value, step)``) is worse than
        the median of the others at the same step.
    params, params_file
        Params for all variants, and for the stages before them; as of ``run``.
    jobs, fail_fast, track, cold, listeners, note, cancellation
        As of ``run``.

    Raises
    ------
    NbtoolsError
        As ``run``; and for a space that makes no sense.
    """
    manner = Manner(
        jobs=jobs,
        fail_fast=fail_fast,
        track=track,
        cold=cold,
        listeners=listeners,
        note=note,
        stop=cancellation,
    )
    way = direction_of(direction) if direction else None
    if way is None and metric.lower().endswith(_SCORES):
        way = "maximize"
        note(f"the largest {metric} is taken for the best; for the smallest: --direction min")
    wanted = _Wanted(stage, space, sampler, trials, metric, way, seed, prune)
    wanted.check()
    wanted, params = _with_single_values(wanted, params, project)
    overrides = overrides_of(params, params_file)
    with alone(project, f"nbtools sweep {stage}", overrides, manner) as (found, run_id):
        in_matrix = _stage(found, stage).has_matrix
        opened, swept, axes = _varied(found, wanted)
        target = swept.key
        command = f"nbtools sweep {target}"
        if not wanted.is_search:
            made, keys, world = planned(opened, (target,), force=False)
            points = {
                key: item.point for key, item in opened.dag.variants.items() if item.stage.key == target
            }
            outcome = carry_out(opened, run_id, made, keys, world, manner, targets=(target,), command=command)
            return replace(_result(outcome, target, points, wanted, world), in_matrix=in_matrix)
        made, keys, world = _before(opened, target)
        search = _search(opened, target, wanted.rule(axes, swept), world, note)
        outcome = carry_out(
            opened,
            run_id,
            made,
            keys,
            world,
            manner,
            targets=(target,),
            command=command,
            search=search,
            spooling=True,
        )
        result = _result(outcome, target, search.points, wanted, world, search.pruned_before)
        return replace(result, in_matrix=in_matrix)


def plan_sweep(  # noqa: PLR0913 - each is an option of the command
    stage: str,
    space: Mapping[str, Any] | None = None,
    *,
    sampler: Sampler = "grid",
    trials: int | None = None,
    metric: str = "",
    prune: bool = False,
    params: Mapping[str, Any] | None = None,
    params_file: Path | str | None = None,
    project: Path | str | None = None,
) -> Plan:
    """Return what ``sweep`` would run, and why; of a search, what must be done before its variants are drawn.

    Raises
    ------
    NbtoolsError
        As ``sweep``.
    """
    wanted = _Wanted(stage, space, sampler, trials, metric, None, 0, prune)
    wanted.check()
    wanted, params = _with_single_values(wanted, params, project)
    with open_for(project, overrides_of(params, params_file)) as found:
        opened, swept, _ = _varied(found, wanted)
        if wanted.is_search:
            made, _, _ = _before(opened, swept.key)
        else:
            made, _, _ = planned(opened, (swept.key,), force=False)
        check_data(made)
        return made


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What was asked for."""

    stage: str
    space: Mapping[str, Any] | None
    sampler: Sampler
    trials: int | None
    metric: str
    direction: Direction | None
    seed: int
    prune: bool

    @property
    def is_search(self) -> bool:
        """Whether Optuna has a say: in what is drawn, or in what is stopped."""
        return self.sampler != "grid" or self.prune

    def check(self) -> None:
        """Raise a UsageError if the options do not go together."""
        problems = []
        if self.sampler not in ("grid", "random", "tpe"):
            fix = suggest(self.sampler, ("grid", "random", "tpe"), "sampler")
            problems.append(Problem(f"unknown sampler {self.sampler!r}", "--sampler", fix=fix))
        if self.sampler == "tpe" and not self.metric:
            problems.append(Problem("tpe learns from a metric", "--sampler tpe", fix="add --metric rmse"))
        if self.prune and not self.metric:
            problems.append(Problem("variants are compared by a metric", "--prune", fix="add --metric rmse"))
        if self.direction and not self.metric:
            problems.append(Problem("a direction of what?", "--direction", fix="add --metric rmse"))
        if self.trials is not None and self.sampler == "grid":
            fix = "--sampler random draws as many as you like"
            problems.append(Problem("a grid runs all its points", "--trials", fix=fix))
        if self.trials is not None and self.trials < 1:
            problems.append(Problem("at least one trial is needed", "--trials"))
        if problems:
            raise UsageError(*problems)

    def rule(self, axes: Mapping[str, Axis], stage: Stage) -> Rule:
        """Return what is searched, and how."""
        from nbtools.execution.search import Rule

        points: tuple[Mapping[str, ParamValue], ...] = ()
        if self.sampler == "grid":
            lists = {name: axis.values for name, axis in axes.items() if isinstance(axis, Values)}
            points = replace(stage, matrix=lists, drawn=False).points
        return Rule(
            self.sampler,
            axes,
            len(points) or self.trials or _TRIALS,
            self.metric,
            self.direction or "minimize",
            self.seed,
            self.prune,
            points,
        )


def _varied(opened: Opened, wanted: _Wanted) -> tuple[Opened, Stage, dict[str, Axis]]:
    """Return the project with the matrix that is wanted, the stage, and its axes."""
    stage = _stage(opened, wanted.stage)
    axes = _axes(opened, stage, wanted.space or {})
    if not axes:
        if not stage.has_matrix:
            fix = f"nbtools sweep {wanted.stage} -p alpha=0,0.2,0.5, or a matrix in pipelines.yaml"
            raise UsageError.of(f"nothing is varied: {stage.key} has no matrix", where="-p", fix=fix)
        if not wanted.is_search:
            return opened, stage, {}
        axes = _axes_of_file(stage)
    _check_size(axes, wanted)
    folder = opened.project.relative(opened.project.sweeps)
    if wanted.is_search:
        spec = with_drawn_variants(opened.spec, stage, folder)
    else:
        lists = {name: axis.values for name, axis in axes.items() if isinstance(axis, Values)}
        spec = with_matrix(opened.spec, stage, lists, folder)
    opened.workspace.spec = spec
    changed = replace(opened, spec=spec, dag=dags.build(spec))
    return changed, next(item for item in spec.stages() if item.key == stage.key), axes


def _with_single_values(
    wanted: _Wanted, params: Mapping[str, Any] | None, project: Path | str | None
) -> tuple[_Wanted, dict[str, Any]]:
    """Have single values of params that the stage's matrix in pipelines.yaml varies count as lists of one value."""
    spec = load(find(project).file)
    named = [stage for stage in spec.stages() if wanted.stage in (stage.key, stage.name)]
    varied = named[0].varied if len(named) == 1 else ()
    rest = dict(params or {})
    single = {key: [rest.pop(key)] for key in tuple(rest) if split(key)[1] in varied}
    return (replace(wanted, space={**(wanted.space or {}), **single}) if single else wanted), rest


def _stage(opened: Opened, name: str) -> Stage:
    stages = list(opened.spec.stages())
    found = [stage for stage in stages if name in (stage.key, stage.name)]
    if not found:
        fix = suggest(name, [*(stage.key for stage in stages), *(stage.name for stage in stages)], "stage")
        raise UsageError.of(f"no stage is called {name!r}", fix=fix)
    if len(found) > 1:
        raise UsageError.of(f"{name!r} could mean {', '.join(stage.key for stage in found)}")
    return found[0]


def _axes(opened: Opened, stage: Stage, space: Mapping[str, Any]) -> dict[str, Axis]:
    """Return what is varied, checked against what the notebook declares.

    Raises
    ------
    UsageError
        With all that is wrong.
    """
    facts = opened.workspace.notebooks[stage.key]
    kinds = declared(stage, facts)
    params = opened.workspace.params_of(stage)
    axes: dict[str, Axis] = {}
    problems: list[Problem] = []
    for key, value in space.items():
        scope, name = split(key)
        where = f"-p {key}"
        if scope not in ("", stage.name, stage.key, stage.pipeline):
            fix = f"only params of {stage.key} can be varied; others have one value: -p {key}=…"
            problems.append(Problem(f"{key!r} is no param of {stage.key}", where, fix=fix))
            continue
        if name not in kinds:
            fix = suggest(name, kinds, "param")
            problems.append(Problem(f"{stage.notebook} declares no param {name!r}", where, fix=fix))
            continue
        if isinstance(params.get(name), Secret):
            problems.append(Problem(f"{name!r} is a secret and cannot be varied", where))
            continue
        try:
            axes[name] = _fitted(axis_of(value), kinds[name])
        except ValueError as error:
            problems.append(Problem(str(error), where))
    if problems:
        raise UsageError(*problems)
    return axes


def _fitted(axis: Axis, kind: str) -> Axis:
    """Return an axis whose values fit what the notebook has as default; raise ValueError if they do not."""
    if isinstance(axis, Interval):
        if kind == "float":
            return replace(axis, low=float(axis.low), high=float(axis.high))
        if kind not in ("int", "") or (kind == "int" and not axis.is_whole):
            reason = why_wrong_kind(axis.high if kind != "int" else float(axis.high), kind)
            raise ValueError(f"{axis}: {reason}")
        return axis
    seen: dict[str, ParamValue] = {}
    for value in axis.values:
        if reason := why_unfit(value) or why_wrong_kind(value, kind):
            raise ValueError(reason)
        part = dags.path_part(value)
        if part in seen:
            raise ValueError(f"{seen[part]!r} and {value!r} would make variants of the same name")
        seen[part] = value
    if not axis.values:
        raise ValueError("it has no values")
    return axis


def _axes_of_file(stage: Stage) -> dict[str, Axis]:
    if stage.include or stage.exclude:
        message = f"the matrix of {stage.key} has include or exclude: a sampler cannot draw from that"
        raise UsageError.of(
            message, where=str(stage.location), fix="write the params out: -p alpha=0,0.2,0.5"
        )
    return {name: Values(values) for name, values in stage.matrix.items()}


def _check_size(axes: Mapping[str, Axis], wanted: _Wanted) -> None:
    if wanted.sampler != "grid":
        return
    for name, axis in axes.items():
        if isinstance(axis, Interval):
            low, high = axis.low, axis.high
            fix = f"write -p {name}='linspace({low}, {high}, 5)', or let a sampler draw: --sampler tpe --metric rmse"
            raise UsageError.of(f"{axis} has no values to make a grid of", where=f"-p {name}", fix=fix)
    if size(axes) > MOST_POINTS:
        fix = "take fewer values, or let a sampler draw: --sampler random"
        raise UsageError.of(f"that makes {size(axes):,} variants; {MOST_POINTS:,} are the most", fix=fix)


def _before(opened: Opened, stage: str) -> tuple[Plan, tuple[str, ...], Surroundings]:
    """Return the plan for what must be done before the variants of a stage are drawn."""
    keys = opened.dag.ancestors(opened.dag.variants[stage].upstream)
    workspace = opened.workspace
    stages = {opened.dag.variants[key].stage.key: opened.dag.variants[key].stage for key in (*keys, stage)}
    check_overrides(workspace.overrides, stages.values(), workspace.notebooks, opened.spec)
    world = workspace.surroundings()
    return make_plan(opened.dag, keys, world), keys, world


def _search(
    opened: Opened, stage: str, rule: Rule, world: Surroundings, note: Callable[[str], None]
) -> Search:
    from nbtools.execution.search import Search

    template = opened.dag.variants[stage]
    return Search(rule, template, opened.spec.datasets, world, opened.project.sweeps, note)


# What came out


def _result(
    outcome: RunState,
    stage: str,
    points: Mapping[str, Mapping[str, ParamValue]],
    wanted: _Wanted,
    world: Surroundings,
    pruned_before: Sequence[str] | set[str] = (),
) -> SweepResult:
    direction = wanted.direction or "minimize"
    rows = [_row(outcome.stages[key], point, world) for key, point in points.items() if key in outcome.stages]
    rows += [
        SweptVariant(key, points[key], "pruned", reason="in an earlier run of this search")
        for key in points
        if key in pruned_before and key not in outcome.stages
    ]
    if wanted.metric:
        rows.sort(key=lambda row: _rank(_value(row, wanted.metric), direction))
    result = SweepResult(stage, outcome.run, outcome.status, tuple(rows), wanted.metric, direction)
    return replace(result, problem=_why_no_best(result)) if wanted.metric and not result.best else result


def _row(state: StageState, point: Mapping[str, ParamValue], world: Surroundings) -> SweptVariant:
    reused = state.status in _REUSED
    known = world.completion_of(state.fingerprint) if reused else None
    failure = state.failure.message.splitlines()[0] if state.failure and state.failure.message else ""
    return SweptVariant(
        state.stage,
        point,
        "cached" if reused else state.status,
        state.metrics,
        known.duration_s if known else state.duration_s,
        failure or (state.reason if state.status in ("pruned", "skipped") else ""),
        known.tracking_run if known else state.tracking_run,
        {item.dataset: item.path for item in state.outputs},
    )


def _value(row: SweptVariant, metric: str) -> float | None:
    value = row.metrics.get(metric) if row.state in ("finished", "cached") else None
    return None if value is None or math.isnan(value) else value


def _rank(value: float | None, direction: str) -> tuple[bool, float]:
    if value is None:
        return True, 0.0
    return False, value if direction == "minimize" else -value


def _why_no_best(result: SweepResult) -> str:
    """Return why nobody can say which variant is the best."""
    counts: dict[str, int] = {}
    for row in result.variants:
        counts[row.state] = counts.get(row.state, 0) + 1
    states = ", ".join(f"{count} {state}" for state, count in counts.items()) or "none was run"
    message = f"no variant of {result.stage} has a value of {result.metric!r} ({states})"
    logged = {name for row in result.variants for name in row.metrics}
    if logged:
        return f"{message}; {suggest(result.metric, logged, 'metric')}"
    reasons = [row.reason for row in result.variants if row.reason and row.state == "failed"]
    return f"{message}; the first failed with: {reasons[0]}" if reasons else message
