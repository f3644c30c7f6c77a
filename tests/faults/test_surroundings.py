"""The disk is full, the journal's tail is damaged, the clock goes back, files change without looking it."""

from __future__ import annotations

import os
import shlex
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import nbtools.api
from tests.faults.conftest import Driver, disturbed_project, expected, results
from tests.projects import NBTOOLS, environment, one_stage

_MAY_MOUNT = subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(not _MAY_MOUNT, reason="not on this platform: no file system of its own for a test")
@pytest.mark.parametrize("room", ["3m", "9m"], ids=["notebook's own writes fail", "nbtools' writes fail"])
def test_run_on_a_full_disk_fails_in_words_and_goes_on_when_there_is_room(tmp_path: Path, room: str) -> None:
    project = one_stage(tmp_path / "made")
    project.notebook(
        "only.ipynb",
        "import os\nfrom pathlib import Path\nPath(result).write_bytes(os.urandom(6_000_000))",
        params="result = ''",
    )
    (tmp_path / "disk").mkdir()
    nbtools_run = shlex.join([*NBTOOLS, "run", "--no-tracking"])
    script = f"""
        mount -t tmpfs -o size={room} none disk && cp made/* disk/ && cd disk || exit 99
        {nbtools_run}; echo "first: $?"
        [ -e result.txt ] && echo "there is a result"
        {shlex.join([*NBTOOLS, "status"])} > /dev/null; echo "status: $?"
        mount -o remount,size=200m none . || exit 99
        {nbtools_run}; echo "second: $?"
        stat -c "size: %s" result.txt
    """
    done = subprocess.run(
        ["unshare", "-rm", "bash", "-c", script],
        cwd=tmp_path,
        env=environment({"PYTHONPATH": str(Path(nbtools.__file__).parents[1])}),
        capture_output=True,
        encoding="utf-8",
        timeout=240,
        check=False,
    )
    said = done.stdout + done.stderr
    assert "first: 1" in said, said
    assert "No space left" in said or "disk is full" in said, said
    assert "there is a result" not in said
    assert "status: 0" in said
    assert "second: 0" in said, said
    assert "size: 6000000" in said
    assert "Traceback (most recent call last)" not in done.stderr


@pytest.mark.parametrize("kind", ["RunFinished", "StageFinished", "RunStarted"])
@pytest.mark.parametrize("rubbish", ["", "{", '{"event": "Unheard"}', '{"event": "StageFinished"}', "[]"])
def test_damaged_event_of_the_journal_is_passed_over(tmp_path: Path, rubbish: str, kind: str) -> None:
    project = one_stage(tmp_path)
    assert project.run().status == "passed"
    connection = sqlite3.connect(tmp_path / ".nbtools/state.db")
    with connection:
        connection.execute("UPDATE event SET body = ? WHERE kind = ?", (rubbish, kind))
    connection.close()

    for words in (("history",), ("show",), ("status",), ("gc",), ("fsck",), ("sync",), ()):
        done = project.command(*words)
        assert done.returncode == 0, (words, done.stderr)
    assert project.run().status == "passed"
    assert nbtools.api.show(project=tmp_path).stages["work.only"].status == "up to date"


@pytest.mark.parametrize("rubbish", ["{bad", "{}", "null"])
def test_stage_whose_record_is_damaged_is_not_done_and_fsck_says_so(tmp_path: Path, rubbish: str) -> None:
    project = one_stage(tmp_path)
    assert project.run().status == "passed"
    connection = sqlite3.connect(tmp_path / ".nbtools/state.db")
    with connection:
        connection.execute("UPDATE completion SET record = ?", (rubbish,))
    connection.close()

    for words in (("status",), ("plan",), ("gc",), ("why", "only"), ("sync",)):
        done = project.command(*words)
        assert done.returncode == 0, (words, done.stderr)
    found = project.command("fsck")
    assert found.returncode == 1
    assert "unreadable  work.only: record of a result\n  work.only makes it again" in found.stdout
    assert project.command("fsck").returncode == 0
    assert project.statuses(project.run()) == {"work.only": "finished"}
    assert project.statuses(project.run()) == {"work.only": "up to date"}


def _truncated(path: Path) -> None:
    with open(path, "r+b") as stream:
        stream.truncate(path.stat().st_size // 2)


def _garbled(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


@pytest.mark.parametrize("damage", [_truncated, _garbled])
def test_run_sets_a_damaged_state_aside_and_begins_afresh(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    project = one_stage(tmp_path)
    assert project.run().status == "passed"
    damage(tmp_path / ".nbtools/state.db")
    told = project.command("status")
    assert (told.returncode, "delete .nbtools/state.db" in told.stderr) == (1, True)

    done = project.command("run", "--no-tracking")

    assert done.returncode == 0, done.stderr
    assert "the project's state was damaged, and is now .nbtools/state.db.damaged-" in done.stderr
    assert project.text("result.txt") == "done"
    assert project.command("status").returncode == 0


def test_write_ahead_log_that_lost_its_tail_loses_only_the_tail(driver: Driver, short_tmp: Path) -> None:
    project = disturbed_project(short_tmp / "p")
    assert driver.run(project, params={"factor": 3})["status"] == "passed"
    driver.run(project, params={"factor": 2}, kill_at=100)
    log = project.root / ".nbtools/state.db-wal"
    assert log.stat().st_size, "the killed run has left its log"
    with open(log, "r+b") as stream:
        stream.truncate(log.stat().st_size - 1000)

    assert driver.run(project, params={"factor": 2})["status"] == "passed"
    assert results(project) == expected(2)


def test_clock_that_goes_back_confuses_nothing(driver: Driver, short_tmp: Path) -> None:
    project = disturbed_project(short_tmp / "p")
    assert driver.run(project, params={"factor": 3}, clock_s=86_400)["status"] == "passed"
    assert driver.run(project, params={"factor": 2})["started"] == ["work.double", "work.total"]
    assert results(project) == expected(2)
    assert driver.run(project, params={"factor": 2})["started"] == []
    project.write("data/numbers.txt", "1\n2\n4\n")
    assert driver.run(project, params={"factor": 2})["started"] == ["work.double", "work.total"]
    assert [row.status for row in nbtools.api.history(project=project.root)] == ["passed"] * 4
    assert nbtools.api.show(project=project.root).stages["work.double"].status == "finished"


def test_input_of_the_same_size_and_time_is_known_to_have_changed(driver: Driver, short_tmp: Path) -> None:
    project = disturbed_project(short_tmp / "p")
    numbers = project.root / "data/numbers.txt"
    os.utime(numbers, (1_000_000_000, 1_000_000_000))
    assert driver.run(project, params={"factor": 2})["status"] == "passed"
    numbers.write_text("1\n2\n9\n")
    os.utime(numbers, (1_000_000_000, 1_000_000_000))
    assert driver.run(project, params={"factor": 2})["started"] == ["work.double", "work.total"]
    assert project.text("data/total.txt") == "24"
