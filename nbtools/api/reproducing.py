"""Repeating an earlier run from what was kept of it, and comparing what comes of it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbtools.api import running
from nbtools.api.opening import (
    Opened,
    database_of,
    find,
    forced_keys,
    open_for,
    overrides_of,
    planned,
    running_id,
)
from nbtools.api.running import Manner
from nbtools.errors import DataError, NbtoolsError, OperationError, Problem, UsageError, suggest
from nbtools.execution import environments
from nbtools.execution.database import Database
from nbtools.execution.digest import Memo, file_digest
from nbtools.execution.events import Artifact, RunStarted
from nbtools.execution.kernels.interpreter import UnusablePython, describe, locate
from nbtools.execution.kernels.seeding import HASH_SEED
from nbtools.execution.lock import exclusive
from nbtools.execution.state import RunState, StageState
from nbtools.execution.store import Store
from nbtools.execution.worktree import Worktree, has_commit, lock_file, worktree
from nbtools.pipeline import dag as dags
from nbtools.pipeline.plan import Completion
from nbtools.pipeline.sweeping import point_of, with_points
from nbtools.project import Project
from nbtools.tracking.address import sqlite_address
from nbtools.tracking.capturing import captured, lineage_store
from nbtools.tracking.contents import first_difference
from nbtools.tracking.history import show
from nbtools.tracking.lineage import Capture, Environment
from nbtools.tracking.verdicts import OutputComparison, StageVerdict, first_different_cell, judge

if TYPE_CHECKING:
    from nbtools.api.running import Listener
    from nbtools.execution.cancellation import Cancellation

ENVIRONMENTS = ("build", "check", "current")
RTOL = 1e-6
_WITH_RESULT = ("finished", "up to date", "restored", "unchanged inputs")


@dataclass(frozen=True, slots=True)
class Reproduction:
    """What came of repeating a run.

    Parameters
    ----------
    run
        The run that was repeated.
    status
        ``reproduced``, ``different`` or ``cancelled``.
    environment
        How packages differ from those of the run; nothing if they are the same.
    """

    run: str
    commit: str
    status: str
    stages: tuple[StageVerdict, ...]
    environment: tuple[str, ...] = ()

    @property
    def is_reproduced(self) -> bool:
        """Whether every stage made the same again."""
        return self.status == "reproduced"


@dataclass(frozen=True, slots=True)
class _Original:
    """The run that is repeated: its state, what was kept of its code, and its results by stage."""

    state: RunState
    capture: Capture
    completions: Mapping[str, Completion]
    tracked: bool

    @property
    def stages(self) -> dict[str, StageState]:
        return {key: stage for key, stage in self.state.stages.items() if stage.status in _WITH_RESULT}

    def inputs(self) -> Iterator[Artifact]:
        for key, stage in self.state.stages.items():
            completion = self.completions.get(key)
            recorded = completion.extra.get("inputs", ()) if completion else ()
            yield from stage.inputs or (Artifact(**item) for item in recorded)


def reproduce(  # noqa: PLR0913 - each is an option of the command
    run: str,
    stages: Sequence[str] = (),
    *,
    environment: str = "build",
    rtol: float = RTOL,
    ignore: Sequence[str] = (),
    jobs: int | None = None,
    project: Path | str | None = None,
    listeners: Sequence[Listener] = (),
    note: Callable[[str], None] = lambda _: None,
    cancellation: Cancellation | None = None,
) -> Reproduction:
    """Repeat an earlier run without any cached result, and return how what it makes compares with then.

    The commit, with what differed from it, is checked out into a temporary folder, which is removed afterwards. The
    project's MLflow does not hear of it: what notebooks log and register goes to a store in that folder.

    Parameters
    ----------
    run
        As of ``show``. If it executed nothing, the run that made its results is meant.
    stages
        Only these; the results of others are taken from the store.
    environment
        ``build``: use the interpreter of the run if it has exactly the packages of then, else build that environment
        with uv. ``check``: never build. ``current``: use what is installed now.
    rtol
        How far numbers may be apart, relative to the larger one.
    ignore
        Metrics and datasets that may differ, such as durations; ``*`` stands for any text.

    Raises
    ------
    NbtoolsError
        If there is no such run or stage, or something is missing without which it cannot be repeated.
    """
    _check_options(environment, rtol)
    home = find(project)
    if not home.database.exists():
        raise UsageError.of("there is no run yet", fix="nbtools run")
    owner = {"command": f"nbtools reproduce {run}"}
    with (
        exclusive(lock_file(home), owner, note),
        database_of(home) as (_, database),
    ):
        original = _original(home, database, run, note)
        wanted = _wanted(original, stages)
        with worktree(home, original.state.revision.commit) as tree, _surroundings(original, tree):
            _restore_code(home, original, tree, note)
            pythons, differing = _pythons(home, original.capture, environment, note)
            _restore_inputs(home, original, tree)
            if stages:
                _keep_results(home, original, tree, wanted)
            manner = Manner(
                jobs=jobs,
                track=original.tracked,
                listeners=listeners,
                note=note,
                stop=cancellation,
                pythons=pythons,
            )
            again = _run(original, tree, wanted, manner, alone=bool(stages))
            verdicts = tuple(_verdict(key, original, again, (home, tree), rtol, ignore) for key in wanted)
    status = "reproduced" if all(item.is_reproduced for item in verdicts) else "different"
    status = "cancelled" if again.status == "cancelled" else status
    return Reproduction(original.state.run, original.state.revision.commit, status, verdicts, differing)


def _check_options(environment: str, rtol: float) -> None:
    if environment not in ENVIRONMENTS:
        fix = suggest(environment, ENVIRONMENTS, "environment")
        raise UsageError.of(f"{environment!r} is no environment", where="--environment", fix=fix)
    if not 0 <= rtol < 1:
        raise UsageError.of(f"{rtol:g} is no tolerance", where="--rtol", fix="0 or more, and less than 1")


# What was


def _original(home: Project, database: Database, run: str, note: Callable[[str], None]) -> _Original:
    """Return the run that is meant, or the one that made its results.

    Raises
    ------
    UsageError
        If nothing is kept that it could be repeated from.
    """
    state = show(database, run, running_id(home))
    if state.status == "running":
        raise UsageError.of(f"run {state.run} is still under way")
    by_fingerprint, _ = database.completions()
    completions = {
        key: found
        for key, stage in state.stages.items()
        if stage.fingerprint and (found := by_fingerprint.get(stage.fingerprint))
    }
    capture = captured(home, state.run)
    makers = sorted({item.run for item in completions.values()} - {state.run})
    if not capture.files and makers:
        note(f"run {state.run} executed nothing; {makers[-1]}, which made its results, is repeated")
        return _original(home, database, makers[-1], note)
    (begun,) = database.events(run=state.run, kinds=(RunStarted.__name__,))
    tracked = isinstance(begun, RunStarted) and begun.tracked
    original = _Original(state, capture, completions, tracked)
    if not original.stages:
        raise UsageError.of(f"run {state.run} has no result to compare with", fix="see nbtools history")
    if not capture.files and (state.revision.dirty or not has_commit(home.root, state.revision.commit)):
        message = f"nothing is kept of the code of run {state.run}"
        raise UsageError.of(message, fix="runs that this version of nbtools has carried out can be repeated")
    return original


def _wanted(original: _Original, stages: Sequence[str]) -> tuple[str, ...]:
    """Return the keys of the stages that are meant; all if none is named."""
    keys = tuple(original.stages)
    chosen: list[str] = []
    for name in stages:
        meant = [key for key in keys if name in _names(key)]
        if not meant:
            known = [short for key in keys for short in _names(key)]
            fix = suggest(name, known, "stage")
            raise UsageError.of(f"run {original.state.run} has no result of a stage {name!r}", fix=fix)
        chosen += meant
    return tuple(key for key in keys if key in chosen) if stages else keys


def _names(key: str) -> tuple[str, ...]:
    """Return what a variant may be called, such as train.fit[a=1], fit[a=1], train.fit, fit and train."""
    short, stage = key.partition(".")[2], key.partition("[")[0]
    return key, short, stage, stage.partition(".")[2], key.partition(".")[0]


@contextmanager
def _surroundings(original: _Original, tree: Worktree) -> Iterator[None]:
    """Give kernels the seed of hashes that they had, and an MLflow store that goes with the folder."""
    seeds = [str(stage.seeds[HASH_SEED]) for stage in original.stages.values() if HASH_SEED in stage.seeds]
    store = sqlite_address(Project(tree.root).state / "mlflow.db").uri
    given = {"MLFLOW_TRACKING_URI": store, "MLFLOW_REGISTRY_URI": store}
    given |= {HASH_SEED: seeds[0]} if seeds else {}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


# Bringing it back


def _restore_code(home: Project, original: _Original, tree: Worktree, note: Callable[[str], None]) -> None:
    """Make every file that counted as code what it was.

    Raises
    ------
    DataError
        With the files that cannot be brought back.
    """
    capture, revision, store = original.capture, original.state.revision, lineage_store(home)
    if revision.commit and not has_commit(home.root, revision.commit):
        note(
            f"git does not know the commit {revision.commit[:12]} any more: the files that were kept are used"
        )
    elif capture.patch and (why := tree.apply(store.path(capture.patch))):
        note(f"what differed from the commit cannot be applied ({why}): the files that were kept are used")
    problems = []
    for path, digest in capture.files.items():
        there = tree.root / path
        if there.is_file() and file_digest(there) == digest:
            continue
        target = tree.place(path)
        target.unlink(missing_ok=True)
        try:
            store.extract(digest, target)
        except DataError:
            reason = next((item for item in capture.left_out if item.startswith(f"{path}: ")), "")
            why = f" ({reason.partition(': ')[2]})" if reason else ""
            problems.append(Problem(f"the file as it was in the run, {digest[:12]}, is not kept{why}", path))
    if problems:
        raise DataError(*problems)


def _restore_inputs(home: Project, original: _Original, tree: Worktree) -> None:
    """Bring back external data, or make sure that what is there is what it was.

    Raises
    ------
    DataError
        With the data that are nowhere.
    """
    with open_for(tree.root) as opened:
        variants = opened.dag.variants.values()
        external = {item.dataset for variant in variants for item in variant.inputs if not item.producers}
    problems = {}
    for item in original.inputs():
        if item.dataset in external and not _brought(home, item, tree.place(item.path)):
            message = f"the external data {item.dataset!r} of the run ({item.digest[:12]}) are neither here nor kept"
            fix = "put them there, then repeat it; keep: true keeps them with later runs"
            problems[item.path] = Problem(message, item.path, fix=fix)
    if problems:
        raise DataError(*problems.values())


def _brought(home: Project, item: Artifact, target: Path) -> bool:
    """Put external data to where they were; tell whether that worked."""
    memo = Memo()
    if _is(memo, target, item.digest):
        return True
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    target.unlink(missing_ok=True)
    here = home.root / item.path
    if _is(memo, here, item.digest):
        copy = shutil.copytree if here.is_dir() else shutil.copyfile
        copy(here, target)
        return _is(memo, target, item.digest)
    for store in (lineage_store(home), Store(home.store)):
        if store.holds(item.digest):
            store.extract(item.digest, target)
            return True
    return False


def _is(memo: Memo, path: Path, digest: str) -> bool:
    measured = memo.measure(path)
    return measured is not None and measured.digest == digest


def _keep_results(home: Project, original: _Original, tree: Worktree, wanted: Sequence[str]) -> None:
    """Let the stages that are not to run have the results that they had; what is gone is made again."""
    project = Project(tree.root)
    ours, theirs = Store(home.store), Store(project.store)
    database = Database(project.database, writable=True)
    try:
        for key, completion in original.completions.items():
            if key in wanted or completion.changed_inputs:
                continue
            named = [*completion.outputs.values(), *completion.streams.values(), completion.executed]
            with suppress(NbtoolsError, OSError):
                for number, digest in enumerate(filter(None, named)):
                    private = project.attempts / "kept" / f"{key}-{number}"
                    ours.extract(digest, private)
                    theirs.add(private)
                database.commit(completion, f"kept/{key}")
    finally:
        database.close()
        shutil.rmtree(project.attempts / "kept", ignore_errors=True)


# The environment


def _pythons(
    home: Project, capture: Capture, how: str, note: Callable[[str], None]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the interpreters to use, by what pipelines.yaml calls them, and how they differ from those of the run.

    Raises
    ------
    OperationError
        If they differ, and are not to be, or cannot be, built.
    """
    found: dict[str, str] = {}
    told: list[str] = []
    for name, path in capture.interpreters.items():
        then = capture.environments.get(path)
        present, differing = _present(home, name, path, then)
        if then is None or not differing or how == "current":
            if not present:
                raise OperationError.of(differing[0], fix="put a Python there, or let uv build one")
            found[name] = present
            told += differing
            for line in differing:
                note(f"not as it was: {line}")
        elif how == "build" and environments.find_uv():
            found[name] = environments.build(home, then.python, then.packages, then.origins, note)
        else:
            raise _other_environment(differing, how)
    return found, tuple(told)


