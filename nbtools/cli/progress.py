"""Readers of a run's events that tell whoever started it how it goes.

Each is called with one event after the other, from several threads, and closed at the end. None
raises into the run: when nobody reads any more, it falls silent.
"""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TextIO

from nbtools.cli import text
from nbtools.execution.events import (
    CellFinished,
    CellStarted,
    Event,
    Failure,
    RunFinished,
    RunStarted,
    StageDrawn,
    StageFailed,
    StageFinished,
    StagePruned,
    StageRetried,
    StageReused,
    StageSkipped,
    StageStarted,
    encode,
)

#: Reused or skipped stages up to this number have a line each; more are only counted.
LINES = 20
#: This many failures are shown in full; more have a line each.
FULL_FAILURES = 10
#: What can become of a stage, in the order in which the last line counts it.
_ENDINGS = ("failed", "cancelled", "run", "pruned", "restored", "skipped", "up to date")


class Progress(Protocol):
    """A listener that shows a run and gives the stream back when it is closed."""

    def __call__(self, event: Event) -> None:
        """Show what ``event`` changes."""

    def close(self) -> None:
        """Give the terminal back; nothing is shown afterwards."""


def progress_for(
    stream: TextIO,
    *,
    json: bool = False,
    quiet: bool = False,
    terminal: bool | None = None,
) -> Progress:
    """Return the listener that suits ``stream``.

    Parameters
    ----------
    json, quiet
        What the user asked for: events for machines, or failures and the last line only.
    terminal
        Whether ``stream`` is a terminal; None asks it. A dumb one gets plain lines.
    """
    if json:
        return JsonProgress(stream)
    if terminal is None:
        terminal = stream.isatty()
    able = terminal and os.environ.get("TERM") not in {"dumb", "unknown"}
    color = able and not os.environ.get("NO_COLOR")
    if quiet:
        return QuietProgress(stream, color=color)
    if not able:
        return LineProgress(stream)
    # rich costs 70 ms to import, which only people who watch should pay.
    from nbtools.cli.live import LiveProgress

    return LiveProgress(stream, color=color)


class SafeStream:
    """A stream that carries every text and never raises; after an error it is silent."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._broken = False

    @property
    def encoding(self) -> str:
        """The encoding of the stream underneath."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, string: str) -> int:
        """Write ``string`` with symbols that the encoding lacks replaced; return its length."""
        if not self._broken:
            try:
                self._stream.write(text.encodable(string, self.encoding))
            except (OSError, ValueError):  # a broken pipe, a full disk, or closed by its owner
                self._broken = True
        return len(string)

    def flush(self) -> None:
        """Pass on what was written."""
        if not self._broken:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._broken = True

    def isatty(self) -> bool:
        """Whether the stream underneath is a terminal."""
        return not self._broken and self._stream.isatty()

    def fileno(self) -> int:
        """Return the file descriptor underneath, from which a terminal's size is read."""
        return self._stream.fileno()

    def line(self, string: str) -> None:
        """Write ``string`` and a line end, at once."""
        self.write(f"{string}\n")
        self.flush()


class JsonProgress:
    """One JSON object per event per line, and nothing else."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = SafeStream(stream)
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Write ``event``."""
        line = json.dumps(_finite(encode(event)), default=str)
        with self._lock:
            self._stream.line(line)

    def close(self) -> None:
        """Do nothing: every line was passed on when it was written."""


class LineProgress:
    """A line for each stage that ended, and a last one for the run: for logs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = SafeStream(stream)
        self._board = Board()
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Write what ``event`` brings to an end."""
        with self._lock:
            self._board = self._board.after(event)
            if said := told(event, self._board):
                self._stream.line(said)

    def close(self) -> None:
        """Do nothing: every line was passed on when it was written."""


