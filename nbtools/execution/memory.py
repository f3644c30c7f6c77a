"""How much memory a kernel and everything that it started hold, and stopping one that holds too much."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import psutil

from nbtools.execution.kernels.processes import RunningKernel, send_signal

_EVERY_S = 0.5


class MemoryWatch:
    """Stops a kernel that holds more memory than its stage has booked.

    Parameters
    ----------
    limit_bytes
        Of the kernel and all processes that it started, together.
    """

    def __init__(self, kernel: RunningKernel, limit_bytes: int) -> None:
        self.exceeded_bytes = 0
        self._kernel = kernel
        self._limit_bytes = limit_bytes
        self._over = threading.Event()
        threading.Thread(target=self._watch, name="memory", daemon=True).start()

    def end(self) -> None:
        """Stop watching."""
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(_EVERY_S):
            pid = self._kernel.running()
            if pid is None:
                return
            held = held_bytes(pid)
            if held > self._limit_bytes:
                self.exceeded_bytes = held
                send_signal(pid, signal.SIGKILL)
                return


def held_bytes(pid: int) -> int:
    """Return the memory of a process and its descendants in bytes; pages that several share count in parts."""
    try:
        process = psutil.Process(pid)
        return sum(_proportional_bytes(item) for item in (process, *process.children(recursive=True)))
    except psutil.Error:
        return 0


def _proportional_bytes(process: psutil.Process) -> int:
    # A forked kernel shares most pages with the zygote; its resident size would count them in full.
    try:
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii")
        return next(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))
    except (OSError, StopIteration):
        try:
            return int(process.memory_info().rss)
        except psutil.Error:
            return 0
