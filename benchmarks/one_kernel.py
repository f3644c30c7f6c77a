"""What a kernel takes, measured from inside: ``python -m benchmarks.one_kernel first-reply|memory warm|ordinary …``.

``first-reply`` prints the seconds from asking for a kernel to the reply of its first cell, which imports the modules
that are named. ``memory`` prints the MiB a kernel of several that hold those modules at the same time.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from jupyter_client.manager import start_new_kernel

from nbtools.execution.kernels.warm import wire
from nbtools.execution.kernels.warm.forked import ForkedKernel
from nbtools.execution.kernels.warm.forker import ForkJob
from nbtools.execution.kernels.warm.nursery import Nursery

_PATIENCE_S = 120


class WarmKernels:
    """Kernels forked from a zygote that has imported what they need, as in a run of nbtools."""

    def __init__(self, modules: Sequence[str]) -> None:
        environment = dict(os.environ)
        self._job = ForkJob(tuple(modules), environment, os.getcwd(), ())
        self._cell = _importing(modules)
        self._nursery = Nursery()
        self._nursery.prepare(sys.executable, modules, environment)
        self._kernels: list[ForkedKernel] = []
        self.start()  # returns when everything is imported, which a run does once
        self.stop()

    def start(self) -> None:
        """Start a kernel and run its first cell."""
        kernel = self._nursery.fork(sys.executable, self._job)
        self._kernels.append(kernel)
        kernel.send({"do": "execute", "id": "1", "code": self._cell, "cell": ""})
        for frame in kernel.frames(time.monotonic() + _PATIENCE_S):
            if frame and frame[0] == wire.MESSAGE:
                message, _ = wire.unpacked_message(frame[1])
                if message["msg_type"] == "execute_reply":
                    _check(message["content"])
                    return
        raise SystemExit("the kernel has ended")

    def stop(self) -> None:
        """End all kernels."""
        for kernel in self._kernels:
            kernel.stop(at_once=True)
            kernel.close()
        self._kernels.clear()

    def close(self) -> None:
        """End everything."""
        self.stop()
        self._nursery.close()


class OrdinaryKernels:
    """Kernels that jupyter_client starts."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._cell = _importing(modules)
        self._kernels: list[tuple[Any, Any]] = []

    def start(self) -> None:
        """Start a kernel and run its first cell."""
        manager, client = start_new_kernel(startup_timeout=_PATIENCE_S)
        self._kernels.append((manager, client))
        _check(client.execute(self._cell, reply=True, timeout=_PATIENCE_S)["content"])

    def close(self) -> None:
        """End everything."""
        for manager, client in self._kernels:
            client.stop_channels()
            manager.shutdown_kernel(now=True)


def _importing(modules: Sequence[str]) -> str:
    return "\n".join(f"import {name}" for name in modules)


def _check(reply: Any) -> None:
    if reply["status"] != "ok":
        raise SystemExit(f"the first cell failed: {reply}")


def first_reply(kernels: WarmKernels | OrdinaryKernels) -> float:
    """Return how many seconds a kernel takes to its first reply."""
    started = time.perf_counter()
    kernels.start()
    return time.perf_counter() - started


def memory(kernels: WarmKernels | OrdinaryKernels, count: int) -> float:
    """Return the MiB of a kernel, one of ``count``: all that they take, and what they are forked from, shared out."""
    for _ in range(count):
        kernels.start()
    children = psutil.Process().children(recursive=True)
    return sum(_proportional_bytes(child.pid) for child in children) / count / 2**20


def _proportional_bytes(pid: int) -> int:
    """Return a process's memory; what it shares with others counts in proportion."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def main() -> None:
    """Measure what the command line says and print it."""
    parser = argparse.ArgumentParser("python -m benchmarks.one_kernel")
    parser.add_argument("what", choices=["first-reply", "memory"])
    parser.add_argument("kind", choices=["warm", "ordinary"])
    parser.add_argument("modules", nargs="+")
    parser.add_argument("--count", type=int, default=1)
    options = parser.parse_args()
    kinds: dict[str, Callable[[Sequence[str]], WarmKernels | OrdinaryKernels]]
    kinds = {"warm": WarmKernels, "ordinary": OrdinaryKernels}
    kernels = kinds[options.kind](options.modules)
    try:
        found = first_reply(kernels) if options.what == "first-reply" else memory(kernels, options.count)
    finally:
        kernels.close()
    print(found)


if __name__ == "__main__":
    main()
