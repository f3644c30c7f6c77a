"""One short function per verb; the only place where the parts are wired together.

The command line and the widgets call these functions and nothing beneath them. Heavy parts are
imported inside the functions that need them, so that a command that runs nothing answers at once.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbtools.errors import DataError, NbtoolsError, Problem, UsageError
from nbtools.execution.database import Database
from nbtools.execution.events import Event, StageFailed
from nbtools.execution.files import explained, write_atomically
from nbtools.execution.lock import exclusive, holder
from nbtools.execution.revision import revision
from nbtools.execution.state import RunState
from nbtools.execution.workspace import Workspace, taking_part
from nbtools.pipeline import dag as dags
from nbtools.pipeline.dag import Dag
from nbtools.pipeline.explain import Explanation, cell_changes
from nbtools.pipeline.fingerprint import differences
from nbtools.pipeline.load import load
from nbtools.pipeline.marked_yaml import parse
from nbtools.pipeline.notebook import code_cells
from nbtools.pipeline.params import Overrides, check_overrides
from nbtools.pipeline.plan import Completion, Plan, Surroundings
from nbtools.pipeline.plan import plan as make_plan
from nbtools.pipeline.spec import Spec
from nbtools.project import Project, open_project
from nbtools.tracking import history as histories
from nbtools.tracking.address import StoreAddress, resolve
from nbtools.tracking.history import HistoryRow

if TYPE_CHECKING:
    from nbtools.execution.cancellation import Cancellation
    from nbtools.reports.dag import Graph

Listener = Callable[[Event], None]


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
    """Where a project stands: its stages, the run that is under way if any, and missing external data."""

    project: str
    root: Path
    stages: tuple[StageStatus, ...]
    running: str = ""
    missing: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class LabCommand:
    """A program to start: its words, what to add to its environment, and the folder to start it in."""

    words: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path


@dataclass(frozen=True, slots=True)
class _Opened:
    project: Project
    spec: Spec
    database: Database
    workspace: Workspace
    dag: Dag


def find(path: Path | str | None = None) -> Project:
    """Return the project that ``path`` (default: the working directory) lies in.

    Raises
    ------
    UsageError
        If there is none.
    """
    return open_project(Path(path) if path is not None else Path.cwd())


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
    with _opened(project, _overrides(params, params_file)) as opened:
        made, _, _ = _plan(opened, targets, force=force)
        _check_data(made)
        return made


def run(  # noqa: PLR0913 - each is an option of the command
    targets: Sequence[str] = (),
    *,
    params: Mapping[str, Any] | None = None,
    params_file: Path | str | None = None,
    jobs: int | None = None,
    force: bool = False,
    fail_fast: bool = False,
    track: bool = True,
    project: Path | str | None = None,
    listeners: Sequence[Listener] = (),
    note: Callable[[str], None] = lambda _: None,
    cancellation: Cancellation | None = None,
) -> RunState:
    """Bring ``targets`` up to date and return how that ended; a failed stage is in it, not raised.

    Parameters
    ----------
    jobs
        How many stages may run at once; default: the number of processors.
    fail_fast
        Whether nothing new starts after a failure.
    track
        Whether MLflow keeps the run; without it, only the local history does.
    listeners
        Told of every event while it happens.
    note
        Told, in words, of what a person should know besides.

    Raises
    ------
    NbtoolsError
        As ``plan``; and if the project's folder cannot be written to, or MLflow's store not be reached.
    """
    from nbtools.execution.cancellation import Cancellation
    from nbtools.execution.contracts import Contracts
    from nbtools.execution.outcome import Around
    from nbtools.execution.resources import machine, processors
    from nbtools.execution.run import Options, Run, new_run_id, read_secrets
    from nbtools.tracking.lazy import LazyTracker, untracked

    if jobs is not None and jobs < 1:
        raise UsageError.of("at least one job is needed", where="--jobs")
    home = find(project)
    overrides = _overrides(params, params_file)
    run_id = new_run_id(time.time())
    with explained("nbtools cannot write to the project"):
        _prepare(home)
    owner = {"run": run_id, "command": " ".join(["nbtools run", *targets])}
    with (
        exclusive(home.state / "run.lock", owner, note),
        _opened(home.root, overrides, writable=True) as opened,
    ):
        _remove_leftovers(home)
        made, keys, world = _plan(opened, targets, force=force)
        _check_data(made)
        stages = taking_part(opened.dag, keys)
        masking = read_secrets(opened.workspace, stages, os.environ)
        _check_kernels(opened.workspace, [step.variant.stage for step in made.to_run()])
        opened.workspace.remember()
        forced = _forced(opened.dag, targets, force)
        options = Options(jobs or processors(), fail_fast, forced, tuple(targets), machine())
        tracker = LazyTracker(_address(opened), home.root, note) if track else None
        around = Around(
            run=run_id,
            workspace=opened.workspace,
            tracking=tracker.tracking() if tracker else untracked(home.attempts / run_id),
            contracts=Contracts(home.root),
            cancellation=cancellation or Cancellation(),
            masking=masking,
            revision=revision(home.root),
            note=note,
        )
        everyone: list[Listener] = [opened.database.append, *([tracker] if tracker else ()), *listeners]
        outcome = Run(made, opened.dag, world, around, options, _attempt, everyone).carry_out()
        opened.workspace.remember()
        if tracker:
            tracker.close()
        return outcome


def status(project: Path | str | None = None) -> ProjectStatus:
    """Return where every stage stands. Nothing is run or written."""
    with _opened(project) as opened:
        made, _, world = _plan(opened, (), force=False)
        outcomes = opened.database.last_outcomes()
        rows = tuple(
            _stage_status(step, step.completion or world.latest_of(step.key), outcomes.get(step.key))
            for step in made.steps
        )
        running = holder(opened.project.state / "run.lock")
        name = "" if running is None else str(running.get("run", "?"))
        return ProjectStatus(opened.spec.project, opened.project.root, rows, name, made.missing)


def why(
    stage: str, *, params: Mapping[str, Any] | None = None, project: Path | str | None = None
) -> list[Explanation]:
    """Return, for a stage (all its variants), what would happen to it and exactly why."""
    with _opened(project, _overrides(params, None)) as opened:
        made, _, world = _plan(opened, (stage,), force=False)
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
    with _database(find(project)) as (home, database):
        return histories.history(
            database, _running(home), status=status, branch=branch, commit=commit, limit=limit
        )


def show(run: str = "latest", *, project: Path | str | None = None) -> RunState:
    """Return one run with its stages; ``run`` may be the end of its id, or ``latest``."""
    with _database(find(project)) as (home, database):
        return histories.show(database, run, _running(home))


def graph(targets: Sequence[str] = (), *, states: bool = True, project: Path | str | None = None) -> Graph:
    """Return the DAG of ``targets`` and what they need, as nodes and edges.

    Parameters
    ----------
    states
        Whether nodes show what would happen to them; False needs neither data nor history.
    """
    from nbtools.reports.stages import stage_graph

    with _opened(project) as opened:
        keys = opened.dag.ancestors(dags.select(opened.dag, targets))
        actions = {}
        if states:
            made, _, _ = _plan(opened, targets, force=False)
            actions = {step.key: step.action.value for step in made.steps}
        return stage_graph(opened.dag, keys, actions)


def lab(stage: str = "", *, project: Path | str | None = None) -> LabCommand:
    """Return how to open JupyterLab: on a stage's last executed notebook, or on the whole project.

    Kernels run in the project's folder with the project's modules and tracking store, so that every
    path in an executed notebook means the same there.

    Raises
    ------
    UsageError
        If the stage has not been executed yet, or has several variants.
    """
    from nbtools.execution.placing import file_name

    with _opened(project) as opened:
        home = opened.project
        uri = _address(opened).uri
        environment = {"MLFLOW_TRACKING_URI": uri, "NBTOOLS_PROJECT": str(home.root)}
        environment["PYTHONPATH"] = _joined([str(home.root)])
        command = [sys.executable, "-m", "jupyterlab"]
        if not stage:
            return LabCommand((*command, f"--ServerApp.root_dir={home.root}"), environment, home.root)
        keys = dags.select(opened.dag, (stage,))
        if len(keys) > 1:
            raise UsageError.of(f"{stage!r} has several notebooks", fix=f"name one: {', '.join(keys[:5])}")
        name = f"{file_name(keys[0])}.ipynb"
        folder = next((place for place in (home.failed, home.executed) if (place / name).exists()), None)
        if folder is None:
            raise UsageError.of(f"{keys[0]} has not been executed yet", fix=f"nbtools run {keys[0]}")
        folders = opened.workspace.import_folders(opened.dag.variants[keys[0]].stage)
        environment["PYTHONPATH"] = _joined([str(home.root / item) for item in folders])
        # The file browser is rooted where the notebook lies (JupyterLab shows no hidden folders), kernels
        # where its paths begin: jupyter_server starts them at the nearest folder that exists below that.
        roots = (f"--ServerApp.root_dir={folder}", f"--MappingKernelManager.root_dir={home.root}")
        return LabCommand((*command, *roots, str(folder / name)), environment, home.root)


def schema() -> dict[str, Any]:
    """Return the JSON Schema of pipelines.yaml."""
    from nbtools.pipeline.document import json_schema

    return json_schema()


# What the verbs share


def _joined(folders: Sequence[str]) -> str:
    return os.pathsep.join(filter(None, [*folders, os.environ.get("PYTHONPATH", "")]))


@contextmanager
def _database(home: Project, *, writable: bool = False) -> Iterator[tuple[Project, Database]]:
    database = Database(home.database, writable=writable)
    try:
        yield home, database
    finally:
        database.close()


@contextmanager
def _opened(
    project: Path | str | None, overrides: Sequence[Overrides] = (), *, writable: bool = False
) -> Iterator[_Opened]:
    home = find(project)
    spec = load(home.file)
    with _database(home, writable=writable) as (_, database):
        workspace = Workspace(home, spec, database, overrides)
        yield _Opened(home, spec, database, workspace, dags.build(spec))
    if not writable and home.database.exists():
        # Looking is no change, but what was found spares the next command from looking again.
        with suppress(NbtoolsError, OSError), _database(home, writable=True) as (_, database):
            workspace.database = database
            workspace.remember()


def _plan(
    opened: _Opened, targets: Sequence[str], *, force: bool
) -> tuple[Plan, tuple[str, ...], Surroundings]:
    keys = opened.dag.ancestors(dags.select(opened.dag, targets))
    workspace = opened.workspace
    check_overrides(workspace.overrides, taking_part(opened.dag, keys), workspace.notebooks, opened.spec)
    world = workspace.surroundings()
    return make_plan(opened.dag, keys, world, forced=_forced(opened.dag, targets, force)), keys, world


def _check_data(made: Plan) -> None:
    if made.missing:
        raise DataError(*made.missing)


def _forced(dag: Dag, targets: Sequence[str], force: bool) -> frozenset[str]:
    return frozenset(dags.select(dag, targets)) if force else frozenset()


def _overrides(params: Mapping[str, Any] | None, params_file: Path | str | None) -> list[Overrides]:
    layers = []
    if params_file is not None:
        layers.append(Overrides(_read_params(Path(params_file)), str(params_file)))
    if params:
        layers.append(Overrides(dict(params), "-p"))
    return layers


def _read_params(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError.of(f"the params file cannot be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise UsageError.of("the params file is not UTF-8 text", where=str(path)) from error
    tree = parse(text, str(path))
    if tree.problems:
        raise UsageError(*tree.problems)
    if not isinstance(tree.value, dict):
        raise UsageError(Problem("a params file holds name: value lines", str(path)))
    return tree.value


def _prepare(home: Project) -> None:
    home.state.mkdir(exist_ok=True)
    ignore = home.state / ".gitignore"
    if not ignore.exists():
        # The project's own ignore file is not ours to touch.
        write_atomically(ignore, b"*\n", durable=False)


def _remove_leftovers(home: Project) -> None:
    """Remove the private folders of runs that were killed: with the lock held, nobody uses them."""
    shutil.rmtree(home.attempts, ignore_errors=True)


def _check_kernels(workspace: Workspace, stages: Sequence[Any]) -> None:
    workspace.check_kernels(stages)
    if any(workspace.notebooks[stage.key].language != "python" for stage in stages):
        from nbtools.execution.kernels import kernelspecs

        kernelspecs.check(stages, workspace.notebooks)


def _running(home: Project) -> str | None:
    found = holder(home.state / "run.lock")
    return None if found is None else str(found.get("run", ""))


def _stage_status(step: Any, completion: Completion | None, outcome: Event | None) -> StageStatus:
    failed = isinstance(outcome, StageFailed) and step.action.value == "run"
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


def _explanation(opened: _Opened, made: Plan, world: Surroundings, key: str) -> Explanation:
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


def _cells(opened: _Opened, latest: Completion, notebook: str) -> Any:
    try:
        then = opened.workspace.store.read(latest.source).decode("utf-8", "surrogatepass")
    except NbtoolsError:
        return ()  # the old notebook is gone: the summary must do
    return cell_changes(code_cells(then), code_cells(opened.workspace.notebook_text(notebook)))


def _address(opened: _Opened) -> StoreAddress:
    return resolve(opened.project.root, opened.spec.tracking, opened.spec.project, os.environ)


def _attempt(*arguments: Any) -> Any:
    # papermill takes more than a second to import, beside the other imports and only if a notebook runs.
    from nbtools.execution.attempt import attempt

    return attempt(*arguments)


__all__ = [
    "Explanation",
    "HistoryRow",
    "LabCommand",
    "ProjectStatus",
    "RunState",
    "StageStatus",
    "find",
    "graph",
    "history",
    "lab",
    "plan",
    "run",
    "schema",
    "show",
    "status",
    "why",
]
