"""Kernels started by interpreter, never by whatever kernelspec of that name the machine happens to have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

from nbtools.execution.kernels import launch
from nbtools.execution.kernels.warm.forked import ForkedProcess
from nbtools.execution.kernels.warm.forker import ForkJob
from nbtools.execution.kernels.warm.imports import PROVISIONER


class InterpreterKernelManager(AsyncKernelManager):
    """Starts ipykernel on a given Python."""

    python: str = ""
    #: Forks the kernel, as ``Forker.start`` does; None if it is to be an ordinary one.
    start_warm: Callable[[ForkJob, int, int], ForkedProcess] | None = None

    @property
    def kernel_spec(self) -> KernelSpec | None:
        """The kernelspec of ``python``, or the machine's of that name if there is none."""
        if not self.python:
            return super().kernel_spec
        argv = [self.python, str(Path(launch.__file__)), "-f", "{connection_file}"]
        metadata = {"kernel_provisioner": {"provisioner_name": PROVISIONER}} if self.start_warm else {}
        return KernelSpec(argv=argv, display_name="Python", language="python", metadata=metadata)
