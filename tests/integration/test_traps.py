"""Traps that other tools fall into."""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import nbtools.api
from nbtools.errors import UsageError
from nbtools.execution.events import StageReused, StageStarted
from nbtools.pipeline.values import same_value
from tests.projects import SmallProject, notebook, one_stage, stage_names, two_stages, wait_until

UP_TO_DATE = {"data.double": "up to date", "data.total": "up to date"}
EXECUTED = ".nbtools/executed/data.double.ipynb"


@pytest.fixture
def ran(tmp_path: Path) -> SmallProject:
    """Return the project of two stages after a run that passed."""
    project = two_stages(tmp_path)
    assert project.run().status == "passed"
    assert project.text("data/total.txt") == "12"
    return project


def change_cell(project: SmallProject, path: str, old: str, new: str) -> None:
    """Replace text in a notebook's code."""
    content = json.loads(project.text(path))
    for cell in content["cells"]:
        cell["source"] = cell["source"].replace(old, new)
    project.write(path, json.dumps(content))


def test_failed_attempt_leaves_the_last_good_result_and_is_never_taken_for_up_to_date(
    ran: SmallProject,
) -> None:
    change_cell(ran, "notebooks/double.ipynb", "Path(doubled).write_text", "open(doubled, 'w').write")
    # It writes its output first and fails afterwards.
    content = json.loads(ran.text("notebooks/double.ipynb"))
    content["cells"].append({**notebook("assert factor != 5, 'five'", params=None)["cells"][0], "id": "last"})
    ran.write("notebooks/double.ipynb", json.dumps(content))
    assert ran.run().status == "passed"
    good = ran.text(EXECUTED)

    failed = ran.run(params={"factor": 5})

    assert failed.status == "failed"
    assert ran.statuses(failed) == {"data.double": "failed", "data.total": "skipped"}
    assert ran.text("data/doubled.txt") == "2\n4\n6"
    assert ran.text("data/total.txt") == "12"
    assert ran.text(EXECUTED) == good
    failure = failed.stages["data.double"].failure
    assert failure is not None
    assert failure.notebook == ".nbtools/failed/data.double.ipynb"
    assert "factor = 5" in ran.text(failure.notebook)
    assert "five" in ran.text(failure.notebook)
    # The failing param is still not done, and the earlier one still is.
    assert ran.actions(params={"factor": 5})["data.double"] == "run"
    assert ran.actions() == UP_TO_DATE
    restored = ran.run()
    assert restored.status == "passed"
    assert set(ran.statuses(restored).values()) <= {"up to date", "unchanged inputs"}
    assert ran.text("data/doubled.txt") == "2\n4\n6"
    assert ran.text(EXECUTED) == good
    assert nbtools.api.status(ran.root).stages[0].action == "up to date"
    # What failed is past: `nbtools open` shows the good notebook again.
    assert not (ran.root / failure.notebook).exists()


def test_param_given_back_its_earlier_value_restores_the_earlier_result_without_running(
    ran: SmallProject,
) -> None:
    assert ran.run(params={"factor": 3}).status == "passed"
    assert ran.text("data/total.txt") == "18"

    events = ran.events(params={"factor": 2})

    assert stage_names(events, StageStarted) == []
    reused = {event.stage: event.how for event in events if isinstance(event, StageReused)}
    assert reused == {"data.double": "restored", "data.total": "restored"}
    assert ran.text("data/doubled.txt") == "2\n4\n6"
    assert ran.text("data/total.txt") == "12"
    assert "factor = 2" in ran.text(EXECUTED)


def test_code_put_back_restores_the_earlier_result_without_running(ran: SmallProject) -> None:
    before = ran.text("notebooks/double.ipynb")
    change_cell(ran, "notebooks/double.ipynb", "* factor", "* factor * 10")
    assert ran.actions() == {"data.double": "run", "data.total": "run"}
    assert ran.run().status == "passed"
    assert ran.text("data/total.txt") == "120"

    ran.write("notebooks/double.ipynb", before)

    events = ran.events()
    assert stage_names(events, StageStarted) == []
    assert ran.text("data/total.txt") == "12"


