"""A papermill engine that reports what it saw instead of leaving it to the output notebook.

papermill's own engine marks every cell completed after a kernel's death or a timeout, writes the
whole notebook after every cell, fails healthy cells that print much, and changes the directory of
the whole process for ``cwd=`` (papermill issue 473). This one decides by the kernel's replies.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event as Flag
from typing import IO, Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, CellExecutionError, CellTimeoutError, DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, NotebookExecutionManager, papermill_engines

from nbtools.execution.files import write_atomically
from nbtools.execution.kernels.manager import InterpreterKernelManager
from nbtools.execution.kernels.output import BoundedText
from nbtools.execution.kernels.processes import exit_code_of, how_it_ended
from nbtools.pipeline.notebook import INJECTED

#: How often the notebook is saved while it runs, in seconds.
SAVE_EVERY_S = 2.0
#: How long output may still arrive after a cell's reply. nbclient's 4 s fail cells that print much.
_LATE_OUTPUT_S = 600
#: Systems allow the path of a socket some 100 characters.
_LONGEST_SOCKET_FOLDER = 80
_COMPLETED, _FAILED = NotebookExecutionManager.COMPLETED, NotebookExecutionManager.FAILED


@dataclass(slots=True)
class Verdict:
    """How an execution ended, as seen by whoever drove the kernel.

    Parameters
    ----------
    kind
        Empty while nothing is wrong; else as ``Failure.kind``.
    cell
        Number of the guilty code cell in the source notebook, from 1; 0 if none is.
    """

    complete: bool = False
    kind: str = ""
    message: str = ""
    cell: int = 0
    execution_count: int | None = None
    traceback: list[str] = field(default_factory=list)


class Unfinished(RuntimeError):
    """The notebook did not run to its end, although no cell raised an error."""


@dataclass(slots=True)
class Session:
    """What one execution needs beside the notebook, and what it reports.

    Parameters
    ----------
    python
        Interpreter of the kernel; empty to start the kernelspec that the notebook names.
    source
        Path of the source notebook, for the record.
    cwd
        Working directory of the kernel.
    environment
        Environment of the kernel, complete.
    save_to
        Where the notebook is saved while it runs.
    mask
        Applied to the notebook's text before it is saved.
    deadline
        On the monotonic clock; None means no limit.
    cancelled
        Set when nothing more should be run.
    on_kernel
        Called with the kernel manager once the kernel runs.
    on_cell
        Called with the number of a code cell in the source notebook (0 for the injected one), and
        None when it starts or its seconds when it is done.
    text
        The executed notebook once it is done, secrets masked.
    """

    python: str = ""
    source: str = ""
    cwd: str = ""
    environment: Mapping[str, str] | None = None
    save_to: Path | None = None
    mask: Callable[[str], str] = str
    deadline: float | None = None
    timeout_s: float | None = None
    cancelled: Flag = field(default_factory=Flag)
    log: IO[bytes] | None = None
    on_kernel: Callable[[Any], None] = lambda _: None
    on_cell: Callable[[int, float | None], None] = lambda _index, _seconds: None
    verdict: Verdict = field(default_factory=Verdict)
    text: str = ""


class Progress(NotebookExecutionManager):  # type: ignore[misc]
    """papermill's record of an execution: saved now and then, and true to what happened."""

    def __init__(self, nb: Any, session: Session, **kwargs: Any) -> None:
        super().__init__(nb, **kwargs)
        self.session = session
        self._saved_at = 0.0

    def notebook_start(self, **kwargs: Any) -> None:
        """Open papermill's record."""
        if self.session.source:
            # papermill would write the whole notebook here, because it was given one and no path.
            self.nb.metadata.papermill["input_path"] = self.session.source
        super().notebook_start(**kwargs)

    def save(self, **_: Any) -> None:
        """Save the notebook, unless that was done a moment ago."""
        if time.monotonic() - self._saved_at >= SAVE_EVERY_S:
            self.save_now()

    def autosave_cell(self) -> None:
        """Save in the middle of a long cell."""
        self.save()

    def save_now(self) -> None:
        """Save the notebook, secrets masked, so that readers never see half of it."""
        path = self.session.save_to or (Path(self.output_path) if self.output_path else None)
        self.session.text = self.session.mask(nbformat.writes(self.nb))
        if path is not None:
            write_atomically(path, self.session.text.encode("utf-8", "surrogatepass"), durable=False)
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
        self.save_now()


