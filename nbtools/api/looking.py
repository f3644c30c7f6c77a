"""Looking at a project: nothing is run, and nothing but memos is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbtools.api.opening import (
    Opened,
    check_data,
    database_of,
    find,
    open_for,
    overrides_of,
    planned,
    running_id,
)
from nbtools.errors import NbtoolsError, Problem
from nbtools.execution.events import Event, StageFailed
from nbtools.execution.lock import holder
from nbtools.execution.state import RunState
from nbtools.pipeline import dag as dags
from nbtools.pipeline.explain import Explanation, cell_changes
from nbtools.pipeline.fingerprint import differences
from nbtools.pipeline.notebook import code_cells
from nbtools.pipeline.plan import Completion, Plan, Surroundings
from nbtools.tracking import history as histories
from nbtools.tracking.history import HistoryRow

if TYPE_CHECKING:
    from nbtools.reports.dag import Graph


@dataclass(frozen=True, slots=True)
class StageStatus:
    """Where a stage stands.

    Parameters
    ----------
    action
        ``up to date``, ``restore``, ``run``, or ``failed`` if its last attempt failed and it would run.
    finished_at
        When its present result was made, in seconds since the epoch; None if there is none.
    """

    stage: str
    action: str
    reason: str
    notebook: str
    finished_at: float | None = None
    duration_s: float | None = None
    run: str = ""
    failure: str = ""


@dataclass(frozen=True, slots=True)
class ProjectStatus:
    """Where a project stands.

    Parameters
    ----------
    running
        The run that is under way, if any.
    missing
        External data that are not there.
    kept
        Kernels of failed cells that can be looked into.
    """

    project: str
    root: Path
    stages: tuple[StageStatus, ...]
    running: str = ""
    missing: tuple[Problem, ...] = ()
    kept: tuple[KeptStatus, ...] = ()


@dataclass(frozen=True, slots=True)
class KeptStatus:
    """A kernel of a failed cell: whose, how it is reached, what it holds, and until when (seconds since the epoch)."""

    stage: str
    cell: int
    pid: int
    connection_file: str
    size_bytes: int
    since: float
    until: float


def plan(
    targets: Sequence[str] = (),
    *,
    params: Mapping[str, Any] | None = None,
    params_file: Path | str | None = None,
    force: bool = False,
    project: Path | str | None = None,
) -> Plan:
    """Return what would run so that ``targets`` are up to date, and why. Nothing is run or written.

    Parameters
    ----------
    targets
        Pipelines, stages (``fit`` or ``train.fit``), variants or datasets; none means everything.
    params
        Params for this run; a name may be limited to a stage: ``fit.alpha``.
    params_file
        YAML file of params; ``params`` win over it.
    force
        Whether the targets themselves run even if they are up to date.

    Raises
    ------
    NbtoolsError
        For mistakes in pipelines.yaml, notebooks, targets or params, and missing data.
    """
    with open_for(project, overrides_of(params, params_file)) as opened:
        made, _, _ = planned(opened, targets, force=force)
        check_data(made)
        return made


def status(project: Path | str | None = None) -> ProjectStatus:
    """Return where every stage stands. Nothing is run; what kept kernels that have ended left behind is removed."""
    with open_for(project) as opened:
        made, _, world = planned(opened, (), force=False)
        outcomes = opened.database.last_outcomes()
        rows = tuple(
            _stage_status(step, step.completion or world.latest_of(step.key), outcomes.get(step.key))
            for step in made.steps
        )
        running = holder(opened.project.state / "run.lock")
        name = "" if running is None else str(running.get("run", ""))
        kept = _kept(opened, tidy=running is None)
        return ProjectStatus(opened.spec.project, opened.project.root, rows, name, made.missing, kept)


def _kept(opened: Opened, *, tidy: bool) -> tuple[KeptStatus, ...]:
    if not (opened.project.state / "kept").exists():
        return ()
    from nbtools.execution.kept import forget_ended, kept_kernels

    if tidy:
        forget_ended(opened.project)
    return tuple(
        KeptStatus(
            item.stage,
            item.cell,
            *item.to_look_into(),
            item.held_bytes(),
            item.since,
            item.until,
        )
        for item in kept_kernels(opened.project)
    )


def why(
    stage: str, *, params: Mapping[str, Any] | None = None, project: Path | str | None = None
) -> list[Explanation]:
    """Return, for a stage (all its variants), what would happen to it and exactly why."""
    with open_for(project, overrides_of(params, None)) as opened:
        made, _, world = planned(opened, (stage,), force=False)
        chosen = dags.select(opened.dag, (stage,))
        return [_explanation(opened, made, world, key) for key in chosen]


def history(
    *,
    status: str = "",
    branch: str = "",
    commit: str = "",
    limit: int | None = None,
    project: Path | str | None = None,
) -> list[HistoryRow]:
    """Return past runs, newest first; see ``nbtools.tracking.history``."""
    with database_of(find(project)) as (home, database):
        return histories.history(
            database, running_id(home), status=status, branch=branch, commit=commit, limit=limit
        )


def show(run: str = "latest", *, project: Path | str | None = None) -> RunState:
    """Return one run with its stages; ``run`` may be the end of its id, or ``latest``."""
    with database_of(find(project)) as (home, database):
        return histories.show(database, run, running_id(home))


def graph(targets: Sequence[str] = (), *, states: bool = True, project: Path | str | None = None) -> Graph:
    """Return the DAG of ``targets`` and what they need, as nodes and edges.

    Parameters
    ----------
    states
        Whether nodes show what would happen to them; False needs neither data nor history.
    """
    from nbtools.reports.stages import stage_graph

    with open_for(project) as opened:
        keys = opened.dag.ancestors(dags.select(opened.dag, targets))
        actions = {}
        if states:
            made, _, _ = planned(opened, targets, force=False)
            actions = {step.key: step.action.value for step in made.steps}
        return stage_graph(opened.dag, keys, actions)


def schema() -> dict[str, Any]:
    """Return the JSON Schema of pipelines.yaml."""
    from nbtools.pipeline.document import json_schema

    return json_schema()


def _stage_status(step: Any, completion: Completion | None, outcome: Event | None) -> StageStatus:
    failed = isinstance(outcome, StageFailed) and outcome.failure.kind != "cancelled"
    failed = failed and step.action.value == "run"
    return StageStatus(
        stage=step.key,
        action="failed" if failed else step.action.value,
        reason=step.reason,
        notebook=step.variant.stage.notebook,
        finished_at=completion.finished_at if completion else None,
        duration_s=completion.duration_s if completion else None,
        run=completion.run if completion else "",
        failure=outcome.failure.message if failed and isinstance(outcome, StageFailed) else "",
    )


def _explanation(opened: Opened, made: Plan, world: Surroundings, key: str) -> Explanation:
    step = made.step(key)
    latest = world.latest_of(key)
    plain = Explanation(key, step.action.value, step.reasons)
    if latest is None:
        return plain
    now = step.ingredients or replace(world.ingredients(step.variant), inputs=latest.ingredients.inputs)
    changes = differences(latest.ingredients, now)
    cells = ()
    if any(change.kind == "code" for change in changes):
        cells = _cells(opened, latest, step.variant.stage.notebook)
    return replace(
        plain, compared_with=latest.run, compared_at=latest.finished_at, differences=changes, cells=cells
    )


def _cells(opened: Opened, latest: Completion, notebook: str) -> Any:
    try:
        then = opened.workspace.store.read(latest.source).decode("utf-8", "surrogatepass")
    except NbtoolsError:
        return ()  # the old notebook is gone: the summary must do
    return cell_changes(code_cells(then), code_cells(opened.workspace.notebook_text(notebook)))