def test_saving_a_notebook_with_outputs_causes_no_rerun(ran: SmallProject) -> None:
    content = json.loads(ran.text("notebooks/double.ipynb"))
    content["metadata"]["language_info"] = {"name": "python", "version": "3.11.0"}
    content["metadata"]["widgets"] = {"state": {}}
    for number, cell in enumerate(content["cells"]):
        cell["execution_count"] = number + 7
        cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["hello\n"]}]
        cell["metadata"]["collapsed"] = True
        cell["source"] = cell["source"].splitlines(keepends=True)  # as Jupyter saves it
    content["cells"].insert(0, {"cell_type": "markdown", "id": "m", "metadata": {}, "source": "# Why"})
    content["cells"][1]["source"].append("\n# a comment")
    ran.write("notebooks/double.ipynb", json.dumps(content, indent=1))

    assert ran.actions() == UP_TO_DATE


def test_change_that_makes_the_same_output_does_not_run_what_follows(ran: SmallProject) -> None:
    change_cell(ran, "notebooks/double.ipynb", "int(line) * factor", "factor * int(line)")

    events = ran.events()

    assert stage_names(events, StageStarted) == ["data.double"]
    reused = {event.stage: event.how for event in events if isinstance(event, StageReused)}
    assert reused == {"data.total": "unchanged inputs"}


def edit_unnoticeably(path: Path, content: str) -> None:
    """Write a text of the same size and give the file back its time stamp."""
    before = path.stat()
    assert len(content.encode()) == before.st_size
    with open(path, "r+b") as stream:
        stream.write(content.encode())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_hand_edited_output_of_same_size_and_time_stamp_is_noticed_and_put_right(ran: SmallProject) -> None:
    assert ran.actions() == UP_TO_DATE  # what it measured is remembered
    edit_unnoticeably(ran.root / "data/doubled.txt", "9\n9\n9")

    assert ran.actions() == {"data.double": "restore", "data.total": "up to date"}
    notes: list[str] = []
    state = ran.run(note=notes.append)

    assert ran.statuses(state)["data.double"] == "restored"
    assert ran.text("data/doubled.txt") == "2\n4\n6"
    # What a person wrote is kept, and they are told where.
    (kept,) = (ran.root / ".nbtools/replaced").rglob("doubled.txt")
    assert kept.read_text() == "9\n9\n9"
    assert any(str(kept.relative_to(ran.root)) in note for note in notes)


def test_hand_edited_input_of_same_size_and_time_stamp_is_noticed(ran: SmallProject) -> None:
    assert ran.actions() == UP_TO_DATE
    edit_unnoticeably(ran.root / "data/numbers.txt", "1\n2\n4\n")

    assert ran.actions()["data.double"] == "run"
    assert ran.run().status == "passed"
    assert ran.text("data/total.txt") == "14"


def test_deleted_output_is_restored_without_running(ran: SmallProject) -> None:
    (ran.root / "data/doubled.txt").unlink()
    (ran.root / "data/total.txt").unlink()

    events = ran.events()

    assert stage_names(events, StageStarted) == []
    assert ran.text("data/total.txt") == "12"


def test_run_overwrites_neither_notebooks_nor_inputs(tmp_path: Path) -> None:
    project = two_stages(tmp_path)
    paths = ["notebooks/double.ipynb", "notebooks/total.ipynb", "data/numbers.txt", "pipelines.yaml"]
    before = [((tmp_path / path).read_bytes(), (tmp_path / path).stat()) for path in paths]
    project.run(params={"factor": 7})
    after = [((tmp_path / path).read_bytes(), (tmp_path / path).stat()) for path in paths]
    assert [item[0] for item in after] == [item[0] for item in before]
    assert [item[1].st_mtime_ns for item in after] == [item[1].st_mtime_ns for item in before]
    assert [item[1].st_ino for item in after] == [item[1].st_ino for item in before]


