"""Keeps the manifest of a run: what it was made from and what it made. Nothing that a stage would wait for."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from nbtools.execution.events import Event, RunStarted, StageStarted
from nbtools.execution.files import operation_error, write_atomically
from nbtools.execution.state import RunState, StageState
from nbtools.execution.store import Store
from nbtools.execution.tables import describe
from nbtools.project import Project
from nbtools.tracking import lineage
from nbtools.tracking.capturing import lineage_store
from nbtools.tracking.lineage import Capture

log = logging.getLogger(__name__)


class Recorder:
    """A listener that writes a run's manifest, and tells others of it.

    Parameters
    ----------
    capture
        Keeps what the run's code can be restored from, and returns what was kept; takes tenths of a second, and is
        called in a thread of its own, only if a notebook is executed.
    note
        Told, in words, of what a person should know.
    """

    def __init__(self, project: Project, capture: Callable[[], Capture], note: Callable[[str], None]) -> None:
        self.project = project
        self.state = RunState()
        self._capture = capture
        self._note = note
        self._captured: Future[Capture] = Future()
        self._begun = False
        self._described: dict[str, Mapping[str, Any]] = {}

    def __call__(self, event: Event) -> None:
        """Take in an event."""
        self.state = self.state.after(event)
        begins = isinstance(event, RunStarted) and any(step.action == "run" for step in event.steps)
        if begins or isinstance(
            event, StageStarted
        ):  # a stage that was to be restored may have to run after all
            self._begin()

    def when_captured(self, do: Callable[[Capture], None]) -> None:
        """Have ``do`` called with what was kept, as soon as it is."""
        self._begin()
        self._captured.add_done_callback(lambda done: do(done.result()))

    def places(self, stage: str) -> dict[str, tuple[str, str]]:
        """Return where the datasets of a stage lie that nobody has looked into, and their names, by digest."""
        found = places(self.project, [self.state.stages[stage]], self._described)
        return {digest: (str(path), name) for digest, (path, name) in found.items()}

    def patch_file(self, capture: Capture) -> str:
        """Return the file with what differed from the commit; an empty text if nothing did."""
        return str(lineage_store(self.project).path(capture.patch)) if capture.patch else ""

    def is_described(self, described: Mapping[str, Mapping[str, Any]]) -> None:
        """Take in rows and columns of datasets, by digest: somebody has looked."""
        self._described.update(described)

    def finish(self) -> None:
        """Write the manifest, if a notebook was executed."""
        if not self._begun:
            return
        kept = self._captured.result()
        executed = [stage for stage in self.state.stages.values() if stage.status in lineage.EXECUTED]
        for digest, (path, name) in places(self.project, executed, self._described).items():
            self._described[digest] = describe(path, name).record()
        written = lineage.run_manifest(self.state, kept, self._described)
        try:
            content = json.dumps(written, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace")
            write_atomically(manifest_file(self.project, self.state.run), content, durable=False)
        except OSError as error:
            self._say(error)

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            threading.Thread(target=self._keep, name="lineage", daemon=True).start()

    def _keep(self) -> None:
        kept = Capture()
        try:
            kept = self._capture()
        except OSError as error:
            self._say(error)
        except Exception:  # a defect of ours must not fail a run
            log.warning("what a run was made from could not be kept", exc_info=True)
        finally:
            self._captured.set_result(kept)

    def _say(self, error: OSError) -> None:
        self._note(str(operation_error("what the run was made from is not kept in full", error).problems[0]))


def manifest_file(project: Project, run: str) -> Path:
    """Return where the manifest of a run is kept."""
    return project.lineage / f"{run}.json"


def places(
    project: Project, stages: Iterable[StageState], known: Mapping[str, Any]
) -> dict[str, tuple[Path, str]]:
    """Return where the bytes of datasets lie that are not ``known``, and what they are called, by digest."""
    store = Store(project.store)
    found = {}
    for digest, item in lineage.artifacts_of(stages).items():
        if digest in known:
            continue
        # A stored object is what its name says; a folder in the workspace is what it was a moment ago.
        stored = store.path(digest)
        path = stored if stored.is_file() and not digest.endswith(".tree") else project.root / item.path
        found[digest] = path, item.path
    return found
