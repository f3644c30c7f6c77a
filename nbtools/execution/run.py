"""Carries out a plan: what is ready runs, in parallel; everything that happens is told as events."""

from __future__ import annotations

import logging
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from nbtools.errors import NbtoolsError, Problem, UsageError
from nbtools.execution.events import (
    Artifact,
    Event,
    Failure,
    PlannedStep,
    RunFinished,
    RunStarted,
    StageDrawn,
    StageFailed,
    StageFinished,
    StagePruned,
    StageRetried,
    StageReused,
    StageSkipped,
)
from nbtools.execution.files import operation_error, write_atomically
from nbtools.execution.kept import kept_kernels
from nbtools.execution.masking import SHORTEST, Masking
from nbtools.execution.outcome import Around, Failed, Success, gate_failure
from nbtools.execution.placing import file_name, forget_failure, restore
from nbtools.execution.resources import room_for
from nbtools.execution.state import RunState
from nbtools.execution.workspace import Workspace
from nbtools.pipeline.dag import Dag, Variant
from nbtools.pipeline.plan import Action, Completion, Plan, Step, Surroundings, decide, verdicts
from nbtools.pipeline.priority import by_longest_chain
from nbtools.pipeline.spec import Resources, Secret, Stage
from nbtools.project import Project

log = logging.getLogger(__name__)

_POLL_S = 0.2
_LONGEST_BACKOFF_S = 60.0
#: What is worth another try; a cancelled run or a broken contract is not.
_RETRIED = ("error", "timeout", "kernel died", "system")


#: What is tried again as if it had not been tried, but not for ever.
_NOT_ITS_FAULT = ("zygote died", "tracking lost")
_MOST_LOST = 4

#: Returns a variant that joins the run, given the steps that are done; None if there is none (any more, or yet).
Draw: TypeAlias = Callable[[Mapping[str, Step]], Variant | None]


def draw_nothing(_done: Mapping[str, Step]) -> Variant | None:
    """Return that no variant joins the run: all were planned."""
    return None


@dataclass(frozen=True, slots=True)
class Options:
    """How a plan is carried out.

    Parameters
    ----------
    jobs
        How many stages may run at once.
    fail_fast
        Whether nothing new starts after a failure.
    forced
        Variants that run even if they are up to date.
    tracked
        Whether MLflow is to know of the run.
    retry
        Whether a failed stage is tried again as often as it may be.
    capacity
        What running stages may take together of what their ``resources`` say; zero is not counted.
    command
        What was typed, if that was not ``nbtools run``.
    draw
        Asked for another variant whenever a job is free.
    """

    jobs: int = 1
    fail_fast: bool = False
    forced: Collection[str] = ()
    targets: Sequence[str] = ()
    tracked: bool = False
    server: str = ""
    retry: bool = True
    capacity: Resources = field(default_factory=Resources)
    command: str = ""
    draw: Draw = draw_nothing


Attempt: TypeAlias = Callable[[Step, int, Sequence[Completion], Around, Callable[[Event], None]], Success]


