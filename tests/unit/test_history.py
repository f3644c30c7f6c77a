from __future__ import annotations

from pathlib import Path

import pytest

from nbtools.errors import UsageError
from nbtools.execution.database import Database
from nbtools.execution.events import Revision, RunFinished, RunStarted
from nbtools.pipeline.explain import CellChange, cell_changes
from nbtools.pipeline.notebook import CodeCell, code_digest
from nbtools.tracking.history import find, history, show


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """Three runs: one passed on main, one failed on a branch, one without an end."""
    found = Database(tmp_path / "state.db", writable=True)
    main = Revision("aaa111", "main", "first", dirty=True, user="ann")
    for event in (
        RunStarted("r-1", 10.0, "x", ("fit",), (), main),
        RunFinished("r-1", 14.0, "passed", 4.0),
        RunStarted("r-2", 20.0, "x", (), (), Revision("bbb222", "try", "second")),
        RunFinished("r-2", 23.0, "failed", 3.0),
        RunStarted("r-3", 30.0, "x", (), (), Revision("aaa333", "main", "third")),
    ):
        found.append(event)
    return found


# History


def test_history_has_one_row_a_run_newest_first(database: Database) -> None:
    rows = history(database, None)
    assert [(row.run, row.status, row.duration_s, row.completed_at) for row in rows] == [
        ("r-3", "aborted", None, None),
        ("r-2", "failed", 3.0, 23.0),
        ("r-1", "passed", 4.0, 14.0),
    ]
    first = rows[-1]
    assert (first.commit, first.branch, first.message, first.dirty, first.user, first.targets) == (
        "aaa111", "main", "first", True, "ann", ("fit",),
    )  # fmt: skip


def test_an_unfinished_run_is_running_only_while_it_holds_the_lock(database: Database) -> None:
    assert history(database, "r-3")[0].status == "running"
    assert history(database, "r-9")[0].status == "aborted"
    assert show(database, "r-3", "r-3").status == "running"
    assert show(database, "r-3", None).status == "aborted"
    assert show(database, "r-2", "r-3").status == "failed"


def test_history_can_be_narrowed(database: Database) -> None:
    def runs(**wanted: str) -> list[str]:
        return [row.run for row in history(database, None, **wanted)]  # type: ignore[arg-type]

    assert runs(status="failed") == ["r-2"]
    assert runs(branch="main") == ["r-3", "r-1"]
    assert runs(commit="aaa") == ["r-3", "r-1"]
    assert runs(commit="aaa1", status="passed") == ["r-1"]
    assert [row.run for row in history(database, None, limit=2)] == ["r-3", "r-2"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("latest", "20-ab"),
        ("latest~0", "20-ab"),
        ("latest~1", "10-cd"),
        ("20", "20-ab"),
        ("cd", "10-cd"),
        ("10-cd", "10-cd"),
        ("10-c", "10-cd"),
    ],
)
def test_a_run_is_found_by_either_end_of_its_id(wanted: str, found: str) -> None:
    assert find(["20-ab", "10-cd"], wanted) == found


def test_a_whole_id_wins_over_the_beginning_of_another() -> None:
    assert find(["r-12", "r-1"], "r-1") == "r-1"


@pytest.mark.parametrize(
    ("ids", "wanted", "message"),
    [
        ([], "latest", "there is no run yet"),
        (["r-1"], "x", "there is no run 'x'"),
        (["r-1"], "", "no run is named"),
        (["r-1"], "latest~1", "there is only 1 run"),
        (["r-1", "r-2"], "latest~2", "there are only 2 runs"),
        (["r-1", "r-2"], "r", "could mean r-1, r-2"),
    ],
)
def test_a_run_that_cannot_be_meant_is_refused(ids: list[str], wanted: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find(ids, wanted)


# Which cells changed


def _cells(*sources: str) -> list[CodeCell]:
    return [CodeCell(n, n - 1, source, code_digest(source)) for n, source in enumerate(sources, 1)]


def _changes(old: list[CodeCell], new: list[CodeCell]) -> list[tuple[str, int]]:
    return [(change.kind, change.number) for change in cell_changes(old, new)]


def test_a_changed_cell_is_shown_as_a_diff() -> None:
    (change,) = cell_changes(_cells("a = 1", "b = 1\nc = 2"), _cells("a = 1", "b = 1\nc = 3"))
    assert change == CellChange(
        "changed", 2, "--- cell 2 then\n+++ cell 2 now\n@@ -1,2 +1,2 @@\n b = 1\n-c = 2\n+c = 3"
    )


def test_added_and_removed_cells_keep_their_numbers() -> None:
    assert _changes(_cells("a", "b"), _cells("a", "x", "b")) == [("added", 2)]
    assert _changes(_cells("a", "x", "b"), _cells("a", "b")) == [("removed", 2)]
    assert _changes(_cells("a"), _cells("b", "c")) == [("changed", 1), ("added", 2)]
    assert _changes(_cells("a", "b"), []) == [("removed", 1), ("removed", 2)]


def test_cells_that_differ_only_in_what_does_not_run_are_the_same() -> None:
    assert _changes(_cells("a = 1", "# note"), _cells("# other", "a=1  # now", "")) == []


def test_a_moved_cell_is_removed_and_added() -> None:
    assert sorted(_changes(_cells("a", "b", "c"), _cells("b", "c", "a"))) == [("added", 3), ("removed", 1)]
