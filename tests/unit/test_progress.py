from __future__ import annotations

import io
import json
import sys
import threading
from collections.abc import Iterable

import pytest

from nbtools.cli import text
from nbtools.cli.live import LiveProgress
from nbtools.cli.progress import (
    Board,
    JsonProgress,
    LineProgress,
    Progress,
    QuietProgress,
    progress_for,
)
from nbtools.execution.events import (
    CellFinished,
    CellStarted,
    Event,
    Failure,
    PlannedStep,
    Revision,
    RunFinished,
    RunStarted,
    StageFailed,
    StageFinished,
    StageRetried,
    StageReused,
    StageSkipped,
    StageStarted,
    decode,
)


class Broken(io.StringIO):
    """A stream whose reader has gone."""

    def __init__(self) -> None:
        super().__init__()
        self.tried = 0

    def write(self, _: str) -> int:
        self.tried += 1
        raise BrokenPipeError


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def begun(*actions: tuple[str, str]) -> RunStarted:
    steps = tuple(PlannedStep(stage, action, "", f"notebooks/{stage}.ipynb") for stage, action in actions)
    return RunStarted("r", 100.0, "airline-delay", (), steps, Revision())


def started(stage: str, cells: int = 4, attempt: int = 1) -> StageStarted:
    return StageStarted("r", 100.0, stage, "n.ipynb", "d", cells, "f", attempt)


def finished(stage: str, metrics: dict[str, float] | None = None) -> StageFinished:
    return StageFinished("r", 112.0, stage, "f", 12.0, metrics=metrics or {})


def failed(stage: str, message: str = "ValueError: no") -> StageFailed:
    return StageFailed(
        "r", 112.0, stage, 12.0, Failure("error", message, 2, 1, "→ 1 │ f()", notebook="out.ipynb")
    )


def reused(stage: str, how: str = "up to date") -> StageReused:
    return StageReused("r", 101.0, stage, "f", how)


def ended(status: str = "passed", seconds: float = 62.0) -> RunFinished:
    return RunFinished("r", 162.0, status, seconds)


MIXED: list[Event] = [
    begun(
        ("data.ingest", "up to date"),
        ("train.fit", "run"),
        ("train.evaluate", "run"),
        ("deploy.smoke", "run"),
    ),
    reused("data.ingest"),
    started("train.fit"),
    CellStarted("r", 101.0, "train.fit", 1),
    CellFinished("r", 102.0, "train.fit", 1, 1.0),
    finished("train.fit"),
    started("train.evaluate"),
    failed("train.evaluate"),
    StageSkipped("r", 113.0, "deploy.smoke", "train.evaluate"),
    ended("failed"),
]


def told(events: Iterable[Event], *, quiet: bool = False, as_json: bool = False) -> list[str]:
    stream = io.StringIO()
    progress = progress_for(stream, json=as_json, quiet=quiet)
    for event in events:
        progress(event)
    progress.close()
    return stream.getvalue().splitlines()


# Lines


def test_each_stage_that_ended_has_a_line_and_the_run_a_last_one() -> None:
    lines = told(MIXED)
    assert lines[:4] == [
        "= data.ingest     up to date",
        "✓ train.fit       12 s",
        "✗ train.evaluate failed",
        "  notebooks/train.evaluate.ipynb, cell 2, line 1",
    ]
    assert "  open:     nbtools open train.evaluate" in lines
    assert lines[-2:] == [
        "– deploy.smoke    skipped: train.evaluate is not done",  # noqa: RUF001 - the sign
        "airline-delay: 1 stage failed, 1 run, 1 skipped, 1 up to date (1 m 02 s)",
    ]


def test_a_run_with_nothing_to_do_is_one_calm_line() -> None:
    stages = [f"data.s{number}" for number in range(8)]
    events: list[Event] = [
        begun(*((stage, "up to date") for stage in stages)),
        *map(reused, stages),
        ended(seconds=0.2),
    ]
    assert told(events) == ["airline-delay: 8 stages up to date (0.2 s)"]
    assert told(events, quiet=True) == ["airline-delay: 8 stages up to date (0.2 s)"]


