"""An attempt's MLflow run: when a kernel is put inside it, and what its notebook has logged there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout

from nbtools.errors import NbtoolsError
from nbtools.execution.events import Event, Failure, StageTracked
from nbtools.execution.outcome import Around, Failed
from nbtools.pipeline.plan import Step

#: How long a stage waits for MLflow before it goes on without, or says that it waits.
_PATIENCE_S = 5.0
_LOOK_S = 0.1


class StageTracking:
    """The MLflow run of one attempt at a stage, which begins beside it.

    Parameters
    ----------
    number
        Which attempt of this run it is, from 1.
    """

    def __init__(self, step: Step, number: int, around: Around, emit: Callable[[Event], None]) -> None:
        self.run_id = ""
        self._step = step
        self._number = number
        self._around = around
        self._emit = emit
        self._begun: Future[dict[str, str]] = Future()
        self._is_inside = False
        self._spool: Mapping[str, str] = {}

    def begin(self) -> None:
        """Have MLflow begin the run."""
        self._begun = self._around.tracking.begin(self._step.key, self._number)

    def announce(self) -> None:
        """Tell of the run as soon as it has begun; the stage's start must have been told of."""
        self._begun.add_done_callback(self._tell)

    @property
    def is_named(self) -> bool:
        """Whether the notebook, or a module that it imports, names MLflow."""
        return self._around.workspace.mentions_mlflow(self._step.variant.stage)

    def address(self) -> Mapping[str, str]:
        """Return the variables that name the store; known at once."""
        return self._around.tracking.address()

    def variables(self) -> Mapping[str, str]:
        """Return what puts a kernel inside the run, as soon as that has begun.

        A notebook that does not name MLflow can do without; its stage does not fail for a server's sake.

        Raises
        ------
        Failed
            If the stage needs MLflow, and it does not answer in time.
        NbtoolsError
            If it needs MLflow, and the store does not take the run.
        """
        if self._spool:
            return self._spool
        timeout_s = self._step.variant.stage.timeout_s
        if self.is_named and self.may_spool:
            timeout_s = self._around.tracking.spool_after_s()
        try:
            found = self._awaited(timeout_s if self.is_named else _PATIENCE_S)
        except NbtoolsError as error:
            if self.is_named and self.may_spool:
                return self._spooled(error.problems[0].message)
            if self.is_named:
                raise
            return self._without(error.problems[0].message)
        except TimeoutError as error:
            if self.is_named and self.may_spool:
                return self._spooled("MLflow does not answer")
            if self.is_named:
                message = f"MLflow has not answered within the stage's {timeout_s:g} s"
                raise Failed(Failure("timeout", message)) from error
            return self._without("MLflow does not answer")
        self._is_inside = True
        return found

    @property
    def may_spool(self) -> bool:
        """Whether what the notebook logs is kept here while the server is away."""
        return self._around.tracking.spool is not None

    def _spooled(self, why: str) -> Mapping[str, str]:
        assert self._around.tracking.spool is not None
        key = self._step.key
        self._around.note(f"{key} logs to this machine, and nbtools sync delivers it: {why}")
        self._is_inside = True
        self._spool = {**self.address(), **self._around.tracking.spool(key, self._number)}
        return self._spool

    def metrics(self) -> Mapping[str, float] | None:
        """Return what the notebook logged; None if that cannot be found out."""
        # One that never came near MLflow has logged nothing, and nobody need wait to hear so.
        return self._around.tracking.metrics(self._step.key) if self._is_inside else {}

    def _awaited(self, seconds: float | None) -> dict[str, str]:
        started, told = time.monotonic(), False
        while True:
            try:
                return self._begun.result(timeout=_LOOK_S)
            except FutureTimeout:
                if self._begun.done():
                    raise
            waited_s = time.monotonic() - started
            if self._around.cancellation.flag.is_set():
                raise Failed(Failure("cancelled", "the run was cancelled"))
            if seconds is not None and waited_s > seconds:
                raise TimeoutError
            if not told and waited_s > _PATIENCE_S:
                told = True
                self._around.note(f"{self._step.key}: waiting for MLflow")

    def _without(self, why: str) -> Mapping[str, str]:
        self._around.note(f"{self._step.key} goes on outside its MLflow run: {why}")
        return self.address()

    def _tell(self, begun: Future[dict[str, str]]) -> None:
        if begun.exception() is None and (run_id := begun.result().get("MLFLOW_RUN_ID")):
            self.run_id = run_id
            self._emit(StageTracked(self._around.run, time.time(), self._step.key, self._number, run_id))