def _present(home: Project, name: str, path: str, then: Environment | None) -> tuple[str, tuple[str, ...]]:
    """Return the interpreter of the run as it is today, and how it differs; no path if there is none."""
    problems = []
    for candidate in (path, name):
        try:
            now, _ = describe(locate(candidate, home.root), {})
        except UnusablePython as error:
            problems.append(str(error))
            continue
        if then is None:
            return now.path, (f"what was installed in {path} is not known any more",)
        return now.path, environments.differences(then.python, then.packages, now.version, now.distributions)
    return "", tuple(problems[:1])


def _other_environment(differing: Sequence[str], how: str) -> OperationError:
    shown = "\n".join(f"  {line}" for line in differing[:20])
    more = f"\n  … and {len(differing) - 20} more" if len(differing) > 20 else ""
    fix = "install those versions, or go on with what is installed: --environment current"
    if how == "build":
        fix = f"install uv, which builds the environment of the run; or {fix}"
    return OperationError.of(f"the environment is not that of the run:\n{shown}{more}", fix=fix)


def _run(
    original: _Original, tree: Worktree, wanted: Sequence[str], manner: Manner, *, alone: bool
) -> RunState:
    """Carry out the plan of the run; of a sweep, with the variants that it had.

    Parameters
    ----------
    alone
        Whether only the stages that are ``wanted`` are forced to run.
    """
    overrides = overrides_of(original.state.overrides, None)
    with running.alone(tree.root, f"nbtools reproduce {original.state.run}", overrides, manner) as (
        found,
        run_id,
    ):
        opened = _with_variants(found, original)
        targets = (
            tuple(key for key in wanted if key in opened.dag.variants) if alone else original.state.targets
        )
        made, keys, world = planned(opened, targets, force=alone)
        forced = forced_keys(opened.dag, targets, force=alone)
        return running.carry_out(opened, run_id, made, keys, world, manner, targets=targets, forced=forced)