VALUES: Mapping[str, Any] = {
    "no": False,
    "yes": True,
    "nothing": None,
    "whole": -(2**70),
    "small": 1e-3,
    "round_number": 1.0,
    "infinite": math.inf,
    "undefined": math.nan,
    "quotes": 'it\'s "quoted" \\ and {braced} %d\n\ttwo lines \'a\' """b""" \r end',
    "word": "no",
    "code": "__import__('os').abort()",
    "unicode": "snow ☃ and 𝄞",
    "items": [1, "1", 1.5, None, [False, {}]],
    "mapping": {"a b": {"c": [1, 2]}, "d'e": False},
    "nothing_in_it": "",
}


def test_values_written_in_yaml_reach_the_kernel_unchanged(tmp_path: Path) -> None:
    project = SmallProject(tmp_path)
    # YAML reads JSON, but for its names of what is no number.
    params = json.dumps(VALUES, ensure_ascii=False).replace("Infinity", ".inf").replace("NaN", ".nan")
    project.write(
        "pipelines.yaml",
        f"version: 1\nproject: small\nparams: {params}\ndata: {{result: seen.pkl}}\n"
        "pipelines: {work: {stages: {only: {notebook: only.ipynb, outputs: [result]}}}}\n",
    )
    names = list(VALUES)
    project.notebook(
        "only.ipynb",
        f"import pickle\npickle.dump([{', '.join(names)}], open(result, 'wb'))",
        params="\n".join([*(f"{name} = None" for name in names), "result = 'seen.pkl'"]),
    )
    assert project.run().status == "passed"

    import pickle

    seen = dict(zip(names, pickle.loads((tmp_path / "seen.pkl").read_bytes()), strict=True))
    assert {name: value for name, value in VALUES.items() if not same_value(value, seen[name])} == {}
    assert seen["no"] is False
    assert project.actions() == {"work.only": "up to date"}


@pytest.mark.parametrize("name", ["factr", "double.factr"])
def test_unknown_param_ends_with_an_error_before_any_kernel_starts(tmp_path: Path, name: str) -> None:
    project = two_stages(tmp_path)
    events: list[Any] = []
    with pytest.raises(UsageError, match="did you mean 'factor'") as caught:
        project.run(params={name: 3}, listeners=[events.append])
    assert caught.value.exit_code == 2
    assert events == []
    assert nbtools.api.history(project=tmp_path) == []


@pytest.mark.parametrize("value", [(1, 2), b"x", {1: 2}, object()], ids=["tuple", "bytes", "key", "object"])
def test_value_that_would_not_arrive_unchanged_is_refused_before_anything_runs(
    tmp_path: Path, value: Any
) -> None:
    project = two_stages(tmp_path)
    with pytest.raises(UsageError, match="would arrive as a string"):
        project.run(params={"factor": value})
    assert nbtools.api.history(project=tmp_path) == []


def test_notebook_without_language_info_tags_or_cell_ids_runs(tmp_path: Path) -> None:
    project = SmallProject(tmp_path)
    project.spec("pipelines: {work: {stages: {bare: {notebook: bare.ipynb}}}}")
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": ["# No ids"]},
        {
            "cell_type": "code",
            "metadata": {},
            "execution_count": None,
            "outputs": [],
            "source": ["x = 6 * 7"],
        },
        {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": [], "source": "print(x)"},
    ]
    bare = {"nbformat": 4, "nbformat_minor": 2, "metadata": {}, "cells": cells}
    project.write("bare.ipynb", json.dumps(bare))

    assert project.run().status == "passed"

    outputs = [cell.get("outputs") for cell in project.cells(".nbtools/executed/work.bare.ipynb")]
    assert any(output and output[0]["text"] in ("42\n", ["42\n"]) for output in outputs)
    assert project.actions() == {"work.bare": "up to date"}