class QuietProgress:
    """Failures and the last line only."""

    def __init__(self, stream: TextIO, *, color: bool = False) -> None:
        self._stream = SafeStream(stream)
        self._color = color
        self._board = Board()
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Write ``event`` if it is a failure or the end."""
        with self._lock:
            self._board = self._board.after(event)
            if isinstance(event, StageFailed | RunFinished):
                self._stream.line(told(event, self._board, color=self._color))

    def close(self) -> None:
        """Do nothing: every line was passed on when it was written."""


@dataclass(frozen=True, slots=True)
class Running:
    """A stage at work: ``cell`` of ``cells`` is running, ``done`` have been."""

    stage: str
    since: float
    cells: int
    cell: int = 0
    done: int = 0
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Board:
    """What is shown of a run: the fold of its events.

    Parameters
    ----------
    planned
        Number of steps; ``to_run`` of them were planned to run.
    idle
        True if the plan found everything up to date.
    notebooks
        Each stage's notebook.
    name_width
        Columns of the longest stage name, within reason.
    ended
        How many steps were ``run``, ``failed``, and so on.
    """

    project: str = ""
    planned: int = 0
    to_run: int = 0
    idle: bool = False
    notebooks: Mapping[str, str] = field(default_factory=dict)
    name_width: int = 0
    running: tuple[Running, ...] = ()
    ended: Mapping[str, int] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        """How many steps have not begun."""
        return max(self.planned - sum(self.ended.values()) - len(self.running), 0)

    def after(self, event: Event) -> Board:
        """Return the board once ``event`` has happened."""
        match event:
            case RunStarted():
                return _begun(event)
            case StageStarted():
                stage = Running(event.stage, event.at, event.cells, attempt=event.attempt)
                return replace(self, running=(*self.running_but(event.stage), stage))
            case CellStarted() | CellFinished():
                return replace(self, running=tuple(_stepped(item, event) for item in self.running))
            case StageDrawn():
                return _drawn(self, event)
            case StageFinished() | StageFailed() | StagePruned() | StageSkipped() | StageReused():
                how = _ending(event)
                ended = {**self.ended, how: self.ended.get(how, 0) + 1}
                return replace(self, running=self.running_but(event.stage), ended=ended)
            case _:
                return self

    def running_but(self, stage: str) -> tuple[Running, ...]:
        """Return the stages at work other than ``stage``."""
        return tuple(item for item in self.running if item.stage != stage)


def _ending(event: StageFinished | StageFailed | StagePruned | StageSkipped | StageReused) -> str:
    """Return what became of a stage, as the last line counts it."""
    match event:
        case StageFinished():
            return "run"
        case StageFailed():
            return "cancelled" if event.failure.kind == "cancelled" else "failed"
        case StagePruned():
            return "pruned"
        case StageSkipped():
            return "skipped"
        case StageReused():
            return "restored" if event.how == "restored" else "up to date"


def _begun(event: RunStarted) -> Board:
    widths = [text.display_width(text.plain(step.stage)) for step in event.steps]
    return Board(
        project=event.project,
        planned=len(event.steps),
        to_run=sum(step.action == "run" for step in event.steps),
        idle=all(step.action in ("up to date", "skipped") for step in event.steps),
        notebooks={step.stage: step.notebook for step in event.steps},
        name_width=min(max(widths, default=0), 48),
    )


def _drawn(board: Board, event: StageDrawn) -> Board:
    width = min(text.display_width(text.plain(event.stage)), 48)
    return replace(
        board,
        planned=board.planned + 1,
        to_run=board.to_run + 1,
        idle=False,
        notebooks={**board.notebooks, event.stage: event.notebook},
        name_width=max(board.name_width, width),
    )


def _stepped(item: Running, event: CellStarted | CellFinished) -> Running:
    if item.stage != event.stage:
        return item
    if isinstance(event, CellStarted):
        return replace(item, cell=event.cell)
    return replace(item, cell=event.cell, done=item.done + 1)


def told(event: Event, board: Board, *, color: bool = False) -> str:  # noqa: PLR0911 - a table of events
    """Return what lasts of ``event`` on the screen, or an empty string; ``board`` knows it already."""
    match event:
        case StageFinished():
            return stage_line("passed", event.stage, text.duration(event.duration_s), board)
        case StageReused() if _worth_lines(board, board.planned - board.to_run, "restored", "up to date"):
            return stage_line(event.how, event.stage, event.how, board)
        case StageRetried():
            said = f"attempt {event.attempt} failed, once more: {event.failure.message}"
            return stage_line("retried", event.stage, said, board)
        case StageSkipped() if _worth_lines(board, 0, "skipped"):
            why = f"{event.because} is not done" if event.because in board.notebooks else event.because
            return stage_line("skipped", event.stage, f"skipped: {why}", board)
        case StagePruned():
            return stage_line("pruned", event.stage, f"pruned: {event.why}", board)
        case StageFailed():
            return _failed(event, board, color=color)
        case RunFinished():
            return summary(event, board, color=color)
    return ""


def _worth_lines(board: Board, expected: int, *endings: str) -> bool:
    # Where nothing has to run, the last line says it all.
    so_far = sum(board.ended.get(how, 0) for how in endings)
    return not board.idle and max(expected, so_far) <= LINES


def stage_line(state: str, stage: str, said: str, board: Board) -> str:
    """Return the line of a stage that ended."""
    name = text.plain(stage)
    blanks = " " * max(board.name_width - text.display_width(name), 0)
    return f"{text.symbol(state)} {name}{blanks}  {text.shortened(text.plain(said), 120)}"


def _failed(event: StageFailed, board: Board, *, color: bool) -> str:
    failure: Failure = event.failure
    if failure.kind == "cancelled":
        return stage_line("cancelled", event.stage, "cancelled", board)
    if board.ended.get("failed", 0) > FULL_FAILURES:
        said = f"{failure.message.splitlines()[0]}  (nbtools show has more)"
        return stage_line("failed", event.stage, said, board)
    notebook = board.notebooks.get(event.stage, "")
    return text.failure(event.stage, notebook, failure, color=color)


def summary(event: RunFinished, board: Board, *, color: bool = False) -> str:
    """Return the last line of a run: what became of how many stages, and how long it took."""
    counts = [(board.ended[how], how) for how in _ENDINGS if board.ended.get(how)]
    parts = [f"{count} {how}" for count, how in counts]
    if counts:
        parts[0] = parts[0].replace(" ", " stage " if counts[0][0] == 1 else " stages ", 1)
    said = ", ".join(parts) or "nothing to do"
    if event.status == "cancelled" and "cancelled" not in board.ended:
        said = f"cancelled, {said}" if parts else "cancelled"
    line = f"{text.plain(board.project)}: {said} ({text.duration(event.duration_s)})"
    return text.painted(line, event.status) if color else line


def _finite(value: Any) -> Any:
    """Return ``value`` with null for the numbers that JSON has no word for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
