"""The orchestrator's side of a process that forks kernels when asked."""

from __future__ import annotations

import array
import contextlib
import itertools
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any

from nbtools.execution.kernels.warm import wire
from nbtools.execution.kernels.warm.forked import ForkedKernel, ForkedProcess

log = logging.getLogger(__name__)

_LARGEST_EVENT = 1 << 17
_FORK_S = 60.0
_GIVING_UP_S = 0.2


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
    arguments
        Command line of a kernel that is reached over Jupyter's protocol; none for one that is driven directly.
    """

    needs: tuple[str, ...]
    environment: Mapping[str, str]
    cwd: str
    path: tuple[str, ...]
    to_be_forked: bool = False
    arguments: tuple[str, ...] = ()

    def first_message(self) -> dict[str, Any]:
        """Return what the fork is told of itself."""
        return {
            "mode": "kernel" if self.arguments else "shell",
            "arguments": list(self.arguments),
            "to_be_forked": self.to_be_forked,
            "environment": dict(self.environment),
            "cwd": self.cwd,
            "path": list(self.path),
            "processors": len(os.sched_getaffinity(0)),
        }


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
        """Return a kernel that is driven over a line, as soon as what it needs is imported.

        Parameters
        ----------
        given_up
            Whether nobody wants the kernel any more.

        Raises
        ------
        Cold
            If that cannot be, or not safely.
        """
        with contextlib.ExitStack() as handed, contextlib.ExitStack() as kept:
            line, its_line = socket.socketpair()
            kept.enter_context(line)
            handed.enter_context(its_line)
            out, its_out = _pipe(kept, handed)
            err, its_err = _pipe(kept, handed)
            given = [its_line.fileno(), its_out, its_err]
            asked = None
            if job.to_be_forked:
                asked, answers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                given.append(handed.enter_context(answers).fileno())
                kept.enter_context(asked)
            process = self._new_process(job, given, given_up)
            kept.pop_all()
        kernel = ForkedKernel(process, line, (out, err), asked, self.also_import)
        kernel.send(job.first_message())
        return kernel

    def start(
        self, job: ForkJob, stdout: int, stderr: int, given_up: Callable[[], bool] = bool
    ) -> ForkedProcess:
        """Return the process of a kernel that is reached over Jupyter's protocol, as its arguments say.

        Parameters
        ----------
        stdout, stderr
            Descriptors that it prints to.

        Raises
        ------
        Cold
            If that cannot be, or not safely.
        """
        mine, its = socket.socketpair()
        with mine:
            with its:
                process = self._new_process(job, [its.fileno(), stdout, stderr], given_up)
            with contextlib.suppress(OSError):  # it has ended: whoever waits for it will see that
                mine.sendall(wire.packed_message(job.first_message()))
        return process

    def is_idle(self) -> bool:
        """Tell whether no kernel that it forked runs, and none is asked for."""
        return not self._kernels

    def _new_process(
        self, job: ForkJob, descriptors: Sequence[int], given_up: Callable[[], bool]
    ) -> ForkedProcess:
        if self.unsafe:
            raise Cold(self.unsafe)
        number = next(self._numbers)
        forked: Future[tuple[int, int]] = Future()
        ended: Future[int | None] = Future()
        with self._changing:
            self._forks[number], self._kernels[number] = forked, ended
        try:
            request = {"id": number, "needs": job.needs, "direct": not job.arguments}
            self._ask(request, descriptors)
            pid, watched = self._forked(forked, given_up)
        except Cold:
            with self._changing:
                self._forks.pop(number, None)
                self._kernels.pop(number, None)
            raise
        return ForkedProcess(pid, watched, ended)

    def also_import(self, modules: Sequence[str]) -> None:
        """Have later forks begin with ``modules``, if that is the process's to decide; here it is not."""

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
        with self._changing:
            kernels, self._kernels = self._kernels, {}
        for ended in kernels.values():
            ended.set_result(None)
        self._control.close()


def _pipe(kept: contextlib.ExitStack, handed: contextlib.ExitStack) -> tuple[int, int]:
    """Return the ends of a pipe: what it is read by, and what is handed over."""
    ends = os.pipe()
    for stack, end in zip((kept, handed), ends, strict=True):
        stack.callback(os.close, end)
    return ends


def _deny(forked: Future[tuple[int, int]], why: str) -> None:
    """Tell whoever waits for a fork that there will be none; who has given up waiting is told nothing."""
    if forked.set_running_or_notify_cancel():
        forked.set_exception(Cold(why))
