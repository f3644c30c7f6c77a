"""What programs that a cell starts print, in order with what the cell itself sends.

Programs write to pipes and the cell's process sends frames over a socket, so that which came first must be
found out: with every frame goes when it was sent, and how much was unread in each pipe then.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Mapping

_READ = 1 << 18
#: How many readings are remembered: more than can happen between the sending of a frame and its arrival.
_READINGS = 256


def read(descriptor: int, most: int = _READ) -> bytes:
    """Return what there is to read now, nothing at the end."""
    try:
        return os.read(descriptor, most)
    except (BlockingIOError, ConnectionError):
        return b""


class Pipe:
    """One pipe, read without blocking."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._held = bytearray()  # read, but not taken out
        self._total = 0  # bytes read since the beginning
        self._readings: deque[tuple[int, int]] = deque(maxlen=_READINGS)  # when, and how much

    def read(self, most: int = _READ) -> bool:
        """Read what is there and tell whether there was something."""
        now = time.monotonic_ns()  # before: other threads may take their time once the system has read
        data = read(self._descriptor, most)
        if data:
            self._readings.append((now, len(data)))
            self._held += data
            self._total += len(data)
        return bool(data)

    def before(self, sent_ns: int, unread: int) -> bytes:
        """Take out what had been printed when a frame was sent with so much unread."""
        read_since = sum(size for at, size in self._readings if at > sent_ns)
        end = self._total - read_since + unread
        while self._total < end and self.read(end - self._total):
            pass
        return self._take(end - (self._total - len(self._held)))

    def rest(self) -> bytes:
        """Take out all that was read."""
        return self._take(len(self._held))

    def _take(self, size: int) -> bytes:
        taken = bytes(self._held[: max(0, size)])
        del self._held[: len(taken)]
        return taken


class Pipes:
    """The pipes of a kernel's programs, by the kind of what comes out of them."""

    def __init__(self, descriptors: Mapping[bytes, int]) -> None:
        self._pipes = {kind: Pipe(descriptor) for kind, descriptor in descriptors.items()}

    def read(self) -> None:
        """Read what is there; a program that never stops must not keep the rest waiting."""
        for pipe in self._pipes.values():
            for _ in range(4):
                if not pipe.read():
                    break

    def before(self, sent_ns: int, unread: Mapping[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
        """Yield kind and text of what comes before a frame."""
        for kind, pipe in self._pipes.items():
            if data := pipe.before(sent_ns, unread[kind]):
                yield kind, data

    def rest(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield kind and text of all that was read."""
        for kind, pipe in self._pipes.items():
            if data := pipe.rest():
                yield kind, data
