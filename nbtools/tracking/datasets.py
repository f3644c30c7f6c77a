"""Datasets over the runs of a project, told from its journal.

Rules of this file: no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from nbtools.execution.events import Artifact, Event, StageFinished, StageReused, StageStarted
from nbtools.execution.state import RunState


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    """Bytes that a dataset once had.

    Parameters
    ----------
    run, at
        The first run that made or read them, and when (seconds since the epoch).
    last_run
        The last one that made, used or read them.
    runs
        How many did.
    is_stored
        Whether the bytes can be brought back.
    rows, columns
        What they hold, as far as anybody has looked.
    """

    dataset: str
    path: str
    digest: str
    size_bytes: int
    run: str
    at: float
    last_run: str
    runs: int = 1
    is_stored: bool = False
    rows: int | None = None
    columns: Mapping[str, str] | None = None


def versions(events: Iterable[Event], dataset: str) -> list[DatasetVersion]:
    """Return the versions of a dataset, that of the latest run first; of each path its own."""
    found: dict[tuple[str, str], DatasetVersion] = {}
    seen: set[tuple[str, str, str]] = set()
    for event in events:
        for item in _artifacts(event):
            key = item.path, item.digest
            if item.dataset != dataset or (*key, event.run) in seen:
                continue
            seen.add((*key, event.run))
            if known := found.pop(key, None):
                found[key] = replace(known, last_run=event.run, runs=known.runs + 1)
            else:
                found[key] = DatasetVersion(
                    dataset, item.path, item.digest, item.size_bytes, event.run, event.at, event.run
                )
    return list(reversed(found.values()))


def _artifacts(event: Event) -> Sequence[Artifact]:
    match event:
        case StageStarted():
            return event.inputs
        case StageFinished() | StageReused():
            return event.outputs
        case _:
            return ()


#: The kinds of events that ``versions`` looks at.
KINDS = (StageStarted.__name__, StageFinished.__name__, StageReused.__name__)


def datasets_of(
    state: RunState, inputs_of: Callable[[str], Sequence[Artifact]]
) -> dict[tuple[str, str], Artifact]:
    """Return what a run read and made, by dataset and path.

    Parameters
    ----------
    inputs_of
        What the result of a fingerprint had been made from: a stage that did not run has read nothing.
    """
    found: dict[tuple[str, str], Artifact] = {}
    for stage in state.stages.values():
        read = stage.inputs or tuple(inputs_of(stage.fingerprint) if stage.fingerprint else ())
        for item in (*read, *stage.outputs):
            found[item.dataset, item.path] = item
    return found
