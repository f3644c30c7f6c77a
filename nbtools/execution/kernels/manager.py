"""Kernels started by interpreter, never by whatever kernelspec of that name the machine happens to have."""

from __future__ import annotations

from pathlib import Path

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

from nbtools.execution.kernels import launch


class InterpreterKernelManager(AsyncKernelManager):
    """Starts ipykernel on a given Python."""

    python: str = ""

    @property
    def kernel_spec(self) -> KernelSpec | None:
        """The kernelspec of ``python``, or the machine's of that name if there is none."""
        if not self.python:
            return super().kernel_spec
        argv = [self.python, str(Path(launch.__file__)), "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="Python", language="python")
