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

from nbtools.execution.kernels.processes import guarded
from nbtools.execution.kernels.warm import zygote
from nbtools.execution.kernels.warm.forked import ForkedKernel, ForkedProcess
from nbtools.execution.kernels.warm.forker import Cold, Forker, ForkJob

log = logging.getLogger(__name__)

_END_S = 5.0
#: What must hold while libraries are loaded: one thread, and no helpers of theirs in the background.
_QUIET = {
    **dict.fromkeys(zygote.THREAD_VARIABLES, "1"),
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
_UNLESS_SET = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    # Idle threads of OpenBLAS spin for 2 ** 26 cycles by default, which would slow down what runs beside them.
    "OPENBLAS_THREAD_TIMEOUT": "20",
}


class Zygote(Forker):
    """A process that has imported packages and nothing else, and its guardians."""

    def __init__(self, python: str, modules: Sequence[str], environment: Mapping[str, str]) -> None:
        self.modules = tuple(modules)
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # JPY_ variables tell a kernel whose it is; this process is nobody's, and its forks are told anew.
            own = {name: value for name, value in environment.items() if not name.startswith("JPY_")}
            self._guardian = subprocess.Popen(
                guarded([python, zygote.__file__, str(theirs.fileno()), *modules]),
                pass_fds=[theirs.fileno()],
                env={**_UNLESS_SET, **own, **_QUIET},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        assert self._guardian.stdin is not None
        self._to_guardian = self._guardian.stdin
        super().__init__(control, "the zygote")

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
                self._zygotes[python] = Zygote(python, modules, environment)
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
