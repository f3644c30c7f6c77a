"""Tells MLflow what happens, from a process of its own: its import takes seconds and must not be waited for."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nbtools.errors import OperationError
from nbtools.execution import slow_extras
from nbtools.execution.child_process import end_with, without_main
from nbtools.execution.events import (
    Artifact,
    Event,
    RunFinished,
    RunStarted,
    StageFailed,
    StageFinished,
    StagePruned,
    StageRetried,
    StageReused,
    StageSkipped,
    StageStarted,
)
from nbtools.execution.files import explained
from nbtools.execution.kernels.mlflow_run import VARIABLE as STAGE_RUN
from nbtools.tracking import lineage
from nbtools.tracking.address import StoreAddress, sqlite_address, without_credentials
from nbtools.tracking.lineage import Capture
from nbtools.tracking.notes import commit_link, stage_note
from nbtools.tracking.patience import GivenUp, Patience
from nbtools.tracking.recording import Recorder
from nbtools.tracking.template import ensure_store

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # A server that does not answer is reported after seconds, not after minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "GIT_PYTHON_REFRESH": "quiet",
}
#: Begins the names of variables that MLflow, and the clients of its stores, read credentials from.
_NEEDED = ("MLFLOW_", "DATABRICKS_", "AWS_", "AZURE_", "GOOGLE_", "PG", "MYSQL_")
_PARENT = ""
#: Notebooks come first; what is not delivered meanwhile is delivered at the end.
_NICENESS = 18
_WORKER = "nbtools.tracking.worker"
#: How long a metric's history may take; it is asked for while the stage runs, and again soon after.
_HISTORY_S = 10.0
_STATUS = {"passed": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}


class MlflowTracker:
    """A listener that keeps a run in MLflow: one parent run, and one nested run for each executed stage.

    Parameters
    ----------
    address
        The store; a missing SQLite store is made.
    root
        The project's folder, which paths in events are relative to.
    note
        Told, in words, of what takes long.
    hurry
        Whether whoever asks for what only MLflow knows should not be kept waiting.
    resuming
        Whether MLflow may know of the run already: what it has is completed, not made again.
    secrets
        Variables of the environment that hold secrets of notebooks: the process gets only those that MLflow may need.
    recorder
        Knows the manifests; it must have been told of each event before.

    Raises
    ------
    OperationError
        If an SQLite store cannot be made.
    """

    def __init__(
        self,
        address: StoreAddress,
        root: Path,
        note: Callable[[str], None],
        *,
        hurry: Callable[[], bool] = bool,
        resuming: bool = False,
        secrets: Collection[str] = (),
        recorder: Recorder | None = None,
    ) -> None:
        self._recorder = recorder
        self._note = note
        self._hurry = hurry
        self._resuming = resuming
        self._address = address
        self._root = root
        if address.database is not None:
            with explained(f"MLflow's store {address.database} cannot be made"):
                ensure_store(address.database, note)
        self._pool = ProcessPoolExecutor(
            1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_prepare,
            initargs=(os.getpid(), _QUIET, [name for name in secrets if not name.startswith(_NEEDED)]),
        )
        self._pending: list[tuple[str, Future[Any]]] = []
        self._parent: Future[Any] | None = None
        self._attempts: dict[str, str] = {}
        self._params: dict[str, Mapping[str, Any]] = {}
        self._summary: dict[str, dict[str, str]] = {}
        self._tags: dict[str, str] = {}
        self._run = ""
        with without_main():
            self._do("ready")  # its imports go on beside whatever comes first

    # What execution asks

    def begin(self, stage: str, attempt: int, at: float | None = None) -> Future[dict[str, str]]:
        """Start a stage's nested run, in the background; what puts a kernel inside it is there once it has begun.

        The result raises an OperationError if the store cannot be reached.
        """
        tags = {
            **self._tags,
            "mlflow.source.type": "NOTEBOOK",
            "nbtools.stage": stage,
            "nbtools.attempt": str(attempt),
        }
        name = stage.split(".", 1)[1] if "." in stage else stage
        self._attempts[stage] = key = f"{stage} {attempt}"
        begun = self._do("begin_stage", key, name, tags, at or time.time(), self._resuming)
        environment: Future[dict[str, str]] = Future()

        def hand_on(done: Future[Any]) -> None:
            if error := self._parent_error() or done.exception():
                environment.set_exception(self._unreachable(error))
            else:
                experiment_id, run_id = done.result()
                own = {"mlflow.parentRunId": run_id, "nbtools.stage": stage}
                ids = {"MLFLOW_EXPERIMENT_ID": experiment_id, "MLFLOW_RUN_ID": run_id, STAGE_RUN: run_id}
                environment.set_result({**self.address(), **ids, "MLFLOW_RUN_CONTEXT": json.dumps(own)})

        begun.add_done_callback(hand_on)
        return environment

    def _parent_error(self) -> BaseException | None:
        return self._parent.exception() if self._parent is not None else None

    def address(self) -> dict[str, str]:
        """Return what a kernel needs to know of the store, whatever run it is in."""
        quiet = {name: value for name, value in _QUIET.items() if name not in os.environ}
        return {**quiet, "MLFLOW_TRACKING_URI": self._address.uri}

    def metrics(self, stage: str) -> dict[str, float] | None:
        """Return what the stage's notebook logged; None if the store does not answer."""
        try:
            asked = self._do("metrics", self._attempts[stage])
            found: dict[str, float] = Patience(self._hurry).result(asked)
        except Exception as error:  # noqa: BLE001 - the result of hours of work must not be lost for its metrics
            self._pending.append((f"metrics of {stage}", _failed(error)))
            return None
        return found

    def history(self, stage: str, metric: str) -> list[tuple[int, float]] | None:
        """Return steps and values of a metric that the stage's notebook has logged so far; None if nobody says."""
        if stage not in self._attempts:
            return None
        try:
            found: list[tuple[int, float]] = self._do("history", self._attempts[stage], metric).result(
                timeout=_HISTORY_S
            )
        except Exception:  # noqa: BLE001 - it is asked again soon
            return None
        return found

    # What happens

    def __call__(self, event: Event) -> None:
        """Take in an event; delivery happens in the background, in order."""
        match event:
            case RunStarted():
                self._run_started(event)
            case StageStarted():
                self._stage_started(event)
            case StageFinished():
                self._summarise(event.stage, "executed", event.fingerprint)
                tags = _digests("output", event.outputs)
                tags["nbtools.duration_s"] = f"{event.duration_s:.3f}"
                if event.gates:
                    tags["nbtools.gates"] = "\n".join(event.gates)
                self._end_stage(event.stage, "FINISHED", tags, event.executed, event.at)
            case StageFailed() | StageRetried():
                failure = event.failure
                self._summarise(event.stage, f"failed: {failure.message}")
                tags = {"nbtools.failure": failure.message, "nbtools.failed_cell": str(failure.cell or "")}
                status = "KILLED" if failure.kind == "cancelled" else "FAILED"
                self._end_stage(event.stage, status, tags, failure.notebook, event.at)
            case StagePruned():
                self._summarise(event.stage, f"pruned: {event.why}")
                self._end_stage(
                    event.stage, "KILLED", {"nbtools.pruned": event.why}, event.notebook, event.at
                )
            case StageReused():
                self._summarise(event.stage, event.how, event.fingerprint)
            case StageSkipped():
                self._summarise(event.stage, f"skipped: {event.because}")
            case RunFinished():
                self._run_finished(event)
            case _:
                pass

    def close(self, given_up: Callable[[], bool] = bool) -> tuple[str, ...]:
        """Wait until everything is delivered and return what could not be, in words.

        Parameters
        ----------
        given_up
            Whether nobody wants to wait any more.
        """
        waiting = (
            f"MLflow at {self._address.shown} has yet to take the records; Ctrl-C leaves them to nbtools sync"
        )
        patience = Patience(given_up, lambda: self._note(waiting))
        lost: dict[str, list[str]] = {}
        for what, future in self._pending:
            try:
                patience.result(future)
            except LookupError as error:  # what a run that could not be begun would have held
                lost.setdefault(next(iter(lost), _said(error)), []).append(what)
            except GivenUp as error:
                lost.setdefault(str(error), []).append(what)
            except Exception as error:  # noqa: BLE001 - whatever MLflow, its database or its server raises
                lost.setdefault(_said(error), []).append(what)
        self._pending.clear()
        if lost:
            # It may hang in a call that nobody waits for; Python would do so at its end.
            for process in tuple((self._pool._processes or {}).values()):
                process.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)
        to = f"could not be delivered to {self._address.shown}"
        return tuple(f"tracking: {_listed(whats)} {to}: {reason}" for reason, whats in lost.items())

    def _run_started(self, event: RunStarted) -> None:
        self._run = event.run
        revision = event.revision
        self._tags = {
            key: value
            for key, value in {
                "mlflow.user": revision.user,
                "mlflow.source.name": event.project,
                "mlflow.source.git.commit": revision.commit,
                "mlflow.source.git.branch": revision.branch,
                "mlflow.source.git.repoURL": without_credentials(revision.remote),
                "mlflow.source.git.dirty": str(revision.dirty).lower() if revision.commit else "",
                "nbtools.run": event.run,
                "nbtools.project": event.project,
            }.items()
            if value
        }
        targets = " ".join(event.targets) or "everything"
        planned = sum(step.action == "run" for step in event.steps)
        command = event.command or f"nbtools run {' '.join(event.targets)}"
        link = commit_link(revision.remote, revision.commit)
        note = (
            f"`{command}`: {planned} of {len(event.steps)} stages planned to run{f', at {link}' if link else ''}. "
            f"`nbtools show {event.run}` has the rest."
        )
        tags = {
            **self._tags,
            "mlflow.source.type": "PROJECT",
            "mlflow.note.content": note,
            "nbtools.targets": targets,
        }
        name = f"{targets} {event.run.rpartition('-')[2]}"[:250]
        address = self._address
        where = address.experiment, address.artifacts
        self._parent = self._do("begin", *where, name, tags, event.at, self._resuming)
        self._keep("the run", self._parent)
        if event.overrides:
            self._keep("params", self._do("log_params", _PARENT, dict(event.overrides)))

    def _stage_started(self, event: StageStarted) -> None:
        attempt = self._attempts.get(event.stage)
        if attempt is None:
            return
        tags = {
            "nbtools.fingerprint": event.fingerprint,
            "nbtools.notebook": event.notebook,
            "nbtools.notebook_digest": event.notebook_digest,
            "mlflow.source.name": event.notebook,
            "nbtools.python": event.python,
            "nbtools.interpreter": event.interpreter,
            "nbtools.params": json.dumps(dict(event.params), ensure_ascii=False),
            "mlflow.note.content": stage_note(event, self._tags),
            **_digests("input", event.inputs),
        }
        inputs = [asdict(item) for item in _distinct(event.inputs)]
        # The params themselves follow when the stage has ended: MLflow lets nobody write one twice, and a
        # notebook that logs a param of its own must not fail because we were first.
        self._params[attempt] = dict(event.params)
        self._keep(f"the start of {event.stage}", self._do("describe", attempt, tags, inputs))

    def _end_stage(self, stage: str, status: str, tags: Mapping[str, str], notebook: str, at: float) -> None:
        attempt = self._attempts.get(stage)
        if attempt is None:
            return
        if (spool := spool_of(self._root, self._run)).exists():
            uri = sqlite_address(spool).uri
            self._keep(f"what {stage} logged", self._do("take_over", attempt, uri))
        if params := self._params.pop(attempt, None):
            self._keep(f"params of {stage}", self._do("log_params", attempt, params))
        self._keep(f"the end of {stage}", self._do("finish", attempt, status, dict(tags), at))
        if notebook:
            future = self._do("attach_notebook", attempt, str(self._root / notebook), module="notebook_html")
            self._keep(f"the notebook of {stage}", future)
        self._attach_manifest(stage, attempt)

    def _attach_manifest(self, stage: str, attempt: str) -> None:
        if (recorder := self._recorder) is None:
            return
        state = recorder.state
        places = recorder.places(stage)

        def take_in(done: Future[Any]) -> None:
            if done.exception() is None:
                recorder.is_described(done.result())

        def attach(capture: Capture) -> None:
            manifest = lineage.stage_manifest(state, state.stages[stage], capture, {})
            attached = self._do("attach_stage_manifest", attempt, manifest, places)
            attached.add_done_callback(take_in)
            self._keep(f"the manifest of {stage}", attached)

        recorder.when_captured(attach)

    def _attach_run_manifest(self) -> None:
        if (recorder := self._recorder) is None or not self._attempts:
            return
        state, attempts = recorder.state, dict(self._attempts)

        def attach(capture: Capture) -> None:
            manifest = lineage.run_manifest(state, capture, {})
            patch = recorder.patch_file(capture)
            self._keep("the manifest of the run", self._do("attach_run_manifest", manifest, attempts, patch))

        recorder.when_captured(attach)

    def _run_finished(self, event: RunFinished) -> None:
        summary = {"run": event.run, "status": event.status, "stages": dict(self._summary)}
        self._keep("the plan", self._do("attach_plan", summary, dict(self._attempts)))
        self._attach_run_manifest()
        tags = {"nbtools.duration_s": f"{event.duration_s:.3f}"}
        self._keep("the end of the run", self._do("finish", _PARENT, _STATUS[event.status], tags, event.at))

    def _summarise(self, stage: str, outcome: str, fingerprint: str = "") -> None:
        known = {"outcome": outcome, "fingerprint": fingerprint}
        self._summary[stage] = {name: value for name, value in known.items() if value}

    # Delivery

    def _do(self, verb: str, *arguments: Any, module: str = "worker") -> Future[Any]:
        try:
            return self._pool.submit(_call, module, verb, self._address.uri, *arguments)
        except RuntimeError as error:  # the process died: all that follows is lost, and `close` says so
            return _failed(error)

    def _keep(self, what: str, future: Future[Any]) -> None:
        self._pending.append((what, future))

    def _unreachable(self, error: BaseException) -> OperationError:
        fix = "start the server, correct the address, or run with --no-tracking"
        if "out-of-date database schema" in str(error):
            fix = f"mlflow db upgrade {self._address.shown}"
        message = f"MLflow's store at {self._address.shown} does not take the run: {_said(error)}"
        return OperationError.of(message, fix=fix)