def _with_variants(opened: Opened, original: _Original) -> Opened:
    """Return the project with the variants that a sweep had and pipelines.yaml does not have."""
    points: dict[str, list[dict[str, Any]]] = {}
    for key, stage in original.stages.items():
        name, bracket, _ = key.partition("[")
        completion = original.completions.get(key)
        params = stage.params or (completion.ingredients.params if completion else {})
        if bracket and key not in opened.dag.variants and (point := point_of(key, params)):
            points.setdefault(name, []).append(point)
    spec, folder = opened.spec, opened.project.relative(opened.project.sweeps)
    for written in opened.spec.stages():
        if written.key in points:
            spec = with_points(spec, written, points[written.key], folder)
    opened.workspace.spec = spec
    return replace(opened, spec=spec, dag=dags.build(spec))


# Comparing


def _verdict(
    key: str,
    original: _Original,
    again: RunState,
    where: tuple[Project, Worktree],
    rtol: float,
    ignored: Sequence[str],
) -> StageVerdict:
    home, tree = where
    then, now = original.stages[key], again.stages.get(key)
    if now is None:
        return StageVerdict(key, "not run", ("the plan has no such stage",))
    if now.status not in _WITH_RESULT:
        failed = now.status in ("failed", "cancelled")
        why = now.failure.message if now.failure else now.reason
        return StageVerdict(key, "failed" if failed else "not run", (why or now.status,))
    made = {(item.dataset, item.path): item for item in now.outputs}
    outputs = [
        _compared(item, made.get((item.dataset, item.path)), home, tree, rtol) for item in then.outputs
    ]
    verdict = judge(key, outputs, then.metrics, now.metrics, rtol, ignored)
    if verdict.verdict != "different":
        return verdict
    cell = _cell(original.completions.get(key), home, tree.root / now.executed if now.executed else None)
    first = [*_other_inputs(then, now), *([cell] if cell else [])]
    return replace(verdict, differences=(*first, *verdict.differences))


