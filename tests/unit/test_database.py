from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from nbtools.errors import OperationError
from nbtools.execution.database import Database
from nbtools.execution.digest import Memo
from nbtools.execution.events import (
    Event,
    Failure,
    Revision,
    RunFinished,
    RunStarted,
    StageFailed,
    StageFinished,
    StageReused,
    StageSkipped,
)
from nbtools.pipeline.fingerprint import Ingredients
from nbtools.pipeline.plan import Completion


def _open(root: Path, *, writable: bool = True) -> Database:
    return Database(root / ".nbtools/state.db", writable=writable)


def _completion(fingerprint: str = "ff", stage: str = "p.a", **more: object) -> Completion:
    ingredients = Ingredients(("x",), {"seed": 1, "token": {"secret": "A"}}, {"table": ["aa", "bb"]})
    return replace(Completion(stage, fingerprint, ingredients, {"model": "dd"}), **more)  # type: ignore[arg-type]


# Records


def test_a_record_is_there_once_it_is_committed_and_for_the_next_command_too(tmp_path: Path) -> None:
    completion = _completion(sizes={"model": 3}, metrics={"auc": 0.5}, finished_at=2.0, extra={"k": [1]})
    _open(tmp_path).commit(completion, "attempt 1")
    newest, latest = _open(tmp_path, writable=False).completions()
    assert newest.get("ff") == completion
    assert latest.get("p.a") == completion
    assert newest.get("other") is None
    assert "ff" in newest
    assert "other" not in latest


def test_an_attempt_is_committed_once(tmp_path: Path) -> None:
    database = _open(tmp_path)
    database.commit(_completion(), "attempt 1")
    with pytest.raises(OperationError, match="UNIQUE"):
        database.commit(_completion("other"), "attempt 1")
    newest, latest = database.completions()
    assert newest.get("other") is None
    assert latest["p.a"].fingerprint == "ff"


def test_the_newest_record_of_a_fingerprint_counts(tmp_path: Path) -> None:
    database = _open(tmp_path)
    database.commit(_completion(run="one"), "1")
    database.commit(_completion(run="two"), "2")
    assert database.completions()[0]["ff"].run == "two"


def test_the_latest_of_a_stage_is_what_was_committed_or_used_last(tmp_path: Path) -> None:
    database = _open(tmp_path)
    database.commit(_completion("one"), "1")
    database.commit(_completion("two"), "2")
    assert database.completions()[1]["p.a"].fingerprint == "two"
    database.use("p.a", "one")
    assert database.completions()[1]["p.a"].fingerprint == "one"
    database.use("p.a", "never seen")
    assert database.completions()[1]["p.a"].fingerprint == "one"


def test_threads_commit_side_by_side(tmp_path: Path) -> None:
    database = _open(tmp_path)
    with ThreadPoolExecutor(8) as threads:
        for future in [
            threads.submit(database.commit, _completion(f"f{n}", f"p.s{n}"), str(n)) for n in range(16)
        ]:
            future.result()
    assert len([n for n in range(16) if f"f{n}" in database.completions()[0]]) == 16


# The journal

EVENTS: list[Event] = [
    RunStarted("r1", 1.0, "x", (), (), Revision()),
    StageFinished("r1", 2.0, "p.a", "ff", 1.0),
    StageFailed("r1", 3.0, "p.b", 1.0, Failure("error", "no")),
    StageSkipped("r1", 3.0, "p.c", "p.b"),
    RunFinished("r1", 4.0, "failed", 3.0),
    RunStarted("r2", 5.0, "x", (), (), Revision()),
    StageReused("r2", 6.0, "p.a", "ff", "up to date"),
]


def _journal(root: Path) -> Database:
    database = _open(root)
    for event in EVENTS:
        database.append(event)
    return database


def test_events_are_read_in_order_by_run_and_by_kind(tmp_path: Path) -> None:
    database = _journal(tmp_path)
    assert database.events() == EVENTS
    assert database.events(run="r2") == EVENTS[5:]
    assert database.events(kinds=("RunStarted", "RunFinished")) == [EVENTS[0], EVENTS[4], EVENTS[5]]
    assert database.run_ids() == ["r2", "r1"]


def test_the_last_outcome_of_each_stage_that_was_tried_is_known(tmp_path: Path) -> None:
    assert _journal(tmp_path).last_outcomes() == {"p.a": EVENTS[6], "p.b": EVENTS[2]}


def test_events_of_a_newer_version_are_passed_over(tmp_path: Path) -> None:
    database = _journal(tmp_path)
    with sqlite3.connect(tmp_path / ".nbtools/state.db") as connection:
        connection.execute(
            "INSERT INTO event (run, kind, at, body) VALUES ('r2', 'New', 1, '{\"event\": \"New\"}')"
        )
    assert database.events() == EVENTS


# Memos


def test_memo_and_facts_are_kept_and_replaced(tmp_path: Path) -> None:
    database = _open(tmp_path)
    memo = Memo()
    memo.fresh["/a"] = (1, 2, 3, 2**62, "dd")
    database.keep(memo, {"one": "1", "two": "2"})
    database.keep(Memo(), {"two": "3"})
    assert database.facts() == {"one": "1", "two": "3"}
    with sqlite3.connect(tmp_path / ".nbtools/state.db") as connection:
        assert connection.execute("SELECT * FROM memo").fetchall() == [("/a", 1, 2, 3, 2**62, "dd")]


# Opening


def test_reading_a_project_that_never_ran_finds_nothing_and_creates_nothing(tmp_path: Path) -> None:
    database = _open(tmp_path, writable=False)
    database.keep(Memo(), {"a": "1"})
    assert (database.events(), database.run_ids(), database.facts()) == ([], [], {})
    assert list(tmp_path.iterdir()) == []


def test_reading_does_not_write(tmp_path: Path) -> None:
    _open(tmp_path).commit(_completion(), "1")
    reader = _open(tmp_path, writable=False)
    reader.keep(Memo(), {"a": "1"})
    assert reader.facts() == {}
    with pytest.raises(OperationError, match="readonly"):
        reader.commit(_completion(), "2")


def test_a_file_that_is_only_just_being_made_reads_as_empty(tmp_path: Path) -> None:
    (tmp_path / ".nbtools").mkdir()
    (tmp_path / ".nbtools/state.db").touch()
    assert _open(tmp_path, writable=False).run_ids() == []
    _open(tmp_path).append(EVENTS[0])
    assert _open(tmp_path, writable=False).run_ids() == ["r1"]


def test_a_reader_sees_what_a_writer_commits_meanwhile(tmp_path: Path) -> None:
    writer = _open(tmp_path)
    reader = _open(tmp_path, writable=False)
    writer.append(EVENTS[0])
    assert reader.run_ids() == ["r1"]


@pytest.mark.parametrize("writable", [True, False])
def test_a_damaged_file_is_told_with_the_way_out(tmp_path: Path, writable: bool) -> None:
    (tmp_path / ".nbtools").mkdir()
    (tmp_path / ".nbtools/state.db").write_bytes(b"no database " * 1000)
    with pytest.raises(OperationError, match="not a database") as caught:
        _open(tmp_path, writable=writable)
    assert "delete .nbtools/state.db" in caught.value.problems[0].fix


@pytest.mark.parametrize("writable", [True, False])
def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path, writable: bool) -> None:
    _open(tmp_path).close()
    with sqlite3.connect(tmp_path / ".nbtools/state.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(OperationError, match="newer nbtools"):
        _open(tmp_path, writable=writable)