def git(folder: Path, *words: str) -> str:
    """Run git and return what it prints."""
    identity = ("-c", "user.name=A Tester", "-c", "user.email=tester@example.org")
    done = subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def test_run_never_touches_gits_ignore_file_and_keeps_its_state_out_of_git(tmp_path: Path) -> None:
    project = two_stages(tmp_path)
    ignore = project.write(".gitignore", "data/doubled.txt\ndata/total.txt\n")
    git(tmp_path, "init", "-q", "-b", "trunk")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "The whole story")
    before = (ignore.read_bytes(), ignore.stat().st_mtime_ns)

    assert project.run().status == "passed"

    assert (ignore.read_bytes(), ignore.stat().st_mtime_ns) == before
    assert git(tmp_path, "status", "--porcelain") == ""
    (row,) = nbtools.api.history(project=tmp_path)
    assert (row.branch, row.message, row.dirty) == ("trunk", "The whole story", False)
    assert row.commit == git(tmp_path, "rev-parse", "HEAD").strip()


def test_switching_a_git_branch_back_restores_results_without_running(tmp_path: Path) -> None:
    project = two_stages(tmp_path)
    project.write(".gitignore", "data/doubled.txt\ndata/total.txt\n")
    git(tmp_path, "init", "-q", "-b", "trunk")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    project.run()
    git(tmp_path, "switch", "-q", "-c", "other")
    project.write("data/numbers.txt", "10\n")
    git(tmp_path, "commit", "-q", "-a", "-m", "two")
    project.run()
    assert project.text("data/total.txt") == "20"

    git(tmp_path, "switch", "-q", "trunk")
    events = project.events()

    assert stage_names(events, StageStarted) == []
    assert project.text("data/total.txt") == "12"


def test_second_run_waits_for_the_first_and_then_finds_everything_done(tmp_path: Path) -> None:
    project = one_stage(
        tmp_path,
        """
        import time
        from pathlib import Path
        Path("began").touch()
        deadline = time.monotonic() + 60
        while not Path("go").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        """,
    )
    with project.start("run", "--no-tracking") as first:
        wait_until((tmp_path / "began").exists)
        running = nbtools.api.status(tmp_path).running
        with project.start("run", "--no-tracking") as second:
            assert second.stderr is not None
            said = second.stderr.readline()
            assert "waiting for run" in said
            assert running in said
            assert second.poll() is None
            project.write("go", "")
            assert first.wait(60) == 0
            assert second.wait(60) == 0
    rows = nbtools.api.history(project=tmp_path)
    assert [row.status for row in rows] == ["passed", "passed"]
    assert nbtools.api.show(project=tmp_path).stages["work.only"].status == "up to date"
    assert nbtools.api.status(tmp_path).running == ""


def test_module_of_the_project_that_changes_reruns_the_stages_that_import_it(tmp_path: Path) -> None:
    project = one_stage(tmp_path, "from package.inner import value\nprint(value)")
    project.write("package/__init__.py", "")
    project.write("package/inner.py", "from package.deeper import value")
    project.write("package/deeper.py", "value = 1")
    assert project.run().status == "passed"
    assert project.actions() == {"work.only": "up to date"}
    project.write("package/deeper.py", "value = 1  # a comment counts here: modules are compared by bytes")
    assert project.actions() == {"work.only": "run"}
    (found,) = nbtools.api.why("only", project=tmp_path)
    assert [str(change) for change in found.differences] == ["module package/deeper.py changed"]


def test_damaged_store_is_never_believed(ran: SmallProject) -> None:
    ran.run(params={"factor": 3})
    for path in (ran.root / ".nbtools/store").rglob("*"):
        if path.is_file() and path.read_bytes() == b"2\n4\n6":
            path.chmod(0o644)
            path.write_bytes(b"6\n6\n6")

    events = ran.events(params={"factor": 2})

    assert stage_names(events, StageStarted) == ["data.double"]
    assert ran.text("data/doubled.txt") == "2\n4\n6"
    assert ran.text("data/total.txt") == "12"
