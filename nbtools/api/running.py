"""Bringing a project up to date."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbtools.api.delivering import recorder_of, tracker_of
from nbtools.api.opening import (
    Opened,
    address_of,
    check_data,
    find,
    forced_keys,
    open_for,
    overrides_of,
    planned,
)
from nbtools.errors import UsageError
from nbtools.execution import slow_extras
from nbtools.execution.database import set_aside_if_damaged
from nbtools.execution.events import Event
from nbtools.execution.files import explained, write_atomically
from nbtools.execution.lock import exclusive
from nbtools.execution.revision import revision
from nbtools.execution.state import RunState
from nbtools.execution.workspace import Workspace, taking_part
from nbtools.project import Project

if TYPE_CHECKING:
    from nbtools.execution.cancellation import Cancellation
    from nbtools.execution.contracts import Contracts
    from nbtools.execution.kernels.warm.nursery import Nursery
    from nbtools.execution.search import Search
    from nbtools.pipeline.params import Overrides
    from nbtools.pipeline.plan import Plan, Surroundings
    from nbtools.pipeline.spec import Stage

Listener = Callable[[Event], None]


def run(  # noqa: PLR0913 - each is an option of the command
    targets: Sequence[str] = (),
    *,
    params: Mapping[str, Any] | None = None,
    params_file: Path | str | None = None,
    jobs: int | None = None,
    force: bool = False,
    fail_fast: bool = False,
    track: bool = True,
    cold: bool = False,
    debug: bool = False,
    pythons: Mapping[str, str] | None = None,
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
    cold
        Whether every stage gets an ordinary kernel instead of one forked from a process that has imported
        what it needs.
    debug
        Whether the kernel of a failed cell is kept, variables and all, for ``nbtools debug`` and ``resume``.
    pythons
        Interpreters to use instead of those that pipelines.yaml names; an empty name is the default one.
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
    overrides = overrides_of(params, params_file)
    manner = Manner(
        jobs=jobs,
        fail_fast=fail_fast,
        track=track,
        cold=cold,
        debug=debug,
        listeners=listeners,
        note=note,
        stop=cancellation,
        pythons=pythons,
    )
    with alone(project, " ".join(["nbtools run", *targets]), overrides, manner) as (opened, run_id):
        made, keys, world = planned(opened, targets, force=force)
        forced = forced_keys(opened.dag, targets, force=force)
        return carry_out(opened, run_id, made, keys, world, manner, targets=targets, forced=forced)


@dataclass(frozen=True, slots=True)
class Manner:
    """How a plan is carried out, as whoever asked for it wants it; see ``run``."""

    jobs: int | None = None
    fail_fast: bool = False
    track: bool = True
    cold: bool = False
    debug: bool = False
    listeners: Sequence[Listener] = ()
    note: Callable[[str], None] = lambda _: None
    stop: Cancellation | None = None
    pythons: Mapping[str, str] | None = None


@contextmanager
def alone(
    project: Path | str | None, command: str, overrides: Sequence[Overrides], manner: Manner
) -> Iterator[tuple[Opened, str]]:
    """Yield the project and the id of a new run, with the project's lock held; leftovers are removed."""
    from nbtools.execution.run import new_run_id

    if manner.jobs is not None and manner.jobs < 1:
        raise UsageError.of("at least one job is needed", where="--jobs")
    home = find(project)
    run_id = new_run_id(time.time())
    with explained("nbtools cannot write to the project"):
        _prepare(home)
    with (
        _locked(home, {"run": run_id, "command": command}, manner.note),
        open_for(home.root, overrides, writable=True, pythons=manner.pythons) as opened,
    ):
        _remove_leftovers(home)
        yield opened, run_id
        _remove_leftovers(home)