def spool_of(root: Path, run: str) -> Path:
    """Return the database of what a run's notebooks have logged while their server was away."""
    return root / ".nbtools" / "spool" / run / "mlflow.db"


def _call(module: str, verb: str, *arguments: Any) -> Any:
    # By name, so that the parent process never imports mlflow.
    if (name := f"nbtools.tracking.{module}") not in sys.modules:
        with slow_extras.left_out():
            importlib.import_module(name)
    return getattr(sys.modules[name], verb)(*arguments)


def _prepare(parent: int, environment: Mapping[str, str], without: Collection[str]) -> None:
    """Make the process quiet, deaf to Ctrl-C while it delivers, and end it when its parent has gone."""
    for name in without:
        os.environ.pop(name, None)
    os.environ.update({name: value for name, value in environment.items() if name not in os.environ})
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Everything is delivered by then. First in, last out: MLflow's own handlers still run, but nobody waits
    # while the interpreter takes its modules apart, which needs as long as a second.
    atexit.register(os._exit, 0)

    end_with(parent)
    slow_extras.leave_out()
    _step_back()
    _import_worker()


def _import_worker() -> None:
    """Import MLflow without what it needs for data frames only, of which none come here; with all of it if it must."""
    before = set(sys.modules)
    with slow_extras.left_out("pandas", "numpy"):
        try:
            importlib.import_module(_WORKER)
        except ImportError:
            for name in set(sys.modules) - before:
                del sys.modules[name]
    importlib.import_module(_WORKER)


def _step_back() -> None:
    """Let notebooks go first."""
    os.nice(_NICENESS)
    with contextlib.suppress(OSError):
        # Linux weighs sessions against each other before it looks at what is nice within one.
        os.setsid()
        Path("/proc/self/autogroup").write_text(str(_NICENESS), encoding="ascii")


def _distinct(artifacts: tuple[Artifact, ...]) -> list[Artifact]:
    return list({(item.dataset, item.digest): item for item in artifacts}.values())


def _digests(kind: str, artifacts: tuple[Artifact, ...]) -> dict[str, str]:
    """Return a tag for each dataset; the digests of several variants stand in one, in order."""
    found: dict[str, list[str]] = {}
    for item in artifacts:
        found.setdefault(f"nbtools.{kind}.{item.dataset}", []).append(item.digest)
    return {name: ",".join(digests) for name, digests in found.items()}


def _listed(names: list[str]) -> str:
    shown = ", ".join(dict.fromkeys(names[:3]))
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more records"


def _failed(error: Exception) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def _said(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return without_credentials(lines[0] if lines else type(error).__name__)[:300]
