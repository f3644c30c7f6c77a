"""Progress on a terminal: what runs now is redrawn in place, what ended stays above it.

Only imported when somebody watches: rich costs 70 ms.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TextIO, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from nbtools.cli import text
from nbtools.cli.progress import Board, Running, SafeStream, told
from nbtools.execution.events import (
    Event,
    RunFinished,
    RunStarted,
    StageDrawn,
    StageFailed,
    StageFinished,
    StageRetried,
    StageReused,
    StageSkipped,
)

#: The live part is never taller than this, nor than a terminal that is lower.
_TALLEST = 12
_BAR = 10
_NAME = 14
_STYLES = {StageFinished: "green", StageReused: "dim", StageSkipped: "dim", StageRetried: "yellow"}


class LiveProgress:
    """A line for each stage at work, redrawn; a line that stays for each that ended; a last one for the run.

    Parameters
    ----------
    color
        Whether colours may be used.
    width, height
        Size of the terminal; None asks it.
    clock
        Seconds since the epoch, as the events count them.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        color: bool = True,
        width: int | None = None,
        height: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        safe = SafeStream(stream)
        self._console = Console(
            file=cast(TextIO, safe),
            force_terminal=True,
            no_color=not color,
            color_system="standard" if color else None,
            highlight=False,
            markup=False,
            emoji=False,
            legacy_windows=False,
            width=width,
            height=height,
        )
        self._color = color
        self._clock = clock
        self._ascii = text.encodable("✓━", safe.encoding) != "✓━"
        # Replaced, never changed: the thread that redraws reads it without our lock, which it must
        # not wait for while it holds rich's.
        self._board = Board()
        self._lock = threading.Lock()
        # Whatever else is printed goes above the live part, unless it goes elsewhere altogether.
        self._live = Live(
            console=self._console,
            get_renderable=self._picture,
            refresh_per_second=5,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=sys.stderr.isatty(),
        )

    def __call__(self, event: Event) -> None:
        """Show what ``event`` changes."""
        with self._lock:
            self._board = board = self._board.after(event)
            if isinstance(event, RunStarted | StageDrawn) and not board.idle:
                self._live.start()
            if isinstance(event, RunFinished):
                self._live.stop()
            if said := told(event, board, color=self._color):
                self._print(event, said)

    def close(self) -> None:
        """Remove the live part and show the cursor again."""
        with self._lock:
            self._live.stop()

    def _print(self, event: Event, said: str) -> None:
        if self._live.is_started:
            self._live.refresh()  # lest the stage be shown at work below the line that says it ended
        style = _STYLES.get(type(event), "") if self._color else ""
        if isinstance(event, StageFailed | RunFinished):
            self._console.print(Text.from_ansi(said), soft_wrap=True)
        else:
            self._console.print(Text(said, style=style), no_wrap=True, overflow="ellipsis")

    def _picture(self) -> RenderableType:
        board, now = self._board, self._clock()
        room = max(min(_TALLEST, self._console.height - 3), 2)
        shown = board.running if len(board.running) < room else board.running[: room - 2]
        lines = [self._stage(item, now) for item in shown]
        if rest := _rest(board, len(board.running) - len(shown)):
            lines.append(Text(f"  {rest}", style="dim", no_wrap=True, overflow="ellipsis"))
        return Group(*lines)

    def _stage(self, item: Running, now: float) -> Text:
        again = f" attempt {item.attempt}" if item.attempt > 1 else ""
        state = (
            f"cell {item.cell or '-'}/{item.cells}".ljust(11) + f" {text.stopwatch(now - item.since)}{again}"
        )
        room = self._console.width - 5 - len(state) - 1
        bar = room >= self._board.name_width + _BAR + 2
        room -= (_BAR + 2) * bar
        name = text.padded(text.plain(item.stage), max(min(self._board.name_width, room), min(_NAME, room)))
        line = Text(no_wrap=True, overflow="crop")
        line.append(f"{text.symbol('running', ascii_only=self._ascii)} ", style="cyan")
        line.append(f"{name}  ", style="bold")
        for piece, style in self._bar(item) if bar else ():
            line.append(piece, style=style)
        return line.append(state)

    def _bar(self, item: Running) -> Iterator[tuple[str, str]]:
        filled = round(_BAR * min(item.done / max(item.cells, 1), 1))
        whole, empty = "#-" if self._ascii else "━─"
        yield whole * filled, "cyan"
        yield empty * (_BAR - filled) + "  ", "dim"


def _rest(board: Board, hidden: int) -> str:
    parts = [f"{hidden} more running"] if hidden else []
    if board.waiting:
        parts.append(f"{board.waiting} waiting")
    return ", ".join(parts)