def carry_out(  # noqa: PLR0913 - what a run is
    opened: Opened,
    run_id: str,
    made: Plan,
    keys: Sequence[str],
    world: Surroundings,
    manner: Manner,
    *,
    targets: Sequence[str],
    forced: Collection[str] = (),
    command: str = "",
    search: Search | None = None,
    spooling: bool = False,
) -> RunState:
    """Carry out a plan in a project that ``alone`` has opened.

    Parameters
    ----------
    keys
        The variants of the plan.
    command
        What was typed, if that was not ``nbtools run``.
    search
        What draws further variants while the run goes on.
    spooling
        Whether stages go on while MLflow's server is away.
    """
    from nbtools.execution.cancellation import Cancellation
    from nbtools.execution.outcome import Around, KeepRule
    from nbtools.execution.resources import machine, processors
    from nbtools.execution.run import Options, Run, draw_nothing, read_secrets
    from nbtools.tracking.lazy import untracked

    check_data(made)
    home, note = opened.project, manner.note
    stages = [*taking_part(opened.dag, keys), *([search.stage] if search else ())]
    masking = read_secrets(opened.workspace, stages, os.environ)
    to_run = [*(step.variant.stage for step in made.to_run()), *([search.stage] if search else ())]
    _check_kernels(opened.workspace, to_run)
    opened.workspace.check_outputs(opened.dag.variants[key] for key in keys)
    opened.workspace.remember()
    options = Options(
        manner.jobs or processors(),
        manner.fail_fast,
        forced,
        tuple(targets),
        tracked=manner.track,
        server=address_of(opened).server if manner.track else "",
        capacity=machine(),
        command=command,
        draw=search.draw if search else draw_nothing,
    )
    contracts, nursery = _checked(opened, to_run, cold=manner.cold)
    stop, state = manner.stop or Cancellation(), revision(home.root)
    recorder = recorder_of(
        opened, [*keys, *([search.stage.key] if search else ())], to_run, run_id, state, masking, note
    )
    tracker = tracker_of(opened, run_id, note, stop, recorder) if manner.track else None
    around = Around(
        run=run_id,
        workspace=opened.workspace,
        tracking=tracker.tracking(spooling=spooling) if tracker else untracked(home.attempts / run_id),
        contracts=contracts,
        cancellation=stop,
        masking=masking,
        revision=state,
        note=note,
        nursery=nursery,
        keeping=KeepRule(opened.spec.kept_kernels, opened.spec.kept_s) if manner.debug else None,
    )
    trackers = [tracker] if tracker else []
    everyone: list[Listener] = [opened.database.append, recorder, *trackers, *manner.listeners]
    if search:
        search.begin(around.tracking.history, stop)
        everyone.append(search)
    try:
        outcome = Run(made, opened.dag, world, around, options, _attempt, everyone).carry_out()
    finally:
        if search:
            search.close()
    opened.workspace.remember()
    if tracker:
        tracker.close(stop.asked_again())
    recorder.finish()
    return outcome


@contextmanager
def _locked(home: Project, owner: dict[str, Any], note: Callable[[str], None]) -> Iterator[None]:
    """Hold the project's lock for the block; a state that cannot be read is set aside, and a new one begun."""
    with exclusive(home.state / "run.lock", owner, note):
        with explained("nbtools cannot write to the project"):
            aside = set_aside_if_damaged(home.database)
        if aside:
            note(
                f"the project's state was damaged, and is now {home.relative(aside)}: stages run again, "
                "and the history begins anew"
            )
        yield


def _checked(opened: Opened, to_run: Sequence[Stage], *, cold: bool) -> tuple[Contracts, Nursery | None]:
    """Return the processes that check data, and that kernels are forked from, once external data have been checked.

    Raises
    ------
    DataError
        If external data break their schema.
    """
    from nbtools.execution.contracts import Contracts, check_external

    contracts = Contracts(opened.project.root)
    # It imports while the data are checked.
    nursery = _nursery(opened.workspace, to_run) if opened.spec.warm_kernels and not cold else None
    try:
        keys = {stage.key for stage in to_run}
        read = [variant for variant in opened.dag.variants.values() if variant.stage.key in keys]
        check_external(opened.workspace, read, contracts)
    except BaseException:
        contracts.close()
        if nursery:
            nursery.close()
        raise
    return contracts, nursery


def _nursery(workspace: Workspace, stages: Sequence[Stage]) -> Nursery:
    """Return the zygotes for what will run, at work already."""
    from nbtools.execution.kernels.seeding import with_hash_seed
    from nbtools.execution.kernels.warm.nursery import Nursery

    nursery = Nursery()
    secret = workspace.secret_variables() | {"PYTHONPATH"}
    environment = with_hash_seed({name: value for name, value in os.environ.items() if name not in secret})
    modules: dict[str, list[str]] = {}
    for stage in {stage.key: stage for stage in stages}.values():
        if workspace.notebooks[stage.key].language == "python":
            modules.setdefault(workspace.interpreter(stage).path, []).extend(workspace.warm_imports(stage))
    for python, names in modules.items():
        nursery.prepare(python, tuple(dict.fromkeys(names)), environment)
    return nursery


def _prepare(home: Project) -> None:
    home.state.mkdir(exist_ok=True)
    ignore = home.state / ".gitignore"
    if not ignore.exists():
        # The project's own ignore file is not ours to touch.
        write_atomically(ignore, b"*\n", durable=False)


def _remove_leftovers(home: Project) -> None:
    """Remove what killed runs and ended kernels have left: with the lock held, nobody uses it."""
    from nbtools.execution.kept import forget_ended
    from nbtools.execution.run import remove_attempts
    from nbtools.execution.worktree import tidy

    forget_ended(home)
    remove_attempts(home)
    tidy(home)


def _check_kernels(workspace: Workspace, stages: Sequence[Any]) -> None:
    workspace.check_kernels(stages)
    if any(workspace.notebooks[stage.key].language != "python" for stage in stages):
        from nbtools.execution.kernels import kernelspecs

        kernelspecs.check(stages, workspace.notebooks)


def _attempt(*arguments: Any) -> Any:
    return _attempting().attempt(*arguments)


@cache
def _attempting() -> Any:
    # papermill takes long to import, beside the other imports and only if a notebook runs; pyarrow is there
    # for notebooks in Hadoop's file system.
    with slow_extras.left_out("pyarrow"):
        return importlib.import_module("nbtools.execution.attempt")