def _compared(
    then: Artifact, now: Artifact | None, home: Project, tree: Worktree, rtol: float
) -> OutputComparison:
    if now is None:
        return OutputComparison(then.dataset, False, "it was not made")
    if now.digest == then.digest:
        return OutputComparison(then.dataset, True)
    store = Store(home.store)
    old, new = tree.root / ".nbtools" / "then" / then.digest, tree.root / now.path
    try:
        if not old.exists():
            store.extract(then.digest, old)
    except DataError:
        said = f"its bytes differ ({then.digest[:12]} → {now.digest[:12]}), and those of then are not stored"
        return OutputComparison(then.dataset, False, said)
    return OutputComparison(then.dataset, False, first_difference(old, new, then.path, rtol))


def _other_inputs(then: StageState, now: StageState) -> list[str]:
    before = {item.path: item.digest for item in then.inputs}
    return [
        f"its input {item.dataset} differs"
        for item in now.inputs
        if item.path in before and before[item.path] != item.digest
    ]


def _cell(completion: Completion | None, home: Project, executed: Path | None) -> str:
    """Return which cell of the executed notebooks differs first, and how."""
    if completion is None or executed is None:
        return ""
    try:
        before: dict[str, Any] = json.loads(Store(home.store).read(completion.executed))
        after: dict[str, Any] = json.loads(executed.read_bytes())
    except (NbtoolsError, OSError, ValueError):
        return ""
    return first_different_cell(before, after)