def test_many_stages_up_to_date_are_only_counted() -> None:
    stages = [f"train.fit[a={number}]" for number in range(21)]
    events: list[Event] = [
        begun(("data.ingest", "run"), *((stage, "up to date") for stage in stages)),
        finished("data.ingest"),
        *map(reused, stages),
        ended(),
    ]
    assert len(told(events)) == 2
    assert told(events)[-1].startswith("airline-delay: 1 stage run, 21 up to date")


def test_restored_results_are_told_apart() -> None:
    events: list[Event] = [
        begun(("a.b", "restore"), ("a.c", "restore")),
        reused("a.b", "restored"),
        reused("a.c", "restored"),
        ended(),
    ]
    assert told(events) == [
        "↺ a.b  restored",
        "↺ a.c  restored",
        "airline-delay: 2 stages restored (1 m 02 s)",
    ]


def test_a_second_attempt_is_announced() -> None:
    lines = told(
        [
            begun(("a.b", "run")),
            StageRetried("r", 1.0, "a.b", 1, Failure("error", "no\nreally")),
            finished("a.b"),
        ]
    )
    assert lines[0] == "↻ a.b  attempt 1 failed, once more: no really"


def test_a_cancelled_stage_is_no_failure() -> None:
    cancelled = StageFailed("r", 1.0, "a.b", 1.0, Failure("cancelled", "the run was cancelled"))
    assert told([begun(("a.b", "run")), cancelled, ended("cancelled")]) == [
        "■ a.b  cancelled",
        "airline-delay: 1 stage cancelled (1 m 02 s)",
    ]
    assert told([begun(("a.b", "run")), ended("cancelled")]) == ["airline-delay: cancelled (1 m 02 s)"]


def test_after_many_failures_each_has_one_line() -> None:
    stages = [f"train.fit[a={number}]" for number in range(12)]
    lines = told([begun(*((stage, "run") for stage in stages)), *map(failed, stages), ended("failed")])
    assert sum("open:" in line for line in lines) == 10
    assert lines[-2] == "✗ train.fit[a=11]  ValueError: no  (nbtools show has more)"


def test_quiet_tells_failures_and_the_last_line() -> None:
    lines = told(MIXED, quiet=True)
    assert lines[0] == "✗ train.evaluate failed"
    assert lines[-1].startswith("airline-delay: 1 stage failed")
    assert not any("train.fit" in line for line in lines)


def test_lines_hold_no_control_characters() -> None:
    lines = told([begun(("a.b", "run")), failed("a.b", "\x1b[2J\x1b[31mno\x1b[0m"), ended("failed")])
    assert all(line.isprintable() for line in lines)


# JSON


def test_json_is_one_event_a_line_and_reads_back() -> None:
    assert [decode(json.loads(line)) for line in told(MIXED, as_json=True)] == MIXED


def test_json_has_null_for_numbers_that_it_cannot_say() -> None:
    (line,) = told([finished("a.b", {"r2": float("nan"), "rmse": 1.5})], as_json=True)
    assert json.loads(line, parse_constant=pytest.fail)["metrics"] == {"r2": None, "rmse": 1.5}


# The board


def test_the_board_is_the_fold_of_the_events() -> None:
    board = Board()
    for event in MIXED[:5]:
        board = board.after(event)
    assert [(item.stage, item.cell, item.done, item.cells) for item in board.running] == [
        ("train.fit", 1, 1, 4)
    ]
    assert board.waiting == 2
    for event in MIXED[5:]:
        board = board.after(event)
    assert board.running == ()
    assert board.waiting == 0
    assert board.ended == {"up to date": 1, "run": 1, "failed": 1, "skipped": 1}


def test_a_retried_stage_stands_once_on_the_board() -> None:
    board = Board().after(started("a.b")).after(started("a.b", attempt=2))
    assert [item.attempt for item in board.running] == [2]


# Trouble with the stream


@pytest.mark.parametrize("kind", [JsonProgress, LineProgress, QuietProgress, LiveProgress])
def test_no_reader_no_error(kind: type[JsonProgress | LineProgress | QuietProgress | LiveProgress]) -> None:
    stream = Broken()
    progress: Progress = kind(stream)
    for event in MIXED:
        progress(event)
    progress.close()
    assert stream.tried > 0


