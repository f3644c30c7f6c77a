"""A forked kernel as the orchestrator sees it: its process, and the line over which it is driven."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

from nbtools.execution.kernels.processes import send_signal
from nbtools.execution.kernels.warm import wire
from nbtools.execution.kernels.warm.pipes import Pipes, read

_END_S = 5.0


class ForkedProcess:
    """The process of a kernel that was forked: no child of this one, so nobody can wait for it as usual.

    Parameters
    ----------
    watched
        A descriptor that is readable once the process has ended.
    ended
        Gets its exit code from whoever forked it; None if nobody knows.
    """

    def __init__(self, pid: int, watched: int, ended: Future[int | None]) -> None:
        self.pid = pid
        self.watched = watched
        self._ended = ended
        self._closed = False
        self._closing = threading.Lock()  # others look whether it runs

    def running(self) -> int | None:
        """Return the process id; None if the process has ended."""
        with self._closing:
            if self._closed or select.select([self.watched], [], [], 0)[0]:
                return None
            return self.pid

    def exit_code(self) -> int | None:
        """Return how the process ended; None if it runs or nobody knows."""
        if self.running():
            return None
        try:
            return self._ended.result(_END_S)
        except FutureTimeout:
            return None

    def await_end(self, seconds: float | None = None) -> None:
        """Wait until it has ended, for so long at most."""
        if self.running():
            select.select([self.watched], [], [], seconds)

    def close(self) -> None:
        """Give back what is held of it here."""
        with self._closing:
            if not self._closed:
                self._closed = True
                os.close(self.watched)


class ForkedKernel:
    """A kernel that was forked, and the line to it.

    Parameters
    ----------
    connection
        The stream of frames.
    outputs
        Descriptors of pipes: what programs that a cell started write to stdout and stderr.
    control
        Where forks of this kernel are asked for, if it may be forked.
    also_import
        Told what cells have imported of packages that the kernel was forked with.
    """

    def __init__(
        self,
        process: ForkedProcess,
        connection: socket.socket,
        outputs: tuple[int, int],
        control: socket.socket | None = None,
        also_import: Callable[[Sequence[str]], None] = lambda _: None,
    ) -> None:
        self.pid = process.pid
        self.control = control
        self.also_import = also_import
        self.connection = connection
        self.outputs = outputs
        self.running = process.running
        self.exit_code = process.exit_code
        self._process = process
        self._pipes = Pipes(dict(zip((wire.STDOUT, wire.STDERR), outputs, strict=True)))
        self._frames = wire.Frames()
        self._arrivals: deque[tuple[bytes, bytes]] = deque()  # a reader may leave before it has taken all
        self._over = False
        self._poll = select.poll()
        for descriptor in (connection.fileno(), *outputs, process.watched):
            os.set_blocking(descriptor, False)
            self._poll.register(descriptor, select.POLLIN)

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message; if nobody is there any more, that is seen when the answer is awaited."""
        self.connection.setblocking(True)
        with contextlib.suppress(OSError):
            self.connection.sendall(wire.packed_message(message))
        self.connection.setblocking(False)

    def frames(self, deadline: float | None, wake_s: float = 1.0) -> Iterator[tuple[bytes, bytes] | None]:
        """Yield what arrives, in order; None at least every ``wake_s`` seconds.

        Ends when the process has ended and everything that it said was read.

        Raises
        ------
        TimeoutError
            At ``deadline`` (on the monotonic clock).
        """
        while True:
            while self._arrivals:
                yield self._arrivals.popleft()
            if self._over:
                return
            wait_s = wake_s if deadline is None else min(wake_s, deadline - time.monotonic())
            ready = {descriptor for descriptor, _ in self._poll.poll(max(0.0, wait_s) * 1000)}
            self._over = self._process.watched in ready
            self._arrivals += self._arrived()
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError
            if not self._arrivals:
                yield None

    def _arrived(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield what is there now, in the order of its making; of a process that has ended, all of it."""
        self._pipes.read()
        while data := read(self.connection.fileno()):
            for kind, payload in self._frames.add(data):
                if kind == wire.MARK:
                    yield from self._pipes.before(*wire.unpacked_mark(payload))
                else:
                    yield kind, payload
            if not self._over:
                break
        yield from self._pipes.rest()

    def printed(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield what a cell whose reply has come, and programs that it started, have printed besides."""
        for frame in tuple(self._arrivals):
            if frame[0] != wire.MESSAGE:
                self._arrivals.remove(frame)
                yield frame
        self._pipes.read()
        yield from self._pipes.rest()

    def stop(self, *, at_once: bool, heed: Callable[[Any], None] = lambda _: None) -> None:
        """End the process: let it run what is registered for its end, or kill it with all it started.

        Parameters
        ----------
        heed
            Given each message of its last; what it prints belongs to no cell.
        """
        if not at_once:
            self.send({"do": "stop"})
            deadline = time.monotonic() + _END_S
            for frame in self.frames(None):
                if frame and frame[0] == wire.MESSAGE:
                    heed(wire.unpacked_message(frame[1])[0])
                    deadline = time.monotonic() + _END_S  # it may have been kept waiting
                elif time.monotonic() > deadline:
                    break
        if self.running():
            send_signal(self.pid, signal.SIGKILL)
            self._process.await_end(_END_S)

    def close(self) -> None:
        """Give back what the kernel held here."""
        self._process.close()
        self.connection.close()
        for descriptor in self.outputs:
            os.close(descriptor)
