"""The orchestrator's side of warm kernels: zygotes by interpreter, and the kernels forked from them."""

from __future__ import annotations

import array
import contextlib
import itertools
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any

from nbtools.execution.kernels.processes import send_signal
from nbtools.execution.kernels.warm import wire, zygote
from nbtools.execution.kernels.warm.pipes import Pipes, read

log = logging.getLogger(__name__)

_LARGEST_EVENT = 1 << 17
_FORK_S = 60.0
_GIVING_UP_S = 0.2
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


class Cold(Exception):
    """No kernel can be forked; an ordinary one must do. ``args[0]`` says why."""


@dataclass(frozen=True, slots=True)
class ForkJob:
    """What a forked kernel begins with.

    Parameters
    ----------
    needs
        Modules that must be there before the fork.
    environment
        Complete; the zygote's own is forgotten.
    path
        Folders that come first in ``sys.path``.
    to_be_forked
        Whether kernels will be forked from this one in turn.
    """

    needs: tuple[str, ...]
    environment: Mapping[str, str]
    cwd: str
    path: tuple[str, ...]
    to_be_forked: bool = False

    def first_message(self) -> dict[str, Any]:
        """Return what the fork is told of itself."""
        return {
            "mode": "shell",
            "environment": dict(self.environment),
            "cwd": self.cwd,
            "path": list(self.path),
            "processors": len(os.sched_getaffinity(0)),
        }


class ForkedKernel:
    """A kernel that was forked, and the line to it.

    Parameters
    ----------
    connection
        The stream of frames.
    outputs
        Descriptors of pipes: what programs that a cell started write to stdout and stderr.
    watched
        A descriptor that is readable once the process has ended.
    control
        Where forks of this kernel are asked for, if it may be forked.
    """

    def __init__(
        self,
        pid: int,
        connection: socket.socket,
        outputs: tuple[int, int],
        watched: int,
        control: socket.socket | None = None,
    ) -> None:
        self.pid = pid
        self.control = control
        self.connection = connection
        self.outputs = outputs
        self._pipes = Pipes(dict(zip((wire.STDOUT, wire.STDERR), outputs, strict=True)))
        self.ended: Future[int | None] = Future()
        self._watched = watched
        self._frames = wire.Frames()
        self._arrivals: deque[tuple[bytes, bytes]] = deque()  # a reader may leave before it has taken all
        self._over = False
        self._closed = False
        self._closing = threading.Lock()  # others look whether it runs
        self._poll = select.poll()
        for descriptor in (connection.fileno(), *outputs, watched):
            os.set_blocking(descriptor, False)
            self._poll.register(descriptor, select.POLLIN)

    def running(self) -> int | None:
        """Return the process id; None if the process has ended."""
        with self._closing:
            if self._closed or select.select([self._watched], [], [], 0)[0]:
                return None
            return self.pid

    def exit_code(self) -> int | None:
        """Return how the process ended; None if it runs or nobody knows."""
        if self.running():
            return None
        try:
            return self.ended.result(_END_S)
        except FutureTimeout:
            return None

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
            self._over = self._watched in ready
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

    def stop(self, *, at_once: bool) -> None:
        """End the process: let it run what is registered for its end, or kill it with all it started."""
        if not at_once:
            self.send({"do": "stop"})
            with contextlib.suppress(TimeoutError):
                for _ in self.frames(time.monotonic() + _END_S):
                    pass  # what it says at its end belongs to no cell
        if self.running():
            send_signal(self.pid, signal.SIGKILL)
            select.select([self._watched], [], [], _END_S)

    def close(self) -> None:
        """Give back what the kernel held here."""
        with self._closing:
            self._closed = True
            self.connection.close()
            for descriptor in (*self.outputs, self._watched):
                os.close(descriptor)