def test_a_closed_stream_is_no_error() -> None:
    stream = io.StringIO()
    progress = LineProgress(stream)
    progress(MIXED[0])
    stream.close()
    for event in MIXED[1:]:
        progress(event)
    progress.close()
    assert stream.closed


def test_a_stream_without_unicode_gets_ascii() -> None:
    raw = io.BytesIO()
    progress = LineProgress(io.TextIOWrapper(raw, encoding="ascii"))
    for event in MIXED:
        progress(event)
    assert b"+ train.fit" in raw.getvalue()
    assert b"x train.evaluate failed" in raw.getvalue()


def test_events_of_several_threads_keep_lines_whole() -> None:
    stream = io.StringIO()
    progress = JsonProgress(stream)

    def tell() -> None:
        for _ in range(50):
            progress(finished("a.b"))

    threads = [threading.Thread(target=tell) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([json.loads(line) for line in stream.getvalue().splitlines()]) == 400


# Which one


def test_what_is_shown_suits_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(progress_for(io.StringIO()), LineProgress)
    assert isinstance(progress_for(Terminal()), LiveProgress)
    assert isinstance(progress_for(Terminal(), terminal=False), LineProgress)
    assert isinstance(progress_for(Terminal(), quiet=True), QuietProgress)
    assert isinstance(progress_for(Terminal(), json=True, quiet=True), JsonProgress)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(progress_for(Terminal()), LineProgress)


# Live


def live(stream: io.StringIO, **size: int) -> LiveProgress:
    return LiveProgress(
        stream, color=False, width=size.get("width", 80), height=size.get("height", 24), clock=lambda: 175.0
    )


def picture(events: list[Event], **size: int) -> list[str]:
    """Return the lines of the live part after ``events``."""
    stream = Terminal()
    progress = live(stream, **size)
    for event in events:
        progress(event)
    stream.truncate(0)
    progress._live.refresh()
    drawn = text.strip_ansi(stream.getvalue()).strip("\n").split("\n")
    progress.close()
    return [line.rstrip() for line in drawn if line.strip("\0 ")]


def test_a_stage_at_work_shows_cell_and_time() -> None:
    lines = picture(MIXED[:5])
    assert lines[-2:] == ["▶ train.fit       ━━────────  cell 1/4    01:15", "  2 waiting"]


def test_a_narrow_terminal_goes_without_the_bar_and_shortens_names() -> None:
    name = "train.fit[alpha=0.123456,l1_ratio=0.123456]"
    lines = picture([begun((name, "run")), started(name)], width=40)
    assert all(text.display_width(line) <= 40 for line in lines)
    assert any("…" in line and "cell" in line for line in lines)


def test_the_live_part_stays_low_however_many_run() -> None:
    stages = [f"train.fit[a={number}]" for number in range(50)]
    events: list[Event] = [begun(*((stage, "run") for stage in stages)), *map(started, stages)]
    assert len(picture(events)) <= 12
    assert picture(events)[-1] == "  40 more running"
    assert len(picture(events, height=8)) <= 5


def test_what_ended_stays_on_the_screen_and_the_cursor_comes_back() -> None:
    stream = Terminal()
    progress = live(stream)
    for event in MIXED:
        progress(event)
    progress.close()
    shown = stream.getvalue()
    assert "✓ train.fit" in shown
    assert "✗ train.evaluate failed" in shown
    assert shown.rstrip().endswith("(1 m 02 s)")
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l")


def test_closing_in_the_middle_gives_the_terminal_back() -> None:
    stream = Terminal()
    out = sys.stdout
    progress = live(stream)
    for event in MIXED[:4]:
        progress(event)
    progress.close()
    progress.close()
    assert stream.getvalue().count("\x1b[?25l") == stream.getvalue().count("\x1b[?25h") == 1
    assert sys.stdout is out


def test_a_live_run_with_nothing_to_do_draws_nothing_but_its_line() -> None:
    stream = Terminal()
    progress = live(stream)
    events: list[Event] = [begun(("a.b", "up to date")), reused("a.b"), ended(seconds=0.2)]
    for event in events:
        progress(event)
    assert stream.getvalue() == "airline-delay: 1 stage up to date (0.2 s)\n"
