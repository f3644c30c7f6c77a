"""A papermill engine that reports what it saw instead of leaving it to the output notebook.

papermill's own engine marks every cell completed after a kernel's death or a timeout, writes the
whole notebook after every cell, fails healthy cells that print much, and changes the directory of
the whole process for ``cwd=`` (papermill issue 473). This one decides by the kernel's replies.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import nbformat
from papermill.engines import Engine, NotebookExecutionManager, papermill_engines

from nbtools.execution.files import write_atomically
from nbtools.execution.kernels.session import Session, Verdict

log = logging.getLogger(__name__)

#: How often the notebook is saved while it runs, in seconds.
SAVE_EVERY_S = 2.0


class Unfinished(RuntimeError):
    """The notebook did not run to its end, although no cell raised an error."""


class Progress(NotebookExecutionManager):  # type: ignore[misc]
    """papermill's record of an execution: saved now and then, and true to what happened."""

    def __init__(self, nb: Any, session: Session, **kwargs: Any) -> None:
        super().__init__(nb, **kwargs)
        self.session = session
        self._saved_at = time.monotonic()  # what has only begun need not be saved
        self._started_at = self.now()

    def notebook_start(self, **kwargs: Any) -> None:
        """Open papermill's record."""
        if self.session.source:
            # papermill knows the path that it was given, of a private copy.
            self.nb.metadata.papermill["input_path"] = self.session.source
        super().notebook_start(**kwargs)

    def cell_start(self, cell: Any, cell_index: int | None = None, **kwargs: Any) -> None:
        """Open the record of a cell."""
        super().cell_start(cell, cell_index, **kwargs)
        self._started_at = self.now()

    def cell_complete(self, cell: Any, cell_index: int | None = None, **kwargs: Any) -> None:
        """Close the record of a cell."""
        record = cell.metadata.papermill
        # papermill would take the text of the time apart again, which takes longer than all else here.
        start_time = record.pop("start_time", None)
        super().cell_complete(cell, cell_index, **kwargs)
        if start_time:
            record["start_time"] = start_time
            record["duration"] = (self.now() - self._started_at).total_seconds()

    def save(self, **_: Any) -> None:
        """Save the notebook, unless that was done a moment ago."""
        if self.is_due():
            self.save_now()

    def is_due(self) -> bool:
        """Tell whether the last saving was long enough ago."""
        return time.monotonic() - self._saved_at >= SAVE_EVERY_S

    def autosave_cell(self) -> None:
        """Save in the middle of a long cell."""
        self.save()

    def save_now(self) -> None:
        """Save the notebook, secrets masked, so that readers never see half of it."""
        path = self.session.save_to or (Path(self.output_path) if self.output_path else None)
        self.session.text = self.session.masking.text(nbformat.writes(self.nb))
        if path is not None:
            write_atomically(path, self.session.text.encode("utf-8", "backslashreplace"), durable=False)
        self._saved_at = time.monotonic()

    def notebook_complete(self, **_: Any) -> None:
        """Close papermill's record; cells that did not run stay pending."""
        self.end_time = self.now()
        record = self.nb.metadata.papermill
        record["end_time"] = self.end_time.isoformat()
        if self.start_time:
            record["duration"] = (self.end_time - self.start_time).total_seconds()
        if self.session.verdict.kind:
            record["exception"] = True
        self.cleanup_pbar()
        if self.session.verdict.complete and not self.session.verdict.kind:
            self.session.on_complete(self.nb)
        self.save_now()


class NbtoolsEngine(Engine):  # type: ignore[misc]
    """papermill's engine interface: ``papermill --engine nbtools in.ipynb out.ipynb`` works too."""

    @classmethod
    def execute_notebook(
        cls, nb: Any, kernel_name: str, output_path: str | None = None, **kwargs: Any
    ) -> Any:
        """Execute ``nb`` in place and return it; see papermill's ``Engine``.

        Raises
        ------
        Unfinished
            If nobody reads a session's verdict and papermill would take the execution for a success.
        """
        given = kwargs.pop("session", None)
        session = given or Session()
        options = {key: kwargs[key] for key in ("progress_bar", "log_output") if key in kwargs}
        kwargs.pop("autosave_cell_every", None)
        progress = Progress(nb, session, output_path=output_path, **options)
        progress.notebook_start()
        try:
            cls.execute_managed_notebook(progress, kernel_name, session=session, **kwargs)
        finally:
            progress.notebook_complete()
        if given is None and session.verdict.kind and not _is_told_by_papermill(session.verdict):
            raise Unfinished(session.verdict.message)
        return progress.nb

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Progress,
        kernel_name: str,
        session: Session | None = None,
        start_timeout: int = 60,
        execution_timeout: int | None = None,
        **options: Any,
    ) -> None:
        """Execute the cells of ``nb_man.nb``; what they put out is logged as papermill's options ask."""
        # papermill loads this module while it is imported itself, and the clients need all of papermill.
        from nbtools.execution.kernels.managed import ManagedClient
        from nbtools.execution.kernels.warm.client import ForkedClient
        from nbtools.execution.kernels.warm.forker import Cold

        session = session or nb_man.session
        if execution_timeout and session.deadline is None:
            session.deadline = time.monotonic() + execution_timeout
            session.timeout_s = execution_timeout
        logs = {key: options[key] for key in ("log_output", "stdout_file", "stderr_file") if options.get(key)}
        if session.branch:
            try:
                session.branch(nb_man).run()
                return
            except Cold as reason:
                log.debug("%s: %s", session.source, reason)
        if session.fork:
            try:
                ForkedClient(nb_man, session, session.fork(), kernel_name=kernel_name, **logs).run()
                return
            except Cold as reason:
                log.debug("%s runs on an ordinary kernel: %s", session.source, reason)
        ManagedClient(nb_man, session, kernel_name=kernel_name, startup_timeout=start_timeout, **logs).run()


def _is_told_by_papermill(verdict: Verdict) -> bool:
    """Tell whether papermill finds the failure in the notebook; it takes ``sys.exit(0)`` for a success."""
    return verdict.kind == "error" or (verdict.kind == "exit" and verdict.code not in ("", "0"))


papermill_engines.register("nbtools", NbtoolsEngine)
