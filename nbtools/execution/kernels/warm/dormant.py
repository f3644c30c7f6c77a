"""A fork of a kernel that sleeps, with the state from before a cell, and forks kernels with that state when asked.

Standard library only: it runs in kernels of any interpreter.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket

from . import zygote


class Dormant:
    """A fork that sleeps, with the state from before a cell; nothing runs in it, so that it can be forked again."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid = pid
        self._connection = connection

    def wake(self, place: str) -> bool:
        """Have it fork a kernel whenever somebody asks for one at the socket ``place``; tell whether it will."""
        with contextlib.suppress(OSError):
            self._connection.sendall(place.encode())
            return bool(self._connection.recv(1))
        return False

    def end(self) -> None:
        """The cell has passed: the state from before it is of no use."""
        self._connection.close()


def fork_on_request(place: str, waiting: socket.socket, kernel: int) -> str:
    """Return, in a fork for each request at the socket ``place``, the connection file that it names.

    Whoever asks is told the fork's process id. The fork before ends: its state is spoilt.

    Parameters
    ----------
    waiting
        Who is there is told when requests can be made.
    kernel
        The process with whose end all this ends.
    """
    os.setsid()  # from now on it is interrupted alone
    forget_outputs()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(place)
    listening.listen()
    try:
        watched = os.pidfd_open(kernel)
    except ProcessLookupError:
        os._exit(0)
    with waiting:
        waiting.sendall(b".")
    pid = 0
    while True:
        if watched in select.select([listening.fileno(), watched], [], [])[0]:
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
            os._exit(0)
        asking, _ = listening.accept()
        with asking, contextlib.suppress(OSError):
            file = asking.recv(4096).decode()
            if not file:
                continue
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            pid, here = 0, os.getpid()
            pid = os.fork()
            if not pid:
                os.setsid()
                zygote.end_with_parent(here)
                listening.close()
                os.close(watched)
                return file
            asking.sendall(str(pid).encode())


def forget_outputs() -> None:
    """What programs print from now on, nobody reads."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    os.close(nothing)
