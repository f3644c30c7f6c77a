"""One more attempt at a stage, in the kernel that was kept when a cell of the last one failed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import nbformat

from nbtools.execution import kept
from nbtools.execution.attempt import Attempt
from nbtools.execution.events import Event, Failure
from nbtools.execution.kept import KeptKernel
from nbtools.execution.kernels.session import Session
from nbtools.execution.notebook import Job
from nbtools.execution.outcome import Around, Failed, Success
from nbtools.execution.placing import file_name
from nbtools.pipeline.plan import Completion, Step

_NO_FORK = "its kernel could not be forked before that cell (it has threads, tasks or open connections)"


def resume(
    kernel: KeptKernel,
    step: Step,
    number: int,
    upstream: Sequence[Completion],
    around: Around,
    emit: Callable[[Event], None],
) -> Success:
    """Go on at the failed cell and commit what the stage made; the kernel ends if that works, and stays if not.

    Raises
    ------
    Failed
        If there is no result.
    """
    return _Resumed(kernel, step, number, upstream, around, emit).run()


class _Resumed(Attempt):
    def __init__(self, kernel: KeptKernel, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.kernel = kernel
        self.folder = self.project.root / kernel.folder
        self.resumed = True
        self.kept = True
        self.cell = kernel.cell
        self.earlier_metrics = kernel.metrics

    def run(self) -> Success:
        try:
            success = super().run()
        except Failed as failed:
            self._keep_on(failed.failure)
            raise
        kept.end(self.project, self.kernel)
        return success

    def _make_folder(self) -> None:
        """It is there: the variables of the kernel name it."""
        if not self.folder.is_dir():
            raise Failed(Failure("system", f"the private folder {self.kernel.folder} is gone"))
        shutil.rmtree(self.folder / "printed", ignore_errors=True)

    def _job(self, text: str) -> Job:
        done = nbformat.read(self.project.failed / f"{file_name(self.step.key)}.ipynb", as_version=4)
        tracking = self.tracking.variables()
        self.kernel = self.kernel.to_resume()
        kept.record(self.project, self.kernel)
        pid, connection_file = self.kernel.resumed_pid, self.kernel.resumed_file
        if not pid:
            pid, connection_file = self.kernel.pid, self.kernel.connection_file
            self.around.note(f"{self.step.key}: what the failed cell had done is not undone: {_NO_FORK}")

        def attach(session: Session, progress: Any) -> Any:
            from nbtools.execution.kernels.attached import AttachedClient

            return AttachedClient(
                progress,
                session,
                connection_file=connection_file,
                pid=pid,
                cell=self.kernel.first,
                done=done,
                variables=tracking,
            )

        return replace(super()._job(text), fork=None, keep=None, branch=attach)

    def _keep_on(self, failure: Failure) -> None:
        """Note where the kernel stands now: the next time begins where this one did, if it can have that state again."""
        spoilt = not self.kernel.before_pid
        digests = self.workspace.notebooks[self.stage.key].digests
        self.kernel = replace(
            self.kernel,
            # After its last cell there is nothing to go on with in a kernel that has run all.
            cell=failure.cell or (0 if spoilt else self.kernel.cell),
            cells_before=digests[: failure.cell - 1] if spoilt and failure.cell else self.kernel.cells_before,
            run=self.around.run,
            tracking_run=self.tracking.run_id or self.kernel.tracking_run,
            metrics={**self.kernel.metrics, **(self.tracking.metrics() or {})}
            if spoilt
            else self.kernel.metrics,
        )
        kept.record(self.project, self.kernel)
