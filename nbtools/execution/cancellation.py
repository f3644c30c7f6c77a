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
        self.why = ""
        self._kernels: set[RunningKernel] = set()
        self._whole: Cancellation | None = None
        self._parts: dict[str, Cancellation] = {}

    def request(self, signal_number: int = signal.SIGINT) -> None:
        """Ask all running cells to stop; asked a second time, or after a while, kill their kernels.

        Safe to call from a signal handler.
        """
        self.requests += 1
        again = self.flag.is_set()
        self.flag.set()
        for part in tuple(self._parts.values()):
            part.flag.set()
        self.signal_number = self.signal_number or signal_number
        self._send(signal.SIGKILL if again else signal.SIGINT)
        if not again:
            timer = threading.Timer(GRACE_S, self._send, [signal.SIGKILL])
            timer.daemon = True
            timer.start()

    def part(self, key: str) -> Cancellation:
        """Return what stops one of several: with the whole, or alone."""
        part = Cancellation()
        part._whole = self
        self._parts[key] = part
        if self.flag.is_set():
            part.flag.set()
        return part

    def stop(self, key: str, why: str) -> None:
        """Stop one part alone, and say why; one that has ended is left as it is."""
        part = self._parts.get(key)
        if part is not None and not part.flag.is_set():
            part.why = why
            part.request()

    def end(self, key: str) -> None:
        """Leave out a part that has ended."""
        self._parts.pop(key, None)

    @property
    def is_alone(self) -> bool:
        """Whether this part was stopped, and not the whole."""
        return bool(self.why) and self._whole is not None and not self._whole.flag.is_set()

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
        if self._whole is not None:
            self._whole._kernels.add(kernel)
        if self.flag.is_set() and (pid := kernel.running()):
            send_signal(pid, signal.SIGINT)

    def forget(self, kernel: RunningKernel) -> None:
        """Leave out a kernel that has ended."""
        self._kernels.discard(kernel)
        if self._whole is not None:
            self._whole._kernels.discard(kernel)
