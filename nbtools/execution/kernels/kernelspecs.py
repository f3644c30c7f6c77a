"""Kernels of other languages than Python are found by name among those the machine has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from jupyter_client.kernelspec import KernelSpecManager

from nbtools.errors import Problem, SpecError, suggest
from nbtools.pipeline.notebook import NotebookFacts
from nbtools.pipeline.spec import Stage


def check(stages: Iterable[Stage], notebooks: Mapping[str, NotebookFacts]) -> None:
    """Check that the kernel of every notebook that is not Python is installed.

    Raises
    ------
    SpecError
        With all that are not.
    """
    installed = KernelSpecManager().find_kernel_specs()
    problems = [
        Problem(
            f"{stage.notebook} needs the kernel {facts.kernel!r}, which is not installed",
            str(stage.location),
            f"stage {stage.key}",
            f"install it, or choose another kernel in Jupyter; {suggest(facts.kernel, installed, 'kernel')}",
        )
        for stage in stages
        if (facts := notebooks[stage.key]).language != "python" and facts.kernel not in installed
    ]
    if problems:
        raise SpecError(*problems)
