"""Watching a kernel from outside: one that holds too much memory is stopped, one that sleeps is told of."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from nbtools.execution.kernels.processes import RunningKernel, send_signal

_EVERY_S = 0.5
#: How long a kernel may be stopped before somebody is told.
UNRESPONSIVE_S = 60.0


class KernelWatch:
    """Looks at a kernel's process every half second.

    Parameters
    ----------
    limit_bytes
        What the kernel and all processes that it started may hold together before they are killed; 0 for no limit.
    on_unresponsive
        Called with the process id of a kernel that somebody has stopped (SIGSTOP, a debugger) and not woken
        for a minute; called again if that happens again.
    """

    def __init__(
        self, kernel: RunningKernel, limit_bytes: int, on_unresponsive: Callable[[int], None]
    ) -> None:
        self.exceeded_bytes = 0
        self._kernel = kernel
        self._limit_bytes = limit_bytes
        self._on_unresponsive = on_unresponsive
        self._stopped_since: float | None = None
        self._told = False
        self._over = threading.Event()
        threading.Thread(target=self._watch, name="kernel watch", daemon=True).start()

    def end(self) -> None:
        """Stop watching."""
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(_EVERY_S):
            pid = self._kernel.running()
            if pid is None:
                return
            if self._limit_bytes and (held := held_bytes(pid)) > self._limit_bytes:
                self.exceeded_bytes = held
                send_signal(pid, signal.SIGKILL)
                return
            self._look_whether_it_sleeps(pid)

    def _look_whether_it_sleeps(self, pid: int) -> None:
        if not _is_stopped(pid):
            self._stopped_since, self._told = None, False
            return
        now = time.monotonic()
        self._stopped_since = now if self._stopped_since is None else self._stopped_since
        if not self._told and now - self._stopped_since >= UNRESPONSIVE_S:
            self._told = True
            self._on_unresponsive(pid)


def _is_stopped(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP))
    except psutil.Error:
        return False


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
