from __future__ import annotations

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from nbtools.errors import OperationError
from nbtools.execution.database import Database, Decoded, set_aside_if_damaged
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


def _fingerprint(latest: Decoded) -> str:
    completion = latest.get("p.a")
    return completion.fingerprint if completion else ""


# Records


def test_a_record_is_there_once_it_is_committed_and_for_the_next_command_too(tmp_path: Path) -> None:
    completion = _completion(sizes={"model": 3}, metrics={"auc": 0.5}, finished_at=2.0, extra={"k": [1]})
    _open(tmp_path).commit(completion, "attempt 1")
    newest, latest = _open(tmp_path, writable=False).completions()
    assert newest.get("ff") == completion
    assert latest.get("p.a") == completion
    assert newest.get("other") is None


def test_an_attempt_is_committed_once(tmp_path: Path) -> None:
    database = _open(tmp_path)
    database.commit(_completion(), "attempt 1")
    with pytest.raises(OperationError, match="UNIQUE"):
        database.commit(_completion("other"), "attempt 1")
    newest, latest = database.completions()
    assert newest.get("other") is None
    assert _fingerprint(latest) == "ff"


def test_the_newest_record_of_a_fingerprint_counts(tmp_path: Path) -> None:
    database = _open(tmp_path)
    database.commit(_completion(run="one"), "1")
    database.commit(_completion(run="two"), "2")
    assert database.completions()[0].get("ff") == _completion(run="two")


def test_the_latest_of_a_stage_is_what_was_committed_or_used_last(tmp_path: Path) -> None:
    database = _open(tmp_path)
    database.commit(_completion("one"), "1")
    database.commit(_completion("two"), "2")
    assert _fingerprint(database.completions()[1]) == "two"
    database.use("p.a", "one")
    assert _fingerprint(database.completions()[1]) == "one"
    database.use("p.a", "never seen")
    assert _fingerprint(database.completions()[1]) == "one"


def test_threads_commit_side_by_side(tmp_path: Path) -> None:
    database = _open(tmp_path)
    with ThreadPoolExecutor(8) as threads:
        for future in [
            threads.submit(database.commit, _completion(f"f{n}", f"p.s{n}"), str(n)) for n in range(16)
        ]:
            future.result()
    assert len(database.results()) == 16


@pytest.mark.parametrize("rubbish", ["{bad", "", "{}", "[]", "null", '{"ingredients": 1}', b"\xff\xfe{}"])
def test_a_damaged_record_counts_as_none_and_is_forgotten_on_request(
    tmp_path: Path, rubbish: str | bytes
) -> None:
    database = _open(tmp_path)
    database.commit(_completion("one"), "1")
    database.commit(_completion("two", "p.b"), "2")
    with sqlite3.connect(tmp_path / ".nbtools/state.db") as connection:
        connection.execute("UPDATE completion SET record = ? WHERE fingerprint = 'one'", (rubbish,))

    assert (database.completions()[0].get("one"), database.in_use("p.a")) == (None, None)
    assert [item.fingerprint for item in database.results().values()] == ["two"]
    assert (database.forget_damaged(), database.forget_damaged()) == (["p.a"], [])
    assert database.numbers_in_use() == {2}
    assert database.completions()[0].get("two") == _completion("two", "p.b")


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


def _truncated(path: Path) -> None:
    with open(path, "r+b") as stream:
        stream.truncate(path.stat().st_size // 2)


def _garbled(path: Path) -> None:
    path.write_bytes(b"no database " * 1000)


@pytest.mark.parametrize("damage", [_truncated, _garbled])
def test_a_damaged_file_is_set_aside_with_its_log(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    database = _open(tmp_path)
    database.commit(_completion(), "1")
    database.close()
    path = tmp_path / ".nbtools/state.db"
    damage(path)
    path.with_name("state.db-wal").write_bytes(b"no log")
    aside = set_aside_if_damaged(path)
    assert aside is not None
    assert aside.name.startswith("state.db.damaged-")
    assert not path.exists()
    assert not path.with_name("state.db-wal").exists()
    assert _open(tmp_path).results() == {}


def test_a_sound_file_and_one_that_is_only_locked_stay(tmp_path: Path) -> None:
    database = _open(tmp_path)
    database.commit(_completion(), "1")
    with database._transaction():
        assert set_aside_if_damaged(tmp_path / ".nbtools/state.db") is None
    assert set_aside_if_damaged(tmp_path / "none") is None
    assert len(database.results()) == 1


def test_a_damaged_text_is_found_out_anew(tmp_path: Path) -> None:
    _open(tmp_path).keep(Memo(), {"one": "1", "two": "2"})
    with sqlite3.connect(tmp_path / ".nbtools/state.db") as connection:
        connection.execute("UPDATE fact SET value = CAST(x'ff7b' AS TEXT) WHERE key = 'two'")
    assert _open(tmp_path, writable=False).facts() == {"one": "1"}


@pytest.mark.parametrize("writable", [True, False])
def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path, writable: bool) -> None:
    _open(tmp_path).close()
    with sqlite3.connect(tmp_path / ".nbtools/state.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(OperationError, match="newer nbtools"):
        _open(tmp_path, writable=writable)
