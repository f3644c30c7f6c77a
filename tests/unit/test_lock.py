from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from nbtools.execution.lock import describe, exclusive, holder

#: Takes the lock, says so and sleeps until it is killed.
HOLDER = """
import sys, time
from pathlib import Path
from nbtools.execution.lock import exclusive
with exclusive(Path(sys.argv[1]), {"run": "r-other"}, print):
    print("held", flush=True)
    time.sleep(60)
"""


def _nothing(_: str) -> None:
    """Be told nothing."""


def test_the_holder_is_known_while_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "state/lock"
    assert holder(path) is None
    with exclusive(path, {"run": "r1", "command": "nbtools run"}, _nothing):
        found = holder(path)
        assert found is not None
        assert (found["run"], found["command"], found["pid"]) == ("r1", "nbtools run", os.getpid())
        assert describe(found).startswith(f"run r1 (process {os.getpid()}, since ")
    assert holder(path) is None


def test_the_lock_is_released_when_the_block_fails(tmp_path: Path) -> None:
    try:
        with exclusive(tmp_path / "lock", {"run": "r1"}, _nothing):
            raise KeyError
    except KeyError:
        assert holder(tmp_path / "lock") is None


def test_a_second_run_waits_and_is_told_for_whom(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    told: list[str] = []
    waiting, order = threading.Event(), []

    def note(text: str) -> None:
        told.append(text)
        waiting.set()

    def second() -> None:
        with exclusive(path, {"run": "r2"}, note):
            order.append("second")

    thread = threading.Thread(target=second)
    with exclusive(path, {"run": "r1"}, _nothing):
        thread.start()
        assert waiting.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert len(told) == 1
    assert told[0].startswith("waiting for run r1 (process ")


def test_a_killed_holder_needs_no_unlocking(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        found = holder(path)
        assert found is not None
        assert (found["run"], found["pid"]) == ("r-other", other.pid)
        other.kill()
    assert holder(path) is None
    with exclusive(path, {"run": "r2"}, _nothing):
        now = holder(path)
        assert now is not None
        assert now["run"] == "r2"


def test_an_unreadable_note_of_the_holder_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with exclusive(path, {"run": "r1"}, _nothing):
        path.write_text("[not a holder")
        assert holder(path) == {}
        assert describe(holder(path)) == "another run of this project"
