"""Kernels started by interpreter, never by whatever kernelspec of that name the machine happens to have; guarded."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

from nbtools.execution.kernels import launch
from nbtools.execution.kernels.guarded import GUARDED
from nbtools.execution.kernels.warm.forked import ForkedProcess
from nbtools.execution.kernels.warm.forker import ForkJob
from nbtools.execution.kernels.warm.imports import PROVISIONER

#: Whoever sets it wants kernels to be started in a way of their own.
DEFAULT_PROVISIONER_VARIABLE = "JUPYTER_DEFAULT_PROVISIONER_NAME"


class InterpreterKernelManager(AsyncKernelManager):
    """Starts ipykernel on a given Python."""

    python: str = ""
    #: Forks the kernel, as ``Forker.start`` does; None if it is to be an ordinary one.
    start_warm: Callable[[ForkJob, int, int], ForkedProcess] | None = None

    @property
    def kernel_spec(self) -> KernelSpec | None:
        """The kernelspec of ``python``, or the machine's of that name if there is none."""
        if not self.python:
            found = super().kernel_spec
            if found is not None and DEFAULT_PROVISIONER_VARIABLE not in os.environ:
                found.metadata.setdefault("kernel_provisioner", {"provisioner_name": GUARDED})
            return found
        argv = [self.python, str(Path(launch.__file__)), "-f", "{connection_file}"]
        metadata = {"kernel_provisioner": {"provisioner_name": PROVISIONER if self.start_warm else GUARDED}}
        return KernelSpec(argv=argv, display_name="Python", language="python", metadata=metadata)
