"""Past runs, read from the local journal: neither MLflow nor pandas is needed for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nbtools.errors import UsageError, suggest
from nbtools.execution.database import Database
from nbtools.execution.events import RunFinished, RunStarted
from nbtools.execution.state import RunState, fold


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One run.

    Parameters
    ----------
    status
        ``passed``, ``failed``, ``cancelled``, ``running``, or ``aborted`` if its process was killed.
    completed_at
        Seconds since the epoch; None while it runs or if it was aborted.
    """

    status: str
    run: str
    commit: str
    branch: str
    message: str
    dirty: bool
    started_at: float
    duration_s: float | None
    completed_at: float | None
    targets: tuple[str, ...]
    user: str


def history(
    database: Database,
    running: str | None,
    *,
    status: str = "",
    branch: str = "",
    commit: str = "",
    limit: int | None = None,
) -> list[HistoryRow]:
    """Return the project's runs, newest first.

    Parameters
    ----------
    running
        Id of the run that holds the project's lock; every other unfinished run was aborted.
    status, branch, commit
        Keep only the runs that have it; a commit may be abbreviated.
    limit
        How many rows at most.
    """
    events = database.events(kinds=("RunStarted", "RunFinished"))
    finished = {event.run: event for event in events if isinstance(event, RunFinished)}
    rows = [
        _row(event, finished.get(event.run), running)
        for event in reversed(events)
        if isinstance(event, RunStarted)
    ]
    kept = [
        row
        for row in rows
        if (not status or row.status == status)
        and (not branch or row.branch == branch)
        and (not commit or row.commit.startswith(commit))
    ]
    return kept[:limit]


def show(database: Database, run: str, running: str | None) -> RunState:
    """Return the state of one run.

    Parameters
    ----------
    run
        Its id, the end or the beginning of it, ``latest``, or ``latest~1`` for the one before.

    Raises
    ------
    UsageError
        If no run, or more than one, is meant.
    """
    state = fold(database.events(run=find(database.run_ids(), run)))
    return _unless_running(state, running)


def find(run_ids: Sequence[str], wanted: str) -> str:
    """Return the one id that ``wanted`` means.

    Raises
    ------
    UsageError
        If there is none, or more than one.
    """
    if not run_ids:
        raise UsageError.of("there is no run yet", fix="nbtools run")
    if not wanted:
        raise UsageError.of("no run is named", fix="name one of nbtools history, or latest")
    if back := re.fullmatch(r"latest(?:~(\d{1,6}))?", wanted):
        number = int(back[1] or 0)
        if number >= len(run_ids):
            said = "there is only 1 run" if len(run_ids) == 1 else f"there are only {len(run_ids)} runs"
            raise UsageError.of(f"{said}: {wanted!r} means none", fix="see nbtools history")
        return run_ids[number]
    found = [run for run in run_ids if run == wanted] or [
        run for run in run_ids if run.startswith(wanted) or run.endswith(wanted)
    ]
    if not found:
        raise UsageError.of(
            f"there is no run {wanted!r}", fix=f"{suggest(wanted, run_ids, 'run')}; see nbtools history"
        )
    if len(found) > 1:
        raise UsageError.of(f"{wanted!r} could mean {', '.join(found[:5])}", fix="write more of it")
    return found[0]


def _unless_running(state: RunState, running: str | None) -> RunState:
    return replace(state, status="aborted") if state.status == "running" and state.run != running else state


def _row(started: RunStarted, finished: RunFinished | None, running: str | None) -> HistoryRow:
    unfinished = "running" if started.run == running else "aborted"
    return HistoryRow(
        status=finished.status if finished else unfinished,
        run=started.run,
        commit=started.revision.commit,
        branch=started.revision.branch,
        message=started.revision.message,
        dirty=started.revision.dirty,
        started_at=started.at,
        duration_s=finished.duration_s if finished else None,
        completed_at=finished.at if finished else None,
        targets=started.targets,
        user=started.revision.user,
    )
