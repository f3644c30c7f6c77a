"""Runs projects in forks of itself, and kills one at a chosen point: imports are paid once for hundreds of kills.

A point is a call that changes what is on disk: a file moved, synced, removed or made, a statement of a
database. One line of JSON on standard input asks for a run; one on standard output says how it ended.
"""

from __future__ import annotations

import collections
import json
import os
import signal
import sqlite3
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import papermill  # noqa: F401 - so that no fork needs to import it

import nbtools.api
from nbtools.execution import attempt  # noqa: F401 - the same
from nbtools.execution.events import StageStarted

_CALLS = ("replace", "rename", "fsync", "unlink", "mkdir", "rmdir", "chmod", "ftruncate")
_STATEMENTS = ("INSERT", "UPDATE", "DELETE", "CREATE", "COMMIT")


class Points:
    """Counts the points that a run passes, and kills the process at the one that was chosen."""

    def __init__(self, kill_at: int) -> None:
        self.kill_at = kill_at
        self.passed: list[str] = []
        self._counting = threading.Lock()

    def arm(self) -> None:
        """Begin to count."""
        for name in _CALLS:
            setattr(os, name, self._counted(f"os.{name}", getattr(os, name)))
        connect = sqlite3.connect

        def connected(*args: Any, **kwargs: Any) -> sqlite3.Connection:
            connection = connect(*args, **kwargs)
            connection.set_trace_callback(self._stated)
            return connection

        sqlite3.connect = connected  # type: ignore[assignment]

    def _stated(self, statement: str) -> None:
        if statement.startswith(_STATEMENTS):
            self.reach(statement.split("(", maxsplit=1)[0].strip())

    def _counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            if name != "os.mkdir" or not os.path.isdir(args[0]):
                self.reach(f"{name} in {sys._getframe(1).f_code.co_name}")
            return call(*args, **kwargs)

        return counted

    def reach(self, point: str) -> None:
        """Pass a point, or end there."""
        with self._counting:
            self.passed.append(point)
            if len(self.passed) == self.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)


def _live(order: dict[str, Any]) -> None:
    points = Points(order.get("kill_at", 0))
    if offset := order.get("clock_s"):
        now = time.time
        time.time = lambda: now() + offset
    started: list[str] = []
    points.arm()
    outcome = nbtools.api.run(
        order.get("targets", ()),
        params=order.get("params"),
        jobs=order.get("jobs"),
        cold=order.get("cold", False),
        track=False,
        project=order["project"],
        listeners=[lambda event: started.append(event.stage) if isinstance(event, StageStarted) else None],
    )
    report = {
        "status": outcome.status,
        "stages": {key: stage.status for key, stage in outcome.stages.items()},
        "failures": {key: stage.failure.message for key, stage in outcome.stages.items() if stage.failure},
        "started": started,
        "points": collections.Counter(points.passed),
        "count": len(points.passed),
    }
    Path(order["report"]).write_text(json.dumps(report), encoding="utf-8")


def main() -> None:
    """Serve until standard input ends."""
    for line in sys.stdin:
        order = json.loads(line)
        report = Path(order["report"])
        report.unlink(missing_ok=True)
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.dup2(2, 1)
                os.chdir(order["project"])
                _live(order)
                code = 0
            except BaseException:  # noqa: BLE001 - whatever it was, the test shows it
                traceback.print_exc()
            finally:
                os._exit(code)
        if delay := order.get("kill_after_s"):
            time.sleep(delay)
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        found = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {}
        answer = {**found, "exit": os.waitstatus_to_exitcode(status)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
