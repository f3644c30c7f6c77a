"""A kernel that is there already: the one that was kept when a cell failed, to go on at that cell."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from jupyter_client.asynchronous.client import AsyncKernelClient
from nbclient.exceptions import DeadKernelError
from nbclient.util import run_sync

from nbtools.execution.kernels.managed import ManagedClient
from nbtools.execution.kernels.session import Session
from nbtools.pipeline.notebook import INJECTED

_READY_S = 20

#: Puts a kernel into another MLflow run: what it logs from now on belongs to this attempt.
_ENTER = """
import os as _os, sys as _sys
_os.environ.update({variables!r})
if "mlflow" in _sys.modules:
    try:
        _sys.modules["mlflow"].tracking.fluent._active_run_stack.get().clear()
    except AttributeError:  # of another MLflow
        pass
del _os, _sys
"""


class KeptProcess:
    """The process of a kernel that was kept; it is nobody's child here."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def running(self) -> int | None:
        """Return the process id; None if the process has ended."""
        try:
            ended = psutil.Process(self._pid).status() == psutil.STATUS_ZOMBIE
        except psutil.Error:
            return None
        return None if ended else self._pid

    def exit_code(self) -> int | None:
        """Return None: only its parent is told."""


class AttachedClient(ManagedClient):
    """Executes the cells of a notebook from one on, in a kernel that has run those before it.

    Parameters
    ----------
    connection_file, pid
        Of the kernel.
    cell
        Number of the code cell to begin with, in the source notebook.
    done
        The notebook whose cells before it have been run.
    variables
        Of the environment, for what is run now.
    """

    def __init__(
        self,
        progress: Any,
        session: Session,
        *,
        connection_file: str,
        pid: int,
        cell: int,
        done: Any,
        variables: Mapping[str, str],
    ) -> None:
        super().__init__(progress, session)
        self._connection_file = connection_file
        self._process = KeptProcess(pid)
        self._variables = variables
        self.first = _take_over(self.nb, done, cell)

    def run(self) -> None:
        """Run the cells and write the verdict; the kernel stays."""
        self.reset_execution_trackers()
        self.kernel = self._process
        self.kc = AsyncKernelClient(connection_file=self._connection_file)
        verdict = self.session.verdict
        try:
            self._attach()
            self.session.on_kernel(self.kernel)
            entering = _ENTER.format(variables=dict(self._variables))
            self.wait_for_reply(self.kc.execute(entering, silent=True, store_history=False))
            self.papermill_execute_cells()
            if not verdict.kind:
                info = self.wait_for_reply(self.kc.kernel_info())
                self.nb.metadata["language_info"] = info["content"]["language_info"]
                verdict.complete = True
        except (DeadKernelError, OSError, json.JSONDecodeError, RuntimeError) as error:
            if not verdict.kind:
                verdict.kind, verdict.message = "kernel died", f"the kept kernel does not answer: {error}"
        finally:
            self.kc.stop_channels()

    def _attach(self) -> None:
        deadline = time.monotonic() + _READY_S
        while not _is_written(Path(self._connection_file)) and time.monotonic() < deadline:
            time.sleep(0.05)  # it was forked a moment ago
        self.kc.load_connection_file()
        self.kc.start_channels()
        run_sync(self._ready)()
        self.kc.allow_stdin = False

    async def _ready(self) -> None:
        await self.kc.wait_for_ready(timeout=_READY_S)


def _is_written(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return True


def _take_over(notebook: Any, done: Any, cell: int) -> int:
    """Copy what the code cells before ``cell`` put out; return the index of that cell."""
    before = iter([item for item in done.cells if item.cell_type == "code"])
    number = 0
    for index, item in enumerate(notebook.cells):
        if item.cell_type != "code":
            continue
        number += INJECTED not in item.metadata.get("tags", ())
        if number == cell:
            return index
        ran = next(before)
        item.outputs, item.execution_count = copy.deepcopy(ran.outputs), ran.execution_count
        item.metadata.papermill = copy.deepcopy(ran.metadata.papermill)
    return len(notebook.cells)
