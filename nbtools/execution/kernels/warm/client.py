"""Drives a forked kernel over its line: no event loop, no polling, less than a millisecond a cell."""

from __future__ import annotations

import time
import uuid
from codecs import getincrementaldecoder
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from jupyter_client.session import Session as JupyterSession
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from nbtools.execution.kernels.client import StageClient
from nbtools.execution.kernels.session import Session
from nbtools.execution.kernels.warm import wire
from nbtools.execution.kernels.warm.forked import ForkedKernel
from nbtools.execution.kernels.warm.forker import Cold

_NAMES = {wire.STDOUT: "stdout", wire.STDERR: "stderr"}
#: From the fork to the first word.
_READY_S = 60


class ForkedClient(StageClient):
    """Executes cells on a kernel that was forked for this notebook."""

    def __init__(self, progress: Any, session: Session, kernel: ForkedKernel, **kwargs: Any) -> None:
        super().__init__(progress, session, **kwargs)
        self.kernel: ForkedKernel = kernel
        self._decoders: dict[bytes, Any] = {}
        self._request = ""
        self.displayed: dict[str, Any] = {}
        # All that nbclient's widgets ask of a kernel's client.
        channel = SimpleNamespace(send=self._send_to_widget)
        self.kc = SimpleNamespace(session=JupyterSession(key=b""), shell_channel=channel)

    def run(self) -> None:
        """Run all cells and write the verdict.

        Raises
        ------
        Cold
            If the kernel never came to life; nothing of the notebook has run then.
        """
        self.reset_execution_trackers()
        self._display_id_map.update(self.displayed)
        try:
            language = self._ready()
            self.session.on_kernel(self.kernel)
            self.papermill_execute_cells()
            if not self.session.verdict.kind:
                self.nb.metadata["language_info"] = language
                self.session.verdict.complete = True
            self.set_widgets_metadata()
            kept = self._keep()
        except BaseException:
            self.kernel.stop(at_once=True)
            self.kernel.close()
            raise
        if not kept:
            self.kernel.stop(at_once=not self.session.verdict.complete, heed=self._heed)
        self.kernel.close()

    def _keep(self) -> bool:
        """Leave the kernel of a failed cell to whoever wants to look into it; tell whether that is done."""
        if self.session.keep is None or self.session.verdict.kind != "error" or not self.kernel.running():
            return False
        path = self.session.keep.connection_file()
        before = path.with_name("before")
        self.kernel.send({"do": "keep", "connection_file": str(path), "before": str(before)})
        try:
            dormant = self._answer_to("keep_reply")["before"]
            self.session.keep.kept(self.kernel.pid, path, dormant)
        except (Cold, TimeoutError):
            return False
        return True

    def _ready(self) -> Any:
        """Wait until the kernel says that it is ready; what it said before is no cell's output."""
        said = b""
        with suppress(TimeoutError):
            for frame in self.kernel.frames(time.monotonic() + _READY_S):
                kind, payload = frame or (wire.STDERR, b"")
                if kind != wire.MESSAGE:
                    said += payload
                    continue
                message, _ = wire.unpacked_message(payload)
                if message["msg_type"] == "ready":
                    return message["content"]["language_info"]
                self._answer()
        raise Cold(f"the fork ended before it was ready: {said.decode('utf-8', 'replace')[-500:]}")

    def execute_cell(self, cell: Any, cell_index: int, *_: Any, **__: Any) -> Any:
        """Execute a code cell, as nbclient's ``execute_cell`` does."""
        tags = cell.metadata.get("tags", ())
        if not cell.source.strip() or self.skip_cells_with_tag in tags:
            return cell
        cell.outputs = []
        self.clear_before_next_output = False
        self._decoders = {kind: getincrementaldecoder("utf-8")("replace") for kind in _NAMES}
        self._request = uuid.uuid4().hex
        if self.session.keep:
            self.kernel.send({"do": "checkpoint"})
        self.kernel.send(
            {"do": "execute", "id": self._request, "code": cell.source, "cell": cell.get("id", "")}
        )
        reply = self._reply(cell, cell_index)
        cell.execution_count = reply.get("execution_count")
        self.remember_exit({"content": reply})
        if reply["status"] == "error" and "raises-exception" not in tags:
            raise CellExecutionError.from_cell_and_msg(cell, reply)
        return cell

    def _reply(self, cell: Any, index: int) -> Any:
        """Take in what the cell shows until its reply has come."""
        try:
            for frame in self.kernel.frames(self.session.cell_deadline(time.monotonic())):
                self.save_now_and_then()
                self.look_up()
                if frame is None:
                    continue
                kind, payload = frame
                if kind != wire.MESSAGE:
                    self._print(cell, index, kind, payload)
                    continue
                message, buffers = wire.unpacked_message(payload)
                if message["msg_type"] == "environment_request":
                    self._answer()
                elif message["msg_type"] == "imported":
                    self.kernel.also_import(message["content"]["modules"])
                elif message["msg_type"] != "execute_reply":
                    self.process_message({**message, "buffers": buffers}, cell, index)
                elif message["parent_header"]["msg_id"] == self._request:
                    for kind, printed in self.kernel.printed():
                        self._print(cell, index, kind, printed)
                    return message["content"]
        except TimeoutError as error:
            raise CellTimeoutError.error_from_timeout_and_cell(
                "the stage's time is up", int(self.session.timeout_s or 0), cell
            ) from error
        raise DeadKernelError("Kernel died")

    def look_up(self) -> None:
        """Called again and again while a cell runs."""

    def _answer_to(self, kind: str) -> Any:
        """Return the content of the next message of a kind."""
        for frame in self.kernel.frames(time.monotonic() + _READY_S):
            if frame and frame[0] == wire.MESSAGE:
                message, _ = wire.unpacked_message(frame[1])
                if message["msg_type"] == kind:
                    return message["content"]
        raise Cold("the kernel has ended")

    def _send_to_widget(self, message: Any) -> None:
        kind = message["header"]["msg_type"]
        self.kernel.send({"do": "comm", "kind": kind, "content": message["content"]})

    def _heed(self, message: Any) -> None:
        if message["msg_type"] == "environment_request":
            self._answer()

    def _answer(self) -> None:
        """Complete the kernel's environment: it has come to need the rest."""
        self.kernel.send({"do": "environment", "variables": dict(self.session.late())})

    def _print(self, cell: Any, index: int, kind: bytes, payload: bytes) -> None:
        """Take in what was printed; a character may come in two parts."""
        if text := self._decoders[kind].decode(payload):
            content = {"name": _NAMES[kind], "text": text}
            message = {
                "header": {"msg_type": "stream"},
                "msg_type": "stream",
                "content": content,
                "parent_header": {"msg_id": self._request},
            }
            self.output(cell.outputs, message, None, index)
