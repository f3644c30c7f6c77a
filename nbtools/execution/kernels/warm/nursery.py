"""Zygotes as the orchestrator sees them: which there are, and the kernels forked from them."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence

from nbtools.execution.kernels.warm import begun as early
from nbtools.execution.kernels.warm.begun import QUIET, Begun, begin
from nbtools.execution.kernels.warm.forked import ForkedKernel, ForkedProcess
from nbtools.execution.kernels.warm.forker import Cold, Forker, ForkJob

log = logging.getLogger(__name__)

_END_S = 5.0
_MODULES_AT_ONCE = 500


class Zygote(Forker):
    """A process that has imported packages and nothing else, and its guardians.

    Parameters
    ----------
    environment
        What imports may read.
    begun
        A process that has been begun with a part of that environment.

    Raises
    ------
    OSError
        If it cannot be started.
    """

    def __init__(
        self, python: str, modules: Sequence[str], environment: Mapping[str, str], begun: Begun | None = None
    ) -> None:
        self.modules = tuple(modules)
        # JPY_ variables tell a kernel whose it is; this process is nobody's, and its forks are told anew.
        own = {name: value for name, value in environment.items() if not name.startswith("JPY_")}
        begun = begun or begin(python, own)
        self._guardian = begun.guardian
        assert self._guardian.stdin is not None
        self._to_guardian = self._guardian.stdin
        super().__init__(begun.control, "the zygote")
        more = {name: own[name] for name in own.keys() - begun.environment.keys() - QUIET.keys()}
        with contextlib.suppress(Cold):  # it has ended: whoever asks for a fork is told so
            self._ask({"modules": self.modules, "environment": more}, ())

    def also_import(self, modules: Sequence[str]) -> None:
        """Have what notebooks come to import imported here too, beside them, unless it turns out to be harmful."""
        with contextlib.suppress(Cold):
            for start in range(0, len(modules), _MODULES_AT_ONCE):
                self._ask({"import": modules[start : start + _MODULES_AT_ONCE]}, ())

    def keep(self, pid: int, seconds: float) -> None:
        """Let a kernel outlive this process, for so long at most.

        Raises
        ------
        Cold
            If the process that forked it has ended.
        """
        with contextlib.suppress(OSError):  # it has ended, and the zygote with it
            os.write(self._to_guardian.fileno(), b"k")
        super().keep(pid, seconds)

    def close(self) -> None:
        """End the process, and with it every kernel that still runs and all that kernels have started."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        self._to_guardian.close()
        if self.keeps:
            return
        # Never by SIGKILL: whoever is killed cannot end the others.
        self._guardian.terminate()
        self._guardian.send_signal(signal.SIGCONT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._guardian.wait(_END_S)


class Nursery:
    """The zygotes of a run."""

    def __init__(self) -> None:
        self._zygotes: dict[str, Zygote] = {}
        self._making = threading.Lock()
        self._closing: list[Callable[[], None]] = []

    def before_closing(self, close: Callable[[], None]) -> None:
        """Have ``close`` called before the zygotes end."""
        self._closing.append(close)

    def prepare(self, python: str, modules: Sequence[str], environment: Mapping[str, str]) -> None:
        """Begin to import ``modules`` on an interpreter; forks may be asked for at once.

        Parameters
        ----------
        environment
            What imports may read: of all stages, without secrets.
        """
        with self._making:
            if sys.platform != "linux" or python in self._zygotes:
                return
            try:
                self._zygotes[python] = Zygote(python, modules, environment, early.taken(python, environment))
            except OSError as error:
                log.debug("no zygote for %s: %s", python, error)

    def has(self, python: str) -> bool:
        """Tell whether forks may be asked for on an interpreter."""
        return python in self._zygotes

    def has_lost(self, python: str) -> bool:
        """Tell whether the zygote of an interpreter has ended by itself, and its kernels with it."""
        return python in self._zygotes and self._zygotes[python].lost

    def fork(self, python: str, job: ForkJob, given_up: Callable[[], bool] = bool) -> ForkedKernel:
        """Return a warm kernel.

        Raises
        ------
        Cold
            If there is none to be had.
        """
        return self._zygote(python).fork(job, given_up)

    def start(
        self, python: str, job: ForkJob, stdout: int, stderr: int, given_up: Callable[[], bool] = bool
    ) -> ForkedProcess:
        """Return the process of a warm kernel that is reached over Jupyter's protocol.

        Raises
        ------
        Cold
            If there is none to be had.
        """
        return self._zygote(python).start(job, stdout, stderr, given_up)

    def _zygote(self, python: str) -> Zygote:
        if python not in self._zygotes:
            raise Cold("there is no zygote for this interpreter")
        return self._zygotes[python]

    def keep(self, python: str, pid: int, seconds: float) -> None:
        """Let a kernel outlive the run, for so long at most."""
        self._zygotes[python].keep(pid, seconds)

    def close(self) -> None:
        """End all zygotes."""
        for close in self._closing:
            close()
        for item in self._zygotes.values():
            item.close()
        self._zygotes.clear()
