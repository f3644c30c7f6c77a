"""``nbtools reproduce``: an earlier run again, from what was kept of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import nbtools
from nbtools.errors import DataError, OperationError, UsageError
from tests.integration.test_lineage import committed, git
from tests.projects import SmallProject, two_stages


def reproduce(project: SmallProject, run: str, *stages: str, **options: Any) -> nbtools.api.Reproduction:
    """Repeat a run; afterwards, nothing must be left of the folder that it was done in."""
    try:
        return nbtools.reproduce(run, stages, project=project.root, **options)
    finally:
        assert not (project.root / ".nbtools/reproduce").exists()
        if (project.root / ".git").exists():
            assert len(git(project.root, "worktree", "list").splitlines()) == 1


def verdicts(found: nbtools.api.Reproduction) -> dict[str, str]:
    """Return the verdict on each stage."""
    return {item.stage: item.verdict for item in found.stages}


IDENTICAL = {"data.double": "identical", "data.total": "identical"}


def test_run_is_repeated_from_its_commit_although_everything_has_changed_since(tmp_path: Path) -> None:
    project = committed(two_stages(tmp_path))
    first = project.run(params={"factor": 3}).run
    project.notebook("notebooks/double.ipynb", "1 / 0", params="factor = 1\nnumbers = doubled = ''")
    project.write("data/numbers.txt", "7\n")
    git(project.root, "commit", "--all", "--quiet", "--message", "second")
    before = project.text("data/total.txt")

    found = reproduce(project, first)

    assert verdicts(found) == IDENTICAL
    assert found.is_reproduced
    assert found.environment == ()
    assert project.text("data/total.txt") == before
    assert project.text("data/numbers.txt") == "7\n"


def test_folder_that_is_a_link_out_of_the_project_is_not_written_to(tmp_path: Path) -> None:
    project = two_stages(tmp_path / "project")
    shutil.move(project.root / "notebooks", tmp_path / "elsewhere")
    (project.root / "notebooks").symlink_to(tmp_path / "elsewhere")
    committed(project)
    first = project.run().run
    theirs = tmp_path / "elsewhere/double.ipynb"
    theirs.write_text(theirs.read_text().replace("factor for", "factor * 10 for"))
    before = theirs.read_bytes()

    assert verdicts(reproduce(project, first)) == IDENTICAL
    assert theirs.read_bytes() == before


def test_other_worktrees_stay_although_they_are_away(tmp_path: Path) -> None:
    project = committed(two_stages(tmp_path / "project"))
    git(project.root, "worktree", "add", "--quiet", "--detach", str(tmp_path / "other"))
    shutil.move(tmp_path / "other", tmp_path / "away")
    nbtools.reproduce(project.run().run, project=project.root)
    shutil.move(tmp_path / "away", tmp_path / "other")
    assert git(tmp_path / "other", "status", "--short") == ""
    assert len(git(project.root, "worktree", "list").splitlines()) == 2


@pytest.mark.parametrize("path", ["../../../out.txt", "/{tmp}/out.txt"])
def test_path_of_a_record_that_leads_out_is_refused(tmp_path: Path, path: str) -> None:
    project = committed(two_stages(tmp_path / "project"))
    first = project.run().run
    (record,) = (project.root / ".nbtools/lineage").glob("*.code.json")
    content = json.loads(record.read_text())
    content["files"][path.replace("/{tmp}", str(tmp_path))] = next(iter(content["files"].values()))
    record.write_text(json.dumps(content))
    with pytest.raises(DataError, match="leads out of the project"):
        reproduce(project, first)
    assert not list(tmp_path.rglob("out.txt"))


def test_dirty_tree_is_repeated_as_it_was_and_one_stage_alone(tmp_path: Path) -> None:
    project = committed(two_stages(tmp_path))
    project.write("own.py", "more = 5\n")  # git does not know it
    project.notebook(
        "notebooks/total.ipynb",
        "import own\nfrom pathlib import Path",
        "Path(total).write_text(str(own.more + len(Path(doubled).read_text())))",
        params="doubled = total = ''",
    )
    first = project.run().run
    project.write("own.py", "more = 6\n")
    git(project.root, "checkout", "--", "notebooks")

    assert verdicts(reproduce(project, first)) == IDENTICAL
    events: list[object] = []
    found = reproduce(project, first, "total", listeners=[events.append])
    assert verdicts(found) == {"data.total": "identical"}
    executed = {event.stage for event in events if type(event).__name__ == "StageStarted"}  # type: ignore[attr-defined]
    assert executed == {"data.total"}


def test_what_is_not_determined_differs_and_the_command_fails_with_the_cell_that_does(tmp_path: Path) -> None:
    project = committed(two_stages(tmp_path))
    project.notebook(
        "notebooks/total.ipynb",
        "import uuid",
        "name = str(uuid.uuid4())\nprint('name', name)",
        "open(total, 'w').write(name)",
        params="doubled = total = ''",
    )
    run = project.run().run

    done = project.command("reproduce", run, "--quiet")

    assert done.returncode == 1, done.stderr
    assert "identical  data.double" in done.stdout
    assert "different  data.total" in done.stdout
    assert "code cell 3 put out something else: 'name " in done.stdout
    assert f"not reproduced: run {run}, 1 identical, 1 different" in done.stdout
    done = project.command("reproduce", run, "--quiet", "--ignore", "tot*", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "reproduced"


def test_content_within_the_tolerance_is_equal_and_seeded_numbers_are_identical(tmp_path: Path) -> None:
    project = committed(two_stages(tmp_path))
    project.notebook(
        "notebooks/double.ipynb",
        "import random, numpy as np",
        "open(doubled, 'w').write(f'{random.random()} {np.random.rand()} {sorted(set(\"abcdef\"), key=hash)}')",
        params="factor = 1\nnumbers = doubled = ''",
    )
    project.notebook(
        "notebooks/total.ipynb",
        "import json, time",
        "json.dump({'value': 1 + 1e-9 * (time.time() % 1), 'n': 3}, open(total, 'w'))",
        params="doubled = total = ''",
    )
    text = project.text("pipelines.yaml").replace("data/total.txt", "data/total.json")
    project.write("pipelines.yaml", text)
    run = project.run().run
    found = reproduce(project, run)
    assert verdicts(found) == {"data.double": "identical", "data.total": "equal"}
    assert found.is_reproduced
    found = reproduce(project, run, "total", rtol=0.0)
    assert verdicts(found) == {"data.total": "different"}
    assert "total: value: 1.0" in " ".join(found.stages[0].differences)


def test_project_without_git_is_repeated_from_the_files_that_were_kept(tmp_path: Path) -> None:
    project = two_stages(tmp_path)
    first = project.run().run
    project.notebook("notebooks/total.ipynb", "1 / 0", params="doubled = total = ''")
    (tmp_path / "data/numbers.txt").unlink()  # a small one: it was kept
    assert verdicts(reproduce(project, first)) == IDENTICAL


def test_run_that_executed_nothing_stands_for_the_one_that_made_its_results(tmp_path: Path) -> None:
    project = two_stages(tmp_path)
    first = project.run().run
    again = project.run().run
    notes: list[str] = []
    assert reproduce(project, again, note=notes.append).run == first
    assert any(first in words for words in notes)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    project = two_stages(tmp_path)
    text = project.text("pipelines.yaml").replace(
        "numbers: data/numbers.txt", "numbers: {path: data/numbers.txt, keep: false}"
    )
    project.write("pipelines.yaml", text)
    run = project.run().run
    project.write("data/numbers.txt", "8\n")
    with pytest.raises(DataError, match=r"external data 'numbers' of the run .* are neither here nor kept"):
        reproduce(project, run)
    with pytest.raises(UsageError, match="no result of a stage 'totla'"):
        reproduce(project, run, "totla")
    with pytest.raises(UsageError, match="there is no run 'nope'"):
        reproduce(project, "nope")
    with pytest.raises(UsageError, match="'biuld' is no environment"):
        reproduce(project, run, environment="biuld")
    project.write("data/numbers.txt", "1\n2\n3\n")
    shutil.rmtree(tmp_path / ".nbtools/lineage/objects")
    with pytest.raises(DataError, match=r"the file as it was in the run, .* is not kept"):
        reproduce(project, run)


def test_other_packages_are_named_and_used_only_if_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = committed(two_stages(tmp_path))
    run = project.run().run
    # As if pandas had been upgraded since: what was kept of the environment is another one.
    store = tmp_path / ".nbtools/lineage/objects"
    code = json.loads((tmp_path / f".nbtools/lineage/{run}.code.json").read_text())
    ((interpreter, digest),) = code["environments"].items()
    environment = json.loads((store / digest[:2] / digest[2:]).read_text())
    environment["packages"] |= {"pandas": "1.5.3"}
    from nbtools.execution.store import Store

    code["environments"][interpreter] = Store(store).add_bytes(json.dumps(environment).encode())
    (tmp_path / f".nbtools/lineage/{run}.code.json").write_text(json.dumps(code))

    with pytest.raises(OperationError, match=r"pandas 3\S+, then 1.5.3"):
        reproduce(project, run, environment="check")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    if shutil.which("uv") is None:
        with pytest.raises(OperationError) as caught:
            reproduce(project, run)
        assert "install uv" in caught.value.problems[0].fix
    found = reproduce(project, run, environment="current")
    assert verdicts(found) == IDENTICAL
    assert found.environment[0].endswith("then 1.5.3")


def test_sweep_is_repeated_with_the_variants_that_it_had(tmp_path: Path) -> None:
    project = committed(two_stages(tmp_path))
    swept = nbtools.sweep("double", {"factor": [2, 5]}, project=project.root, track=False)
    assert swept.status == "passed"
    project.notebook("notebooks/double.ipynb", "1 / 0", params="factor = 1\nnumbers = doubled = ''")

    found = reproduce(project, swept.run)
    assert verdicts(found) == {"data.double[factor=2]": "identical", "data.double[factor=5]": "identical"}
    found = reproduce(project, swept.run, "double[factor=5]")
    assert verdicts(found) == {"data.double[factor=5]": "identical"}


def test_what_a_killed_command_left_is_removed_by_the_next_run(tmp_path: Path) -> None:
    project = committed(two_stages(tmp_path))
    project.run()
    left = tmp_path / ".nbtools/reproduce/tree"
    left.parent.mkdir()
    git(project.root, "worktree", "add", "--quiet", "--detach", str(left), "HEAD")
    project.run()
    assert not left.parent.exists()
    assert len(git(project.root, "worktree", "list").splitlines()) == 1