def new_run_id(now: float) -> str:
    """Return an id that sorts by time and that people can type the end of."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}-{secrets.token_hex(2)}"


def read_secrets(workspace: Workspace, stages: Iterable[Stage], environ: Mapping[str, str]) -> Masking:
    """Return what masks the secrets of a run.

    Raises
    ------
    UsageError
        If a variable that a stage needs is not set, or too short to be masked.
    """
    problems: dict[str, Problem] = {}
    for stage in stages:
        values = workspace.params_of(stage).values()
        for name in sorted({value.env for value in values if isinstance(value, Secret)}):
            if len(environ.get(name, "")) < SHORTEST:
                state = "is too short to be a secret" if environ.get(name) else "is not set"
                message = f"the environment variable {name} {state}; {stage.key} needs it"
                problems[name] = Problem(message, fix=f"export {name}=… before the run")
    if problems:
        raise UsageError(*problems.values())
    known = workspace.secret_variables()
    return Masking({name: environ[name] for name in known if len(environ.get(name, "")) >= SHORTEST})


def remove_attempts(project: Project, run: str = "*") -> None:
    """Remove the private folders of attempts, but for those whose kernels are kept."""
    kept = {project.root / kernel.folder for kernel in kept_kernels(project)}
    for folder in project.attempts.glob(run):
        if not any(place.parent == folder for place in kept):
            shutil.rmtree(folder, ignore_errors=True)
            continue
        for attempt in folder.iterdir():
            if attempt.is_dir() and attempt not in kept:
                shutil.rmtree(attempt, ignore_errors=True)


class Run:
    """One execution of a plan.

    Parameters
    ----------
    plan, world
        What to do, and what it was made from: steps are decided again once their inputs are known.
    attempt
        Runs one stage once, as ``nbtools.execution.attempt.attempt`` does.
    listeners
        Told of every event; one that fails is passed over.
    """

    def __init__(
        self,
        plan: Plan,
        dag: Dag,
        world: Surroundings,
        around: Around,
        options: Options,
        attempt: Attempt,
        listeners: Sequence[Callable[[Event], None]],
    ) -> None:
        self.plan = plan
        self.pruned: set[str] = set()
        self.dag = dag
        self.world = world
        self.around = around
        self.options = options
        self.attempt = attempt
        self.listeners = listeners
        self.workspace = around.workspace
        self.run_id = around.run
        self.cancellation = around.cancellation
        self.note = around.note
        self.state = RunState()
        self.done: dict[str, Step] = {}
        self.ended: set[str] = set()
        self._said: set[str] = set()
        self._telling = threading.Lock()  # stage threads tell too, and listeners see one order

    def carry_out(self) -> RunState:
        """Run everything that the plan says and return how it ended."""
        started = time.time()
        self.emit(self._started(started))
        for stage in {step.variant.stage.key: step.variant.stage for step in self.plan.to_run()}.values():
            if not room_for(stage.resources, [Resources()], self.options.capacity):
                self.note(f"{stage.key} asks for more than this machine has: it runs alone")
        try:
            with ThreadPoolExecutor(self.options.jobs, thread_name_prefix="stage") as pool:
                self._schedule(pool)
        finally:
            ended = time.time()
            # First, so that MLflow is told while the processes end.
            self.emit(RunFinished(self.run_id, ended, self._status(), ended - started))
            self.around.contracts.close()
            if self.around.nursery:
                self.around.nursery.close()
            remove_attempts(self.workspace.project, self.run_id)
        return self.state

    def emit(self, event: Event) -> None:
        """Tell everybody; a listener's trouble is not the run's."""
        with self._telling:
            self.state = self.state.after(event)
            for listener in self.listeners:
                try:
                    listener(event)
                except NbtoolsError as error:
                    self._say_once(f"the run is not recorded in full: {error.problems[0].message}")
                except Exception:  # a failing listener must never fail a run
                    log.warning("a listener failed at %s", type(event).__name__, exc_info=True)

    def _say_once(self, words: str) -> None:
        """Tell the user, but not again at every event that a full disk cannot take in."""
        if words not in self._said:
            self._said.add(words)
            self.note(words)

    def _started(self, at: float) -> RunStarted:
        steps = tuple(
            PlannedStep(step.key, step.action.value, step.reason, step.variant.stage.notebook)
            for step in self.plan.steps
        )
        overrides = {
            name: value for layer in self.workspace.overrides for name, value in layer.values.items()
        }
        return RunStarted(
            run=self.run_id,
            at=at,
            project=self.workspace.spec.project,
            targets=tuple(self.options.targets),
            steps=steps,
            revision=self.around.revision,
            overrides=overrides,
            jobs=self.options.jobs,
            tracked=self.options.tracked,
            server=self.options.server,
            command=self.options.command,
        )

    def _status(self) -> str:
        if self.cancellation.flag.is_set():
            return "cancelled"
        return "passed" if len(self.done) + len(self.pruned) == len(self.plan.steps) else "failed"

    # Scheduling

    def _schedule(self, pool: ThreadPoolExecutor) -> None:
        durations = {
            step.key: found.duration_s
            for step in self.plan.to_run()
            if (found := self.world.latest_of(step.key))
        }
        waiting = {step.key: step for step in by_longest_chain(self.plan.steps, durations)}
        running: dict[Future[Success | Failure], Step] = {}
        while True:
            try:
                self._take_in(waiting, running)
                if not (waiting or running):
                    return
                self._start_ready(waiting, running, pool)
                if running:
                    finished, _ = wait(running, timeout=_POLL_S, return_when=FIRST_COMPLETED)
                    for future in finished:
                        self._settle(running.pop(future), future.result())
            except KeyboardInterrupt:
                self.cancellation.request()

    def _take_in(self, waiting: dict[str, Step], running: Mapping[Future[Success | Failure], Step]) -> None:
        """Have variants join the run, one for each job that is free."""
        while len(waiting) + len(running) < self.options.jobs and not self._is_ending():
            variant = self.options.draw(self.done)
            if variant is None:
                return
            step = Step(variant, Action.RUN, ("drawn",))
            self.dag = Dag({**self.dag.variants, variant.key: variant})
            self.plan = replace(self.plan, steps=(*self.plan.steps, step))
            notebook = variant.stage.notebook
            self.emit(StageDrawn(self.run_id, time.time(), step.key, notebook, step.reason))
            waiting[step.key] = step

    def _is_ending(self) -> bool:
        return self.cancellation.flag.is_set() or bool(self.options.fail_fast and self.ended)

    def _start_ready(
        self,
        waiting: dict[str, Step],
        running: dict[Future[Success | Failure], Step],
        pool: ThreadPoolExecutor,
    ) -> None:
        for key in list(waiting):
            if len(running) >= self.options.jobs:
                return
            step = waiting[key]
            if reason := self._why_not(step):
                del waiting[key]
                self._skip(step, reason)
            elif all(before in self.done for before in step.variant.upstream):
                # A stage that waits for room is decided when there is some: a digest is not wasted on it.
                if step.action is Action.RUN and not self._has_room(step, running.values()):
                    continue
                del waiting[key]
                ready = self._decide(step)
                if ready is not None and ready.action is Action.RUN:
                    upstream = self._upstream(ready)
                    running[pool.submit(self._run_stage, ready, upstream)] = ready

    def _has_room(self, step: Step, running: Iterable[Step]) -> bool:
        taken = [other.variant.stage.resources for other in running]
        return room_for(step.variant.stage.resources, taken, self.options.capacity)

    def _why_not(self, step: Step) -> str:
        if self.cancellation.flag.is_set():
            return "the run was cancelled"
        failed = [key for key in step.variant.upstream if key in self.ended or key in self.pruned]
        if failed:
            return failed[0]
        if self.options.fail_fast and self.ended:
            return "another stage failed (--fail-fast)"
        return ""

    def _skip(self, step: Step, because: str) -> None:
        self.ended.add(step.key)
        self.emit(StageSkipped(self.run_id, time.time(), step.key, because))

    def _decide(self, step: Step) -> Step | None:
        """Return the step as it stands now that all its inputs are known; None if nothing must run."""
        if step.action is Action.RUN:
            forced = step.key in self.options.forced
            try:
                step = decide(self.dag.variants[step.key], self.done, self.world, forced=forced)
            except NbtoolsError as error:
                self._fail(step, _failure(error), 0.0, 1)
                return None
            how = "unchanged inputs"
        else:
            how = "restored" if step.action is Action.RESTORE else "up to date"
        match step.action:
            case Action.RUN:
                return step
            case Action.SKIP:
                self.done[step.key] = step
                self.emit(StageSkipped(self.run_id, time.time(), step.key, step.reason))
            case Action.GATE:
                self._refuse(step)
            case Action.BLOCKED:
                self._fail(step, Failure("condition", step.reason), 0.0, 1)
            case _:
                return self._reuse(step, how)
        return None

    def _refuse(self, step: Step) -> None:
        """Fail a step whose known result its gates refuse: nothing needs to run to say so again."""
        failure = gate_failure(step.variant.stage, verdicts(step))
        assert step.completion is not None
        try:
            path = self.workspace.project.failed / f"{file_name(step.key)}.ipynb"
            write_atomically(path, self.workspace.store.read(step.completion.executed), durable=False)
            failure = replace(failure, notebook=self.workspace.project.relative(path))
        except (OSError, NbtoolsError):
            pass  # without its notebook the reason is still told
        self._fail(step, failure, 0.0, 1)

    def _reuse(self, step: Step, how: str) -> Step | None:
        """Use a result that is known; None if that worked, else the step that must run instead."""
        try:
            if step.action is Action.RESTORE:
                restore(step, self.workspace, self.run_id, self.note)
            forget_failure(step, self.workspace)
        except OSError as error:
            self._fail(step, _failure(operation_error(f"restoring the outputs of {step.key}", error)), 0.0, 1)
            return None
        except NbtoolsError as error:
            self.note(f"{step.key}: {error.problems[0].message}; it runs again")
            return replace(step, action=Action.RUN, completion=None)
        self.done[step.key] = replace(step, action=Action.NOTHING)
        if step.action is Action.RESTORE or how == "unchanged inputs":
            self.workspace.database.use(step.key, step.fingerprint)
        metrics = step.completion.metrics if step.completion else {}
        outputs = self._artifacts(step)
        now = time.time()
        self.emit(StageReused(self.run_id, now, step.key, step.fingerprint, how, outputs, metrics))
        return None

    def _artifacts(self, step: Step) -> tuple[Artifact, ...]:
        assert step.completion is not None
        found = step.completion
        return tuple(
            Artifact(item.dataset, item.path, found.outputs[item.variable], found.sizes.get(item.variable, 0))
            for item in step.variant.outputs
        )

    def _upstream(self, step: Step) -> list[Completion]:
        keys = self.dag.ancestors(step.variant.upstream)
        return [found.completion for key in keys if (found := self.done.get(key)) and found.completion]

    # Stages; these run in the pool's threads

    def _run_stage(self, step: Step, upstream: Sequence[Completion]) -> Success | Failure:
        number = failures = 0
        while True:
            number += 1
            started = time.time()
            try:
                return self._succeed(step, self.attempt(step, number, upstream, self.around, self.emit))
            except Failed as failed:
                failure = failed.failure
            except Exception as error:  # a defect of ours must not stop the other stages
                log.exception("stage %s", step.key)
                failure = Failure("system", f"{type(error).__name__}: {error}")
            # A process of nbtools' own, or MLflow's server, has gone; the next attempt does without it.
            lost = failure.kind in _NOT_ITS_FAULT and number < _MOST_LOST
            failures += not lost
            retries = step.variant.stage.retries if self.options.retry else 0
            again = lost or (failures <= retries and failure.kind in _RETRIED)
            if failure.kind == "pruned":
                self._prune(step, failure, time.time() - started, number)
                return failure
            if not again or self.cancellation.flag.is_set():
                self._fail(step, failure, time.time() - started, number)
                return failure
            self.emit(StageRetried(self.run_id, time.time(), step.key, number, failure))
            if not lost:
                self.cancellation.flag.wait(min(2.0 ** (failures - 1), _LONGEST_BACKOFF_S))

    def _succeed(self, step: Step, success: Success) -> Success:
        completion = success.completion
        self.emit(
            StageFinished(
                run=self.run_id,
                at=completion.finished_at,
                stage=step.key,
                fingerprint=step.fingerprint,
                duration_s=completion.duration_s,
                outputs=success.outputs,
                metrics=completion.metrics,
                executed=success.executed,
                gates=success.gates,
                resumed=completion.resumed,
            )
        )
        return success

    def _fail(self, step: Step, failure: Failure, duration_s: float, number: int) -> None:
        self.ended.add(step.key)
        self.emit(StageFailed(self.run_id, time.time(), step.key, duration_s, failure, number))

    def _prune(self, step: Step, failure: Failure, duration_s: float, number: int) -> None:
        self.pruned.add(step.key)
        why, notebook = failure.message, failure.notebook
        self.emit(StagePruned(self.run_id, time.time(), step.key, duration_s, why, notebook, number))

    def _settle(self, step: Step, outcome: Success | Failure) -> None:
        if isinstance(outcome, Success):
            self.done[step.key] = replace(step, action=Action.NOTHING, completion=outcome.completion)


def _failure(error: NbtoolsError) -> Failure:
    problem = error.problems[0]
    where = f"{problem.where}: " if problem.where else ""
    return Failure("system", f"{where}{problem.message}", fix=problem.fix)
