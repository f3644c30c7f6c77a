"""What one execution of a notebook needs beside the notebook, and what was seen of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event as Flag
from typing import IO, Any

from nbtools.execution.kernels.output import Spill
from nbtools.execution.masking import NO_SECRETS, Masking


@dataclass(slots=True)
class Verdict:
    """How an execution ended, as seen by whoever drove the kernel.

    Parameters
    ----------
    kind
        Empty while nothing is wrong; else as ``Failure.kind``.
    cell
        Number of the guilty code cell in the source notebook, from 1; 0 if none is.
    code
        What ``sys.exit`` was given, as a text; empty if nothing was, or the kernel was ended otherwise.
    """

    complete: bool = False
    kind: str = ""
    message: str = ""
    cell: int = 0
    execution_count: int | None = None
    code: str = ""
    traceback: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Keeping:
    """How a kernel whose cell failed is kept.

    Parameters
    ----------
    connection_file
        Returns where it writes how it is reached.
    kept
        Told of its process id, that file, and the id of a process that has the state from before the cell (0 if
        there is none); forks of it are asked for at the socket ``before``. Raises ``Cold`` if it cannot be kept.
    """

    connection_file: Callable[[], Path]
    kept: Callable[[int, Path, int], None]


@dataclass(slots=True)
class Session:
    """What one execution needs beside the notebook, and what it reports.

    Parameters
    ----------
    python
        Interpreter of the kernel; empty to start the kernelspec that the notebook names.
    source
        Path of the source notebook, for the record.
    cwd
        Working directory of the kernel.
    environment
        Environment of the kernel, complete.
    save_to
        Where the notebook is saved while it runs.
    masking
        Applied to the notebook's text before it is saved, and to what is cut before that.
    deadline
        On the monotonic clock; None means no limit.
    timeout_s, cell_timeout_s
        Budgets of the notebook, which led to the deadline, and of each cell; None means no limit.
    cancelled
        Set when nothing more should be run.
    fork
        Returns a forked kernel, or raises ``Cold``; None where only an ordinary kernel will do.
    start
        Starts the process of a forked kernel that is driven over Jupyter's protocol, as ``Forker.start`` does;
        None if there is to be none.
    branch
        Given papermill's record, returns a client whose first cells have been run already, or raises ``Cold``;
        None where nobody shares them.
    late
        Returns variables of the environment that a forked kernel asks for when it needs them.
    on_kernel
        Called with a ``RunningKernel`` once there is one.
    off_kernel
        Called with it if it is driven no longer before the execution ends.
    on_cell
        Called with the number of a code cell in the source notebook (0 for the injected one), and
        None when it starts or its seconds when it is done.
    on_complete
        Called with the notebook when all its cells have passed, before it is saved for the last time.
    spill
        Returns what takes the whole text of a cell (by number) that prints more than its notebook keeps.
    keep
        How the kernel of a failed cell is kept; None ends it.
    text
        The executed notebook once it is done, secrets masked.
    """

    python: str = ""
    source: str = ""
    cwd: str = ""
    environment: Mapping[str, str] | None = None
    save_to: Path | None = None
    masking: Masking = NO_SECRETS
    deadline: float | None = None
    timeout_s: float | None = None
    cell_timeout_s: float | None = None
    cancelled: Flag = field(default_factory=Flag)
    log: IO[bytes] | None = None
    fork: Callable[[], Any] | None = None
    start: Callable[..., Any] | None = None
    branch: Callable[[Any], Any] | None = None
    late: Callable[[], Mapping[str, str]] = dict
    spill: Callable[[int], Spill] | None = None
    keep: Keeping | None = None
    on_kernel: Callable[[Any], None] = lambda _: None
    off_kernel: Callable[[Any], None] = lambda _: None
    on_cell: Callable[[int, float | None], None] = lambda _index, _seconds: None
    on_complete: Callable[[Any], None] = lambda _: None
    verdict: Verdict = field(default_factory=Verdict)
    text: str = ""

    def cell_deadline(self, now: float) -> float | None:
        """Return until when a cell that starts ``now`` may run; all on the monotonic clock."""
        limits = [] if self.cell_timeout_s is None else [now + self.cell_timeout_s]
        limits += [] if self.deadline is None else [self.deadline]
        return min(limits, default=None)

    def lateness(self, now: float) -> str:
        """Return which budget was used up ``now``, in words."""
        if self.deadline is None or now < self.deadline:
            return f"the cell took longer than its {self.cell_timeout_s or 0:g} s"
        return f"the stage took longer than its {self.timeout_s or 0:g} s"
