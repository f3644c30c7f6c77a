"""Stands above a kernel, or above the process that kernels are forked from, so that nothing outlives it.

Run as ``guardian.py ORCHESTRATOR REPORTS COMMAND...``, on Linux. A "subreaper" is given the children of whatever dies
below it, however far they have gone: into sessions of their own, away from parents that have ended. So when the
command or the orchestrator (a process id) has ended, the guardian kills its children, then those that it was given
by their death, until there are none. There are two guardians, one above the other: any process may be killed, and
one that can see to the others is left.

REPORTS is a descriptor that is told the command's process id and, when it has ended, its exit code, a line each; empty
if nobody wants to know. A byte on standard input, which is a pipe, tells that the command is to outlive the orchestrator.

Nothing is imported that takes long: standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from typing import NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
#: The lower guardian leaves it so long to the upper one to see that the orchestrator has ended.
_HEAD_START_S = 1.0
#: How long nothing may die of SIGKILL until it is given up: it waits for a device, or belongs to another user.
_PATIENCE_S = 5.0
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.001, 0.1
_LOOK_S = 1.0


class Guardian:
    """The life of a process that has forked ``child`` and guards it.

    Parameters
    ----------
    parent
        Who has started this process: the orchestrator, or the upper guardian.
    reports
        Told of the child's end; None if nobody is.
    """

    def __init__(self, child: int, parent: int, orchestrator: int, reports: int | None = None) -> None:
        self.child = child
        self.parent = parent
        self.orchestrator = orchestrator
        self.reports = reports
        self.is_lower = parent != orchestrator

    def guard(self) -> NoReturn:
        """Wait until the child or the orchestrator has ended, then end everything below."""
        _close_all_but(0, 1, 2, self.reports)  # others wait for the end of what goes to the command
        signals = _told_of(signal.SIGCHLD, signal.SIGTERM)
        if self.is_lower:
            # Not so the upper one: Linux would tell it of the end of the thread that has started it, too.
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        watched = self.watched()
        timeout_s = None if watched else _LOOK_S
        while not self.has_reaped_child():
            ready, _, _ = select.select([signals, *watched], [], [], timeout_s)
            if signals in ready and signal.SIGTERM in os.read(signals, 4096):
                break
            if set(watched) & set(ready) or (timeout_s and os.getppid() != self.parent):
                if self.is_lower:
                    time.sleep(_HEAD_START_S)
                if not _has_input(0):
                    break
                watched, timeout_s = [], None  # from now on, only the command's end is the end
        self.end()

    def watched(self) -> list[int]:
        """Return what can be read once the orchestrator has ended; nothing if that has happened, or Linux is older than 5.3."""
        with contextlib.suppress(AttributeError, OSError):
            descriptor = os.pidfd_open(self.orchestrator)
            return [descriptor] if os.getppid() == self.parent else []
        return []

    def has_reaped_child(self) -> bool:
        """Tell whether the child has ended; what the command left behind is a child here, too."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self.child:
                    if self.reports is not None:
                        tell(self.reports, os.waitstatus_to_exitcode(ended[1]))
                    return True
        return False

    def end(self) -> NoReturn:
        """End everything below, and this process."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        end_children()
        if self.is_lower:
            with contextlib.suppress(OSError):
                os.kill(os.getppid(), signal.SIGCONT)  # somebody may have stopped the upper one
        os._exit(0)


def end_children() -> None:
    """Kill the children of this process, and those that it is given by their death, until there are none."""
    deadline, pause_s = time.monotonic() + _PATIENCE_S, _SHORTEST_PAUSE_S
    while time.monotonic() < deadline:
        # The newest first, each as soon as it is found: it may be about to start another one and to end.
        for pid in sorted(map(int, filter(str.isdigit, os.listdir("/proc"))), reverse=True):
            if parent_of(pid) == os.getpid():
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                deadline, pause_s = time.monotonic() + _PATIENCE_S, _SHORTEST_PAUSE_S
        except ChildProcessError:
            return
        time.sleep(pause_s)


def parent_of(pid: int) -> int:
    """Return the parent of a process; 0 if the process has gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name in brackets may hold anything, blanks and brackets too.
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def tell(reports: int, number: int) -> None:
    """Write a line; nobody need be there to read it."""
    with contextlib.suppress(OSError):
        os.write(reports, f"{number}\n".encode())


def _told_of(*numbers: signal.Signals) -> int:
    """Return a descriptor from which the numbers of signals that have arrived can be read."""
    told, teller = os.pipe()
    os.set_blocking(teller, False)
    signal.set_wakeup_fd(teller)
    for number in numbers:
        signal.signal(number, lambda *_: None)
    return told


def _has_input(pipe: int) -> bool:
    """Tell whether a byte can be read; it is left for the other guardian."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    return any(event & select.POLLIN for _, event in poll.poll(0))


def _close_all_but(*spared: int | None) -> None:
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor not in spared:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _fork() -> int:
    """Fork as one who is given what dies below; the fork has a session of its own and ends with this process."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    this = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != this:
            os._exit(1)
    return pid


def _become(command: list[str]) -> NoReturn:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python has ignored them, and exec would leave it so
        signal.signal(number, signal.SIG_DFL)
    if "JPY_PARENT_PID" in os.environ:
        os.environ["JPY_PARENT_PID"] = str(os.getppid())
    try:
        os.execvp(command[0], command)  # noqa: S606 - it is a kernel's command, and not for a shell
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(127)


def main(orchestrator: int, reports: int | None, command: list[str]) -> NoReturn:
    """Guard ``command``."""
    if reports is not None:
        os.set_inheritable(reports, False)
    this = os.getpid()
    if lower := _fork():
        Guardian(lower, orchestrator, orchestrator).guard()
    if child := _fork():
        if reports is not None:
            tell(reports, child)
        Guardian(child, this, orchestrator, reports).guard()
    _become(command)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if sys.argv[2] else None, sys.argv[3:])
