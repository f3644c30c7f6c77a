"""Kernels that outlive their run because a cell failed: somebody wants to look at their variables, or to go on.

Each has a record in ``.nbtools/kept``; it is believed only while its process lives.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from nbtools.execution.files import write_atomically
from nbtools.execution.kernel_watch import held_bytes
from nbtools.execution.kernels.processes import send_signal
from nbtools.execution.placing import file_name
from nbtools.project import Project

#: A process is the one that was kept if it began when that one did; clocks of the kernel's are this exact.
_SAME_START_S = 1.0
_PREFIX = "nbtools-kept-"
_FORK_S = 20


@dataclass(frozen=True, slots=True)
class KeptKernel:
    """A kernel as a failing cell left it.

    Parameters
    ----------
    started_at
        When its process began: another process may have its number by now.
    connection_file
        For ``jupyter console --existing`` and JupyterLab.
    folder
        The attempt's private folder, relative to the project; its outputs lie there.
    cell
        Number of the code cell in the source notebook that failed last; 0 if it cannot be gone on with.
    cells_before
        Digests of the code cells that have been run in the state to go on with.
    ingredients
        What the attempt's result would have depended on, as a record.
    metrics
        What the cells before had logged.
    overrides
        Params that had been given for the run.
    before_pid, before_started_at
        Of a process with the state from before the cell that failed first; it forks a kernel for each time that
        somebody goes on there. 0 if there is none.
    resumed_pid, resumed_started_at, resumed_file
        Of the last of those kernels: it is the one to look into now.
    until
        When the kernel ends by itself, in seconds since the epoch.
    """

    stage: str
    run: str
    pid: int
    started_at: float
    connection_file: str
    folder: str
    notebook: str
    cell: int
    cells_before: tuple[str, ...]
    ingredients: Mapping[str, Any]
    since: float
    until: float
    before_pid: int = 0
    before_started_at: float = 0.0
    resumed_pid: int = 0
    resumed_started_at: float = 0.0
    resumed_file: str = ""
    tracking_run: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def first(self) -> int:
        """Number of the code cell to go on with."""
        return len(self.cells_before) + 1

    @property
    def is_spoilt(self) -> bool:
        """Whether the state from before the failed cell was kept and is gone."""
        return bool(self.before_pid) and not _is(self.before_pid, self.before_started_at)

    def held_bytes(self) -> int:
        """Return the memory that it holds, with those from before the cell, which it has forked."""
        return held_bytes(self.pid)

    def to_look_into(self) -> tuple[int, str]:
        """Return process id and connection file of the kernel as the failing cell left it."""
        if self.resumed_pid and _is(self.resumed_pid, self.resumed_started_at):
            return self.resumed_pid, self.resumed_file
        return self.pid, self.connection_file

    def to_resume(self) -> KeptKernel:
        """Return it with a new kernel to go on with, unspoilt by the failed cell, if that state was kept.

        Raises
        ------
        OSError
            If none comes.
        """
        if not self.before_pid:
            return self
        folder = Path(self.connection_file).parent
        file = folder / f"resumed-{len(list(folder.glob('resumed-*.json'))) + 1}.json"
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(_FORK_S)
            asking.connect(str(folder / "before"))
            asking.sendall(str(file).encode())
            if not (answer := asking.recv(64)):
                raise ConnectionError(
                    errno.ECONNRESET, "the process with the state from before the cell gave none"
                )
            pid = int(answer)
        return replace(self, resumed_pid=pid, resumed_started_at=start_of(pid), resumed_file=str(file))


def connection_file() -> Path:
    """Return where a kernel that is to be kept writes how it is reached: in a folder that only its owner may enter."""
    return Path(tempfile.mkdtemp(prefix=_PREFIX)) / "kernel.json"


def start_of(pid: int) -> float:
    """Return when a process began; 0 if there is none."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0


def record(project: Project, kernel: KeptKernel) -> None:
    """Note that a kernel is kept."""
    write_atomically(_path(project, kernel.stage), json.dumps(asdict(kernel)).encode(), durable=False)


def kept_kernels(project: Project) -> list[KeptKernel]:
    """Return the kernels that are kept and alive, the oldest first."""
    found = [kernel for path in (project.state / "kept").glob("*.json") if (kernel := _read(path))]
    return sorted((kernel for kernel in found if _lives(kernel)), key=lambda kernel: kernel.since)


def forget_ended(project: Project) -> None:
    """Remove what kept kernels that have ended left behind; nobody may be running."""
    for path in (project.state / "kept").glob("*.json"):
        kernel = _read(path)
        if kernel is not None and _lives(kernel):
            continue
        with suppress(OSError):  # a project that cannot be written to
            path.unlink(missing_ok=True)
        if kernel is not None:
            _remove_files(project, kernel)
            run = (project.root / kernel.folder).parent
            if _is_private(project, kernel) and not any(item.is_dir() for item in run.glob("*")):
                shutil.rmtree(run, ignore_errors=True)


def end(project: Project, kernel: KeptKernel) -> None:
    """End a kept kernel and everything that it started."""
    if _lives(kernel):
        for pid, started_at in (
            (kernel.before_pid, kernel.before_started_at),
            (kernel.resumed_pid, kernel.resumed_started_at),
            (kernel.pid, kernel.started_at),
        ):
            if pid and _is(pid, started_at):
                send_signal(pid, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while _lives(kernel) and time.monotonic() < deadline:
            time.sleep(0.02)
    _path(project, kernel.stage).unlink(missing_ok=True)
    _remove_files(project, kernel)


def end_of(project: Project, stage: str) -> None:
    """End the kept kernel of ``stage``, if there is one."""
    for kernel in kept_kernels(project):
        if kernel.stage == stage:
            end(project, kernel)


def keep(project: Project, kernel: KeptKernel, most: int) -> None:
    """Note that a kernel is kept, and end the oldest of the others until there are no more than ``most``."""
    others = [other for other in kept_kernels(project) if other.stage != kernel.stage]
    for other in others[: max(0, len(others) - most + 1)]:
        end(project, other)
    record(project, kernel)


def _path(project: Project, stage: str) -> Path:
    return project.state / "kept" / f"{file_name(stage)}.json"


def _read(path: Path) -> KeptKernel | None:
    try:
        found = json.loads(path.read_bytes())
        return KeptKernel(**{**found, "cells_before": tuple(found["cells_before"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _lives(kernel: KeptKernel) -> bool:
    return _is(kernel.pid, kernel.started_at)


def _is(pid: int, started_at: float) -> bool:
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        same = abs(process.create_time() - started_at) < _SAME_START_S
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _remove_files(project: Project, kernel: KeptKernel) -> None:
    place, folder = Path(kernel.connection_file).parent, project.root / kernel.folder
    if place.name.startswith(_PREFIX):
        shutil.rmtree(place, ignore_errors=True)
    if _is_private(project, kernel):
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            os.rmdir(folder.parent)


def _is_private(project: Project, kernel: KeptKernel) -> bool:
    """Tell whether the folder is one of an attempt: a damaged record must not have anything else removed."""
    folder = project.root / kernel.folder
    return folder.parent.parent == project.attempts and ".." not in folder.parts
