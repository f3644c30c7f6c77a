"""Stopping a run: first politely, then at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

from nbtools.execution.kernels.processes import RunningKernel, send_signal

#: How long a cell may take to end once it was asked to; one that computes in C does not hear it.
GRACE_S = 5.0


class Cancellation:
    """Carries the wish to stop from whoever has it to the kernels that run."""

    def __init__(self) -> None:
        self.flag = threading.Event()
        self.signal_number = 0
        self.requests = 0
        self._kernels: set[RunningKernel] = set()

    def request(self, signal_number: int = signal.SIGINT) -> None:
        """Ask all running cells to stop; asked a second time, or after a while, kill their kernels.

        Safe to call from a signal handler.
        """
        self.requests += 1
        again = self.flag.is_set()
        self.flag.set()
        self.signal_number = self.signal_number or signal_number
        self._send(signal.SIGKILL if again else signal.SIGINT)
        if not again:
            timer = threading.Timer(GRACE_S, self._send, [signal.SIGKILL])
            timer.daemon = True
            timer.start()

    def asked_again(self) -> Callable[[], bool]:
        """Return what tells whether it has been asked to stop since now."""
        before = self.requests
        return lambda: self.requests > before

    def _send(self, number: int) -> None:
        for kernel in tuple(self._kernels):
            if pid := kernel.running():
                send_signal(pid, number)

    def watch(self, kernel: RunningKernel) -> None:
        """Include a kernel that has just started."""
        self._kernels.add(kernel)
        if self.flag.is_set() and (pid := kernel.running()):
            send_signal(pid, signal.SIGINT)

    def forget(self, kernel: RunningKernel) -> None:
        """Leave out a kernel that has ended."""
        self._kernels.discard(kernel)
