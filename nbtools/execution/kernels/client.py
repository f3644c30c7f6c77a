"""One kernel, one notebook: cells run in order until one fails, and what was seen becomes the verdict."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat.v4 import output_from_msg
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NotebookExecutionManager
from papermill.log import logger

from nbtools.execution.kernels import output as bounds
from nbtools.execution.kernels.output import CellText
from nbtools.execution.kernels.processes import RunningKernel, how_it_ended
from nbtools.execution.kernels.session import Session
from nbtools.pipeline.notebook import INJECTED

_SHOWN = ("display_data", "execute_result")
_COMPLETED, _FAILED = NotebookExecutionManager.COMPLETED, NotebookExecutionManager.FAILED


class StageClient(PapermillNotebookClient):  # type: ignore[misc]
    """Drives one kernel through one notebook; how a cell is executed is for its subclasses to say."""

    def __init__(self, progress: NotebookExecutionManager, session: Session, **kwargs: Any) -> None:
        super().__init__(progress, raise_on_iopub_timeout=False, log=logger, **kwargs)
        self._logs = bool(self.log_output or self.stdout_file or self.stderr_file)
        self.session = session
        self.clear_before_next_output = False
        self._text: CellText | None = None  # of the cell that runs
        self._number = 0
        self._left_out = bounds.LeftOut()
        self._kept = 0  # what the outputs of the cells before take, in characters
        self._displayed = 0  # what those of this cell take beside its text
        self._asked_to_exit = False
        self.kernel: RunningKernel | None = None
        self.first = 0  # the cell to begin with; what stands before it has been run elsewhere

    def papermill_execute_cells(self) -> None:
        """Run the cells in order until one fails."""
        self.log.info("Executing notebook with kernel: " + self.kernel_name)  # noqa: G003 - word for word as papermill
        number = 0
        for index, cell in enumerate(self.nb.cells):
            if cell.cell_type != "code":
                cell.metadata.papermill["status"] = _COMPLETED
                continue
            injected = INJECTED in cell.metadata.get("tags", ())
            number += not injected
            if index >= self.first and not self._run_cell(index, cell, 0 if injected else number):
                return

    def _run_cell(self, index: int, cell: Any, number: int) -> bool:
        """Run one code cell and tell whether the notebook may go on."""
        verdict = self.session.verdict
        if self.session.cancelled.is_set():
            verdict.kind, verdict.message, verdict.cell = "cancelled", "the run was cancelled", number
            return False
        started = time.monotonic()
        self._number = number
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
            verdict.message = self.session.lateness(time.monotonic())
        elif isinstance(error, DeadKernelError):
            verdict.kind = "kernel died"
            verdict.message = (
                f"the kernel died: {how_it_ended(self.kernel.exit_code() if self.kernel else None)}"
            )
        elif isinstance(error, CellExecutionError):
            exits = error.ename == "SystemExit"
            verdict.kind = "exit" if exits else "error"
            verdict.message = bounds.shortened(
                f"{error.ename}: {error.evalue}".rstrip(": "), self.session.masking
            )
            if exits:
                verdict.code = error.evalue
                verdict.message += "; a stage must run to its end, so the cells after it did not run"
            shown = [output for output in cell.get("outputs", ()) if output.output_type == "error"]
            verdict.traceback = list(shown[-1].traceback) if shown else [error.traceback]
        else:
            verdict.kind, verdict.message = "error", str(error)

    def remember_exit(self, execute_reply: Mapping[str, Any], **_: Any) -> None:
        """Notice that a cell has asked for the kernel's end."""
        payload = execute_reply["content"].get("payload") or ()
        self._asked_to_exit |= any(item.get("source") == "ask_exit" for item in payload)

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        """Take in a message of the kernel; what came so far is saved now and then."""
        bounded = self._bounded(msg, cell.outputs)
        output = None
        if bounded is not None:
            output = NotebookClient.process_message(self, bounded, cell, cell_index)
            if bounded is not msg and cell.outputs and msg["msg_type"] in _SHOWN:
                self._left_out.stands_as(cell.outputs[-1])
        self.save_now_and_then()
        return output

    def _bounded(self, msg: Any, outputs: list[Any]) -> Any:
        """Return a message that a notebook can take in; None if the last output stands for it already."""
        kind, content = msg["msg_type"], msg["content"]
        if kind == "error":
            return {**msg, "content": bounds.shortened_error(content, self.session.masking)}
        if kind not in (*_SHOWN, "update_display_data"):
            return msg
        size = content["left_out"][1] if "left_out" in content else bounds.characters(content)
        if self._kept + self._displayed + size > bounds.NOTEBOOK_CHARACTERS:
            left_out = self._left_out if kind in _SHOWN else bounds.LeftOut()
            instead = left_out.take(content, size, outputs if kind in _SHOWN else [])
            return None if instead is None else {**msg, "content": instead}
        if kind in _SHOWN:
            self._displayed += size
        return msg

    def output(self, outs: list[Any], msg: Any, display_id: str | None, cell_index: int) -> Any:
        """Take in an output, and log it if that is asked for."""
        if self._logs:
            self.log_output_message(output_from_msg(msg))
        return self._take_in(outs, msg, display_id, cell_index)

    def _take_in(self, outs: list[Any], msg: Any, display_id: str | None, cell_index: int) -> Any:
        """Take in an output; parts of one stream are joined, and bounded."""
        if self.output_hook_stack[msg["parent_header"].get("msg_id")]:
            return super().output(outs, msg, display_id, cell_index)
        if self.clear_before_next_output:
            self._forget_outputs()
        if msg["msg_type"] != "stream":
            return super().output(outs, msg, display_id, cell_index)
        if self.clear_before_next_output:
            outs[:] = []
            self.clear_display_id_mapping(cell_index)
            self.clear_before_next_output = False
        if self._text is None:
            room = bounds.NOTEBOOK_CHARACTERS - self._kept - self._displayed
            limit = max(bounds.LEAST_CHARACTERS, min(bounds.KEPT_CHARACTERS, room))
            spill = self.session.spill(self._number) if self.session.spill else None
            self._text = CellText(outs, limit, spill, self.session.masking)
        self._text.add(msg["content"]["name"], msg["content"]["text"])
        if gone := self._text.empty_outputs():
            for places in self._display_id_map.values():
                if cell_index in places:
                    places[cell_index] = [bounds.without(gone, place) for place in places[cell_index]]
        return None

    def clear_output(self, outs: list[Any], msg: Any, cell_index: int) -> None:
        """Remove what the cell has put out so far."""
        super().clear_output(outs, msg, cell_index)
        if not outs:
            self._forget_outputs()

    def _forget_outputs(self) -> None:
        if self._text is not None:
            self._text.close()
        self._text, self._displayed = None, 0

    def save_now_and_then(self) -> None:
        """Save what there is in the middle of a cell, unless that was done a moment ago."""
        if self.nb_man.is_due():
            if self._text is not None:
                self._text.fill()
            self.nb_man.save()

    def _settle(self, cell: Any) -> None:
        """Close the outputs of a cell that has ended."""
        if self._text is not None:
            self._text.close()
        streams = [item for item in cell.get("outputs", ()) if item.output_type == "stream"]
        self._kept += self._displayed + sum(len(item.text) for item in streams)
        self._text, self._displayed = None, 0
