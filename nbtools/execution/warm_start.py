"""How a stage's kernel is forked from the run's zygote, where that is possible."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat

from nbtools.execution.kernels.session import Session
from nbtools.execution.kernels.warm.forked import ForkedKernel, ForkedProcess
from nbtools.execution.kernels.warm.forker import ForkJob
from nbtools.execution.kernels.warm.nursery import Nursery
from nbtools.execution.kernels.warm.prefix import may_be_shared
from nbtools.execution.notebook import Executed
from nbtools.execution.outcome import Around
from nbtools.execution.surroundings import for_first_cells
from nbtools.pipeline.plan import Step


class WarmStart:
    """The forks of one attempt at a stage."""

    def __init__(self, step: Step, around: Around, cwd: Callable[[], Path]) -> None:
        self._variant = step.variant
        self._stage = step.variant.stage
        self._around = around
        self._cwd = cwd
        self._forked = False

    @property
    def is_possible(self) -> bool:
        """Whether there is a zygote for the stage's interpreter."""
        nursery, workspace = self._around.nursery, self._around.workspace
        if nursery is None or workspace.notebooks[self._stage.key].language != "python":
            return False
        return nursery.has(workspace.interpreter(self._stage).path)

    @property
    def is_direct(self) -> bool:
        """Whether the kernel is driven over a line, as it is unless the project asks for Jupyter's protocol."""
        # A kernel is kept as it is driven.
        return not self._around.workspace.spec.kernel_protocol or self._around.keeping is not None

    def direct(self, environment: Mapping[str, str]) -> Callable[[], ForkedKernel] | None:
        """Return what forks a kernel that is driven over a line."""
        if not (self.is_possible and self.is_direct):
            return None
        return lambda: self._fork(self._job(environment))

    def over_protocol(self) -> Callable[[ForkJob, int, int], ForkedProcess] | None:
        """Return what forks a kernel that is driven over Jupyter's protocol."""
        if not self.is_possible or self.is_direct:
            return None
        needs = self._around.workspace.warm_imports(self._stage)

        def start(job: ForkJob, stdout: int, stderr: int) -> ForkedProcess:
            nursery = self._begin()
            return nursery.start(self._python, replace(job, needs=needs), stdout, stderr, self._given_up)

        return start

    def branch(self, text: str, environment: Mapping[str, str]) -> Callable[[Session, Any], Any] | None:
        """Return what takes over the cells that all variants share, if there are such cells."""
        if (
            not (self.is_possible and self.is_direct)
            or not (self._stage.drawn or len(self._stage.points) > 1)
            or self._around.keeping is not None  # a kept kernel belongs to the zygote alone
            or not self._stage.share_prefix
            or not may_be_shared(nbformat.reads(text, as_version=4))
        ):
            return None
        prefix = self._around.prefix_of(self._stage.key)
        job = self._job(environment)
        shared = for_first_cells(environment, self._variant, self._around.workspace)
        first = replace(self._job(shared), to_be_forked=True)
        return lambda session, progress: prefix.fork(progress, session, job, lambda: self._fork(first))

    def blamed(self, executed: Executed) -> Executed:
        """Tell a kernel that died because nbtools' own process did from one that died by itself."""
        failure, nursery = executed.failure, self._around.nursery
        if failure is None or failure.kind != "kernel died" or not self._forked or nursery is None:
            return executed
        prefix = self._around.prefixes.get(self._stage.key)
        if not (nursery.has_lost(self._python) or (prefix is not None and prefix.lost)):
            return executed
        message = "the process that this kernel was forked from has ended, and the kernel with it"
        return replace(executed, failure=replace(failure, kind="zygote died", message=message))

    @property
    def _python(self) -> str:
        return self._around.workspace.interpreter(self._stage).path

    @property
    def _given_up(self) -> Callable[[], bool]:
        return self._around.cancellation.flag.is_set

    def _begin(self) -> Nursery:
        assert self._around.nursery is not None
        self._forked = True
        return self._around.nursery

    def _fork(self, job: ForkJob) -> ForkedKernel:
        return self._begin().fork(self._python, job, self._given_up)

    def _job(self, environment: Mapping[str, str]) -> ForkJob:
        return ForkJob(
            needs=self._around.workspace.warm_imports(self._stage),
            environment=environment,
            cwd=str(self._cwd()),
            path=tuple(filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))),
        )
