"""The operating system's side of a kernel: its process, signals, and how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any


def process_of(manager: Any) -> int | None:
    """Return the process id of a running kernel."""
    process = getattr(getattr(manager, "provisioner", None), "process", None)
    return None if process is None or process.poll() is not None else int(process.pid)


def exit_code_of(manager: Any) -> int | None:
    """Return how a kernel's process ended; None if it runs or nobody knows."""
    process = getattr(getattr(manager, "provisioner", None), "process", None)
    code = None if process is None else process.poll()
    return None if code is None else int(code)


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
