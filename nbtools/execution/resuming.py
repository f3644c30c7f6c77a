"""One more attempt at a stage, in the kernel that was kept when a cell of the last one failed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Future
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

    def _job(self, text: str, begun: Future[dict[str, str]]) -> Job:
        done = nbformat.read(self.project.failed / f"{file_name(self.step.key)}.ipynb", as_version=4)
        tracking = self._tracked(begun)
        pid, connection_file = self.kernel.to_resume()

        def attach(session: Session, progress: Any) -> Any:
            from nbtools.execution.kernels.attached import AttachedClient

            return AttachedClient(
                progress,
                session,
                connection_file=connection_file,
                pid=pid,
                cell=self.kernel.cell,
                done=done,
                variables=tracking,
            )

        return replace(super()._job(text, begun), fork=None, keep=None, branch=attach)

    def _keep_on(self, failure: Failure) -> None:
        """Note where the kernel stands now."""
        if failure.kind != "error" or not failure.cell:
            return
        digests = self.workspace.notebooks[self.stage.key].digests
        self.kernel = replace(
            self.kernel,
            cell=failure.cell,
            before_used=True,
            cells_before=digests[: failure.cell - 1],
            run=self.around.run,
            tracking_run=self.tracking_run or self.kernel.tracking_run,
            metrics={**self.kernel.metrics, **self._logged()},
        )
        kept.record(self.project, self.kernel)
