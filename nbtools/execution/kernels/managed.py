"""An ordinary kernel: a process of its own, reached over Jupyter's messaging protocol."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from tempfile import TemporaryDirectory
from typing import Any

from jupyter_core.utils import run_sync

from nbtools.execution.kernels.client import StageClient
from nbtools.execution.kernels.manager import InterpreterKernelManager
from nbtools.execution.kernels.processes import ManagedKernel
from nbtools.execution.kernels.session import Session

#: How long output may still arrive after a cell's reply. nbclient's 4 s fail cells that print much.
_LATE_OUTPUT_S = 600
#: How often it is looked whether a message has come without waking whoever waits for it.
_WAKE_EVERY_S = 1.0
#: Systems allow the path of a socket some 100 characters.
_LONGEST_SOCKET_FOLDER = 80


class ManagedClient(StageClient):
    """Starts a kernel with jupyter_client and drives it with nbclient."""

    def __init__(self, progress: Any, session: Session, **kwargs: Any) -> None:
        super().__init__(progress, session, **kwargs)
        self.iopub_timeout = _LATE_OUTPUT_S
        self.timeout_func = self._seconds_left
        self.on_cell_executed = self.remember_exit
        self._sockets: TemporaryDirectory[str] | None = None

    def create_kernel_manager(self) -> Any:
        """Return the manager of the kernel, which runs on the session's interpreter."""
        if not self.session.python:
            self.kernel_manager_class = InterpreterKernelManager
            return super().create_kernel_manager()
        self.km = InterpreterKernelManager(config=self.config)
        self.km.python = self.session.python
        self.km.start_warm = self.session.start
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
            self.kernel = ManagedKernel(self.km)
            self.session.on_kernel(self.kernel)
            self.papermill_execute_cells()
            if self.session.verdict.kind:
                # What is wrong is known; a kernel that hangs is not asked politely.
                self.shutdown_kernel = "immediate"
            else:
                self.nb.metadata["language_info"] = self.language_info()
                self.session.verdict.complete = True
            self.set_widgets_metadata()

    async def async_execute_cell(self, *args: Any, **kwargs: Any) -> Any:
        """Execute a cell as nbclient does; a message that nobody was woken for does not hold it up."""
        async with self._woken():
            return await super().async_execute_cell(*args, **kwargs)

    execute_cell = run_sync(async_execute_cell)

    async def _language_info(self) -> Any:
        async with self._woken():
            info = await self.async_wait_for_reply(self.kc.kernel_info())
        return info["content"]["language_info"]

    language_info = run_sync(_language_info)

    @asynccontextmanager
    async def _woken(self) -> AsyncIterator[None]:
        waking = asyncio.create_task(self._wake())
        try:
            yield
        finally:
            waking.cancel()

    async def _wake(self) -> None:
        # jupyter_client sends past the asyncio socket that it receives with. If that happens while a
        # message arrives, as when nbclient tells the kernel what a widget shows, nobody is woken for that
        # message, nor for any later one: zmq's file descriptor speaks once, until somebody has asked.
        while True:
            await asyncio.sleep(_WAKE_EVERY_S)
            for channel in (self.kc.shell_channel, self.kc.iopub_channel):
                await channel.socket.poll(1)

    @contextmanager
    def _without_sockets_afterwards(self) -> Iterator[None]:
        try:
            yield
        finally:
            if self._sockets:
                self._sockets.cleanup()

    def _seconds_left(self, _cell: Any) -> float | None:
        now = time.monotonic()
        deadline = self.session.cell_deadline(now)
        return None if deadline is None else max(0.1, deadline - now)
