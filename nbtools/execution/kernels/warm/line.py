"""The line between a forked kernel and the orchestrator, as the kernel sees it: messages, and what cells print.

Standard library only: it runs in kernels of any interpreter.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import io
import os
import select
import signal
import socket
import sys
import termios
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from . import wire

#: How often it is looked what is unread until it stands still: programs may print all the time.
_LOOKS = 5
#: More than this is sent although no line has ended.
_LONGEST_LINE = 8_192
_LARGEST_FRAME = 1 << 20


class Line:
    """The way out of the process: frames in the order in which they were written."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._owner = os.getpid()
        self._frames = wire.Frames()
        self._arrived: deque[Any] = deque()
        self._reading = threading.Lock()
        self._wake: Callable[[], object] = bool
        self.sending = threading.RLock()

    def reopen(self, connection: socket.socket) -> None:
        """Belong to this process, which is a fork of the one before, and go over a connection of its own."""
        self.__init__(connection)  # type: ignore[misc]

    def own(self) -> bool:
        """Tell whether this is the process that the line belongs to, and not one that a cell has forked."""
        return os.getpid() == self._owner

    def send(self, frame: bytes) -> None:
        """Send a frame whole, whatever threads there are; a signal in between must not tear it."""
        if not self.own():
            return
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with self.sending, contextlib.suppress(OSError):
                self.connection.sendall(_mark() + frame)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def answer(self) -> Any:
        """Wait for the variables that were asked for, in whatever thread; None when the other side has gone."""
        with self._reading:
            while not (found := self._first(answer=True)):
                if not self._take_in():
                    return None
                self._wake()  # what else has come is not on the socket any more
        return found

    async def next(self, loop: asyncio.AbstractEventLoop) -> Any:
        """Return the next message that is no answer; tasks go on while it is awaited."""
        while True:
            something = loop.create_future()
            self._wake = functools.partial(loop.call_soon_threadsafe, _tell, something)
            if found := self._first(answer=False):
                return found
            loop.add_reader(self.connection, _tell, something)
            try:
                await something
            finally:
                loop.remove_reader(self.connection)
            if not self._read_what_is_there():
                return None

    def _read_what_is_there(self) -> bool:
        """Take in what has come, unless a thread that waits for an answer does so; False when nobody is there."""
        if not self._reading.acquire(blocking=False):
            return True
        try:
            return not select.select([self.connection], [], [], 0)[0] or self._take_in()
        finally:
            self._reading.release()

    def _first(self, *, answer: bool) -> Any:
        for message in tuple(self._arrived):
            if (message["do"] == "environment") is answer:
                self._arrived.remove(message)
                return message
        return None

    def _take_in(self) -> bool:
        data = self.connection.recv(1 << 16)
        self._arrived += (wire.unpacked_message(payload)[0] for _, payload in self._frames.add(data))
        return bool(data)


def _tell(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)


def _mark() -> bytes:
    """Return what tells the other side which of what programs have printed comes before a frame."""
    for _ in range(_LOOKS):
        unread = _unread(1), _unread(2)
        now = time.monotonic_ns()
        if unread == (_unread(1), _unread(2)):  # nobody has read or printed in the meantime
            break
    return wire.packed_mark(now, *unread)


def _unread(pipe: int) -> int:
    """Return how many bytes programs have printed that the other side has not read yet."""
    with contextlib.suppress(OSError):
        return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, b"\0\0\0\0"), sys.byteorder)
    return 0  # a cell has put something else in the pipe's place


class CellStream(io.TextIOBase):
    """``sys.stdout`` or ``sys.stderr`` of a cell: a line at a time, as on a terminal."""

    def __init__(self, line: Line, kind: bytes, descriptor: int) -> None:
        super().__init__()
        self._line = line
        self._kind = kind
        self._descriptor = descriptor
        self._parts: list[str] = []
        self._size = 0
        self._writing = threading.RLock()
        self.name = "<stdout>" if kind == wire.STDOUT else "<stderr>"
        self.mode = "w"

    encoding = "UTF-8"
    errors = "strict"

    def fileno(self) -> int:
        """Return the descriptor that programs started by a cell write to."""
        return self._descriptor

    def writable(self) -> bool:
        """Text can be written."""
        return True

    def isatty(self) -> bool:
        """Nobody is watching."""
        return False

    def write(self, string: str) -> int:
        """Take in text; what ends a line is sent at once."""
        if not isinstance(string, str):
            raise TypeError(f"write() argument must be str, not {type(string).__name__}")
        if not self._line.own():
            os.write(self._descriptor, string.encode("utf-8", "replace"))
            return len(string)
        with self._writing:
            self._parts.append(string)
            self._size += len(string)
            if "\n" in string or self._size > _LONGEST_LINE:
                self.flush()
        return len(string)

    def flush(self) -> None:
        """Send what was written."""
        if not self._line.own():
            return
        with self._writing:
            parts, self._parts, self._size = self._parts, [], 0
            text = "".join(parts).encode("utf-8", "surrogatepass")
            for start in range(0, len(text), _LARGEST_FRAME):
                self._line.send(wire.packed(self._kind, text[start : start + _LARGEST_FRAME]))
