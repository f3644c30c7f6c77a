"""The operating system's side of a kernel: its process, signals, and how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, Protocol

from nbtools.execution.kernels import guardian


class RunningKernel(Protocol):
    """A kernel's process, however it was started."""

    def running(self) -> int | None:
        """Return the process id; None if the process has ended."""

    def exit_code(self) -> int | None:
        """Return how the process ended; None if it runs or nobody knows."""


class ManagedKernel:
    """The process behind a kernel manager of jupyter_client's."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    def running(self) -> int | None:
        """Return the process id; None if the process has ended."""
        process = self._process()
        return None if process is None or process.poll() is not None else int(process.pid)

    def exit_code(self) -> int | None:
        """Return how the process ended; None if it runs or nobody knows."""
        process = self._process()
        code = None if process is None else process.poll()
        return None if code is None else int(code)

    def _process(self) -> Any:
        return getattr(getattr(self._manager, "provisioner", None), "process", None)


def guarded(command: Sequence[str], reports: int | None = None) -> list[str]:
    """Return what runs a command below guardians; ``reports`` is a descriptor that it is to inherit."""
    told = "" if reports is None else str(reports)
    # Isolated and without site-packages: it starts in some 10 ms, whatever the environment of the command says.
    return [sys.executable, "-I", "-S", guardian.__file__, str(os.getpid()), told, *command]


def send_signal(pid: int, number: int) -> None:
    """Send a signal to a kernel and everything that it started in its process group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        # jupyter_client gives each kernel a session, and so a process group, of its own.
        os.killpg(pid, number)


def how_it_ended(code: int | None) -> str:
    """Return an exit code in words.

    >>> how_it_ended(-9)
    'killed by SIGKILL (was there too little memory?)'
    """
    if code is None:
        return "for no known reason"
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (was there too little memory?)" if name == "SIGKILL" else ""
    return f"killed by {name}{hint}"