class StageClient(PapermillNotebookClient):  # type: ignore[misc]
    """Drives one kernel through one notebook."""

    def __init__(self, progress: Progress, session: Session, **kwargs: Any) -> None:
        super().__init__(progress, raise_on_iopub_timeout=False, **kwargs)
        self.session = session
        self.iopub_timeout = _LATE_OUTPUT_S
        self.timeout_func = self._seconds_left
        self.on_cell_executed = self._remember_exit
        self._streams: dict[int, BoundedText] = {}
        self._asked_to_exit = False
        self._sockets: TemporaryDirectory[str] | None = None

    def create_kernel_manager(self) -> Any:
        """Return the manager of the kernel, which runs on the session's interpreter."""
        if not self.session.python:
            return super().create_kernel_manager()
        self.km = InterpreterKernelManager(config=self.config)
        self.km.python = self.session.python
        # Sockets in a folder of the user's own: no port to race for, nothing on the network. Without a
        # connection file all kernels would share sockets named kernel-ipc-N in the working directory.
        place = self.session.save_to.parent if self.session.save_to else None
        if place and len(str(place)) > _LONGEST_SOCKET_FOLDER - len("/kernel-12345678"):
            place = None  # the system's folder for temporary files
        self._sockets = TemporaryDirectory(prefix="kernel-", dir=place, ignore_cleanup_errors=True)
        if len(self._sockets.name) <= _LONGEST_SOCKET_FOLDER:
            self.km.transport = "ipc"
        self.km.connection_file = f"{self._sockets.name}/kernel.json"
        return self.km

    def run(self) -> None:
        """Start the kernel, run all cells, and write the verdict."""
        self.reset_execution_trackers()
        options: dict[str, Any] = {"cwd": self.session.cwd or None}
        if self.session.environment is not None:
            options["env"] = dict(self.session.environment)
        if self.session.log is not None:
            options.update(stdout=self.session.log, stderr=self.session.log)
        with self._without_sockets_afterwards(), self.setup_kernel(**options):
            self.session.on_kernel(self.km)
            self.papermill_execute_cells()
            if self.session.verdict.kind:
                # What is wrong is known; a kernel that hangs is not asked politely.
                self.shutdown_kernel = "immediate"
            else:
                info = self.wait_for_reply(self.kc.kernel_info())
                self.nb.metadata["language_info"] = info["content"]["language_info"]
                self.session.verdict.complete = True
            self.set_widgets_metadata()

    @contextmanager
    def _without_sockets_afterwards(self) -> Iterator[None]:
        try:
            yield
        finally:
            if self._sockets:
                self._sockets.cleanup()

    def papermill_execute_cells(self) -> None:
        """Run the cells in order until one fails."""
        number = 0
        for index, cell in enumerate(self.nb.cells):
            if cell.cell_type != "code":
                cell.metadata.papermill["status"] = _COMPLETED
                continue
            injected = INJECTED in cell.metadata.get("tags", ())
            number += not injected
            if not self._run_cell(index, cell, 0 if injected else number):
                return

    def _run_cell(self, index: int, cell: Any, number: int) -> bool:
        """Run one code cell and tell whether the notebook may go on."""
        verdict = self.session.verdict
        if self.session.cancelled.is_set():
            verdict.kind, verdict.message, verdict.cell = "cancelled", "the run was cancelled", number
            return False
        started = time.monotonic()
        self.nb_man.cell_start(cell, index)
        self.session.on_cell(number, None)
        try:
            self.execute_cell(cell, index)
        except CellControlSignal as error:
            self._blame(cell, error)
        except RuntimeError as error:
            if not isinstance(error, DeadKernelError) and not self.session.cancelled.is_set():
                raise
            self._blame(cell, error)
        self._settle(cell)
        if self._asked_to_exit and not verdict.kind:
            verdict.kind = "exit"
            verdict.message = "the cell ended the kernel (quit or exit); the cells after it did not run"
        if verdict.kind:
            verdict.cell, verdict.execution_count = number, cell.get("execution_count")
        cell.metadata.papermill["status"] = _FAILED if verdict.kind else _COMPLETED
        cell.metadata.papermill["exception"] = bool(verdict.kind)
        self.nb_man.cell_complete(cell, cell_index=index)
        self.session.on_cell(number, time.monotonic() - started)
        return not verdict.kind

    def _blame(self, cell: Any, error: Exception) -> None:
        verdict = self.session.verdict
        if self.session.cancelled.is_set():
            verdict.kind, verdict.message = "cancelled", "the run was cancelled"
        elif isinstance(error, CellTimeoutError):
            verdict.kind = "timeout"
            verdict.message = f"the stage took longer than its {self.session.timeout_s:g} s"
        elif isinstance(error, DeadKernelError):
            verdict.kind = "kernel died"
            verdict.message = f"the kernel died: {how_it_ended(exit_code_of(self.km))}"
        elif isinstance(error, CellExecutionError):
            exits = error.ename == "SystemExit"
            verdict.kind = "exit" if exits else "error"
            verdict.message = f"{error.ename}: {error.evalue}".rstrip(": ")
            if exits:
                verdict.message += "; a stage must run to its end, so the cells after it did not run"
            shown = [output for output in cell.get("outputs", ()) if output.output_type == "error"]
            verdict.traceback = list(shown[-1].traceback) if shown else [error.traceback]
        else:
            verdict.kind, verdict.message = "error", str(error)

    def _seconds_left(self, _cell: Any) -> float | None:
        if self.session.deadline is None:
            return None
        return max(0.1, self.session.deadline - time.monotonic())

    def _remember_exit(self, execute_reply: Mapping[str, Any], **_: Any) -> None:
        payload = execute_reply["content"].get("payload") or ()
        self._asked_to_exit |= any(item.get("source") == "ask_exit" for item in payload)

    def output(self, outs: list[Any], msg: Any, display_id: str | None, cell_index: int) -> Any:
        """Take in an output; parts of one stream are joined, and bounded."""
        hooked = self.output_hook_stack[msg["parent_header"].get("msg_id")]
        if msg["msg_type"] != "stream" or hooked or self.clear_before_next_output:
            return super().output(outs, msg, display_id, cell_index)
        last = outs[-1] if outs else None
        if last is None or last.output_type != "stream" or last.name != msg["content"]["name"]:
            last = nbformat.v4.new_output("stream", name=msg["content"]["name"], text="")
            outs.append(last)
        self._streams.setdefault(id(last), BoundedText()).add(msg["content"]["text"])
        return None

    def process_message(self, *args: Any, **kwargs: Any) -> Any:
        """Take in a message of the kernel; what came so far is saved now and then."""
        output = NotebookClient.process_message(self, *args, **kwargs)
        if time.monotonic() - self.nb_man._saved_at >= SAVE_EVERY_S:
            self._settle_all()
            self.nb_man.save()
        return output

    def _settle_all(self) -> None:
        for cell in self.nb.cells:
            if cell.cell_type == "code":
                self._fill(cell)

    def _settle(self, cell: Any) -> None:
        self._fill(cell)
        self._streams.clear()

    def _fill(self, cell: Any) -> None:
        for output in cell.get("outputs", ()):
            if output.output_type == "stream" and id(output) in self._streams:
                output.text = self._streams[id(output)].text()


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
        options = {key: kwargs.pop(key) for key in ("progress_bar", "log_output") if key in kwargs}
        kwargs.pop("autosave_cell_every", None)
        progress = Progress(nb, session, output_path=output_path, **options)
        progress.notebook_start()
        try:
            cls.execute_managed_notebook(progress, kernel_name, session=session, **kwargs)
        finally:
            progress.notebook_complete()
        if given is None and session.verdict.kind not in ("", "error"):
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
        **_: Any,
    ) -> None:
        """Execute the cells of ``nb_man.nb``."""
        session = session or nb_man.session
        if execution_timeout and session.deadline is None:
            session.deadline = time.monotonic() + execution_timeout
            session.timeout_s = execution_timeout
        client = StageClient(nb_man, session, kernel_name=kernel_name, startup_timeout=start_timeout)
        client.run()


papermill_engines.register("nbtools", NbtoolsEngine)
