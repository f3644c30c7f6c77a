"""Datasets: what external ones must be, what all of them are and were, and bringing them back."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

import nbtools
from nbtools.errors import DataError, UsageError
from tests.projects import SmallProject, two_stages

TABLES = """
    params: {shift: 0}
    data:
      raw: {path: raw.csv, description: "as it comes", owner: jo}
      clean: clean.parquet
    pipelines: {p: {stages: {clean: {notebook: n.ipynb, inputs: [raw], outputs: [clean]}}}}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> SmallProject:
    """Return a project with two runs; in the second, the numbers of a table moved."""
    project = SmallProject(tmp_path_factory.mktemp("data"))
    project.spec(TABLES)
    project.write("raw.csv", "x,y\n" + "\n".join(f"{n},a" for n in range(100)))
    code = "import pandas as pd\nt = pd.read_csv(raw)\nt.x = t.x + shift\nif shift: t['z'] = 1\nt.to_parquet(clean)"
    project.notebook("n.ipynb", code, params="shift = 1\nraw = ''\nclean = ''")
    project.run()
    project.run(params={"shift": 50})
    return project


def runs(project: SmallProject) -> list[str]:
    """Return the ids of the runs, oldest first."""
    return [row.run for row in reversed(nbtools.history(project=project.root))]


def test_datasets_are_listed_with_who_makes_and_uses_them(project: SmallProject) -> None:
    raw, clean = nbtools.data(project=project.root)
    assert (raw.is_external, raw.used_by, raw.state, raw.rows) == (True, ("p.clean",), "present", 100)
    assert (clean.made_by, clean.used_by, clean.rows) == (("p.clean",), (), 100)
    assert dict(clean.columns or {})["z"] == "int64"
    done = project.command("data")
    assert done.returncode == 0
    assert "external" in done.stdout
    assert json.loads(project.command("data", "--json").stdout)[0]["owner"] == "jo"


def test_versions_of_a_dataset_are_told_over_the_runs(project: SmallProject) -> None:
    first, second = runs(project)[:2]
    found = nbtools.data_show("clean", project=project.root)
    assert [version.run for version in found.versions[:2]] == [second, first]
    assert all(version.is_stored for version in found.versions)
    assert [len(version.columns or {}) for version in found.versions[:2]] == [3, 2]
    raw = nbtools.data_show("raw", project=project.root)
    (version,) = raw.versions
    assert (version.runs, version.is_stored, version.rows) == (2, True, 100)  # it is small
    assert "as it comes" in project.command("data", "show", "raw").stdout


def test_runs_differ_in_schema_and_distribution(project: SmallProject) -> None:
    first, second = runs(project)[:2]
    found = nbtools.data_diff(first, second, project=project.root)
    changes = {change.dataset: change for change in found.datasets}
    assert changes["raw"].kind == "same"
    columns = {column.column: column for column in changes["clean"].columns}
    assert (columns["x"].drift, columns["y"].kind, columns["z"].kind) == ("much", "same", "added")
    done = project.command("data", "diff", first, second, "clean")
    assert done.returncode == 0
    assert "much" in done.stdout
    json.loads(project.command("data", "diff", first, second, "--json").stdout)


def test_old_bytes_come_back_and_unknown_ones_are_kept_aside(project: SmallProject, tmp_path: Path) -> None:
    first, second = runs(project)[:2]
    by_hand = b"somebody's own work"
    project.write("clean.parquet", by_hand)
    notes: list[str] = []
    found = nbtools.data_restore(first, ["clean"], project=project.root, note=notes.append)
    assert [item.how for item in found] == ["restored"]
    assert hashlib.sha256((project.root / "clean.parquet").read_bytes()).hexdigest() == found[0].digest
    (kept,) = (project.root / ".nbtools/replaced").rglob("clean.parquet")
    assert kept.read_bytes() == by_hand
    assert nbtools.data(project=project.root)[1].state == "changed"

    nbtools.data_restore(second, to=tmp_path / "there", project=project.root)
    assert {path.name for path in (tmp_path / "there").iterdir()} == {"raw.csv", "clean.parquet"}
    again = nbtools.data_restore(second, to=tmp_path / "there", project=project.root)
    assert {item.how for item in again} == {"present"}
    with pytest.raises(UsageError, match="something else is there already"):
        nbtools.data_restore(first, to=tmp_path / "there", project=project.root)


def test_unknown_names_are_answered_with_the_nearest(project: SmallProject) -> None:
    (first, second) = runs(project)[:2]
    for words in (("show", "claen"), ("restore", first, "claen"), ("diff", first, second, "claen")):
        done = project.command("data", *words)
        assert (done.returncode, "did you mean 'clean'" in done.stderr) == (2, True), words


def test_external_data_must_have_the_expected_digest(tmp_path: Path) -> None:
    project = two_stages(tmp_path)
    right = hashlib.sha256((tmp_path / "data/numbers.txt").read_bytes()).hexdigest()
    text = project.text("pipelines.yaml")
    entry = "numbers: {path: data/numbers.txt, digest: 'sha256:%s'}"
    project.write("pipelines.yaml", text.replace("numbers: data/numbers.txt", entry % right))
    assert project.run().status == "passed"
    project.write("data/numbers.txt", "4\n")
    with pytest.raises(DataError) as caught:
        project.run()
    (problem,) = caught.value.problems
    assert problem.where.startswith("pipelines.yaml:")
    assert right in problem.message
    assert nbtools.data(project=tmp_path)[0].state == "changed"
    done = project.command("run")
    assert done.returncode == 1
    assert "is not the expected one" in done.stderr