class Forker:
    """A process that forks kernels when asked, as seen from here.

    Parameters
    ----------
    control
        The socket over which it is asked, and tells.
    name
        What messages call it.
    """

    def __init__(self, control: socket.socket, name: str) -> None:
        self.unsafe = ""
        self.lost = False
        self.keeps = False
        self._name = name
        self._control = control
        self._forks: dict[int, Future[tuple[int, int]]] = {}
        self._kernels: dict[int, Future[int | None]] = {}
        self._numbers = itertools.count(1)
        self._changing = threading.Lock()
        threading.Thread(target=self._listen, name=name, daemon=True).start()

    def fork(self, job: ForkJob, given_up: Callable[[], bool] = bool) -> ForkedKernel:
        """Return a kernel as soon as what it needs is imported.

        Parameters
        ----------
        given_up
            Whether nobody wants the kernel any more.

        Raises
        ------
        Cold
            If that cannot be, or not safely.
        """
        if self.unsafe:
            raise Cold(self.unsafe)
        number = next(self._numbers)
        forked: Future[tuple[int, int]] = Future()
        ended: Future[int | None] = Future()
        with self._changing:
            self._forks[number], self._kernels[number] = forked, ended
        mine, theirs = socket.socketpair()
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        asked, answered = (
            socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) if job.to_be_forked else (None, None)
        )
        handed = [theirs.fileno(), out_end, err_end, *([answered.fileno()] if answered else [])]
        try:
            with theirs:
                self._ask({"id": number, "needs": job.needs}, handed)
            pid, watched = self._forked(forked, given_up)
        except Cold:
            mine.close()
            os.close(out)
            os.close(err)
            if asked:
                asked.close()
            raise
        finally:
            os.close(out_end)
            os.close(err_end)
            if answered:
                answered.close()
        kernel = ForkedKernel(pid, mine, (out, err), watched, asked)
        kernel.ended = ended
        kernel.send(job.first_message())
        return kernel

    def keep(self, pid: int, seconds: float) -> None:
        """Let a kernel outlive this process, for so long at most.

        Raises
        ------
        Cold
            If the process that forked it has ended.
        """
        self.keeps = True
        self._ask({"keep": pid, "seconds": seconds}, ())

    def _forked(self, forked: Future[tuple[int, int]], given_up: Callable[[], bool]) -> tuple[int, int]:
        deadline = time.monotonic() + _FORK_S
        while time.monotonic() < deadline and not given_up():
            with contextlib.suppress(FutureTimeout):
                return forked.result(_GIVING_UP_S)
        if forked.cancel():
            raise Cold(f"{self._name} does not answer")
        return forked.result()  # at the last moment

    def _ask(self, request: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        rights = (
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        )
        try:
            self._control.sendmsg([json.dumps(request).encode()], rights)
        except OSError as error:
            raise Cold(f"{self._name} has ended") from error

    def _listen(self) -> None:
        """Take in what the process tells, until it has ended; runs in a thread of its own."""
        descriptors = array.array("i")
        while True:
            try:
                room = socket.CMSG_SPACE(descriptors.itemsize)
                data, extra, _, _ = self._control.recvmsg(_LARGEST_EVENT, room)
            except OSError:
                data = b""
            if not data:
                break
            received = array.array("i")
            for _, _, payload in extra:
                received.frombytes(payload)
            self._take(json.loads(data), list(received))
        self._lost()

    def _take(self, event: Mapping[str, Any], descriptors: list[int]) -> None:
        match event["event"]:
            case "imported":
                log.debug("imported %s in %.2f s", event["module"], event["s"])
                if event["threads"] > 1 and not self.unsafe:
                    self.unsafe = f"importing {event['module']} starts threads"
                    self._refuse(self.unsafe)
            case "forked":
                forked = self._forks.pop(event["id"], None)
                if forked is None or not forked.set_running_or_notify_cancel():
                    os.close(descriptors[0])
                else:
                    forked.set_result((event["pid"], descriptors[0]))
            case "refused":
                if forked := self._forks.pop(event["id"], None):
                    _deny(forked, event["why"])
            case "exited":
                if ended := self._kernels.pop(event["id"], None):
                    ended.set_result(event["code"])

    def _refuse(self, why: str) -> None:
        with self._changing:
            forks, self._forks = self._forks, {}
        for forked in forks.values():
            _deny(forked, why)

    def _lost(self) -> None:
        self.lost = True
        self.unsafe = self.unsafe or f"{self._name} has ended"
        self._refuse(self.unsafe)
        for ended in self._kernels.values():
            ended.set_result(None)
        self._control.close()


class Zygote(Forker):
    """A process that has imported packages and nothing else."""

    def __init__(self, python: str, modules: Sequence[str], environment: Mapping[str, str]) -> None:
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [python, zygote.__file__, str(theirs.fileno()), str(os.getpid()), *modules]
            self._process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                env={**_UNLESS_SET, **environment, **_QUIET},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        super().__init__(control, "the zygote")

    def close(self) -> None:
        """End the process, and with it every kernel that still runs."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        if self.keeps:
            return
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


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
        if python not in self._zygotes:
            raise Cold("there is no zygote for this interpreter")
        return self._zygotes[python].fork(job, given_up)

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


def _deny(forked: Future[tuple[int, int]], why: str) -> None:
    """Tell whoever waits for a fork that there will be none; who has given up waiting is told nothing."""
    if forked.set_running_or_notify_cancel():
        forked.set_exception(Cold(why))
