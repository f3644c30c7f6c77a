"""What a run leaves of its origin: manifests, and what its code can be restored from."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import mlflow
import pytest

from nbtools.execution.store import Store
from nbtools.project import Project
from tests.projects import SmallProject, two_stages

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "manifest.schema.json").read_text())


def git(root: Path, *words: str) -> str:
    """Run git as a person of its own, whatever the machine's configuration says."""
    who = ("-c", "user.name=Jo", "-c", "user.email=jo@example.org", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(root), *who, *words]
    return subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout


def committed(project: SmallProject) -> SmallProject:
    """Put a project into a git repository of its own."""
    project.write(".gitignore", "data/doubled.txt\ndata/total.txt\n")
    git(project.root, "init", "--quiet")
    git(project.root, "add", "--all")
    git(project.root, "commit", "--quiet", "--message", "first")
    return project


def manifest(project: SmallProject, run: str) -> dict[str, Any]:
    """Return the manifest of a run as it lies in the project."""
    found = json.loads((project.root / f".nbtools/lineage/{run}.json").read_text())
    jsonschema.validate(found, SCHEMA)
    return found


def test_manifest_names_code_params_data_packages_and_seeds(tmp_path: Path) -> None:
    project = committed(two_stages(tmp_path))
    state = project.run(params={"factor": 3})
    found = manifest(project, state.run)

    assert found["status"] == "passed"
    assert found["params"] == {"factor": 3}
    assert found["revision"]["commit"] == git(project.root, "rev-parse", "HEAD").strip()
    assert found["revision"]["dirty"] is False
    assert set(found["files"]) == {"notebooks/double.ipynb", "notebooks/total.ipynb", "pipelines.yaml"}
    (environment,) = found["environments"].values()
    assert {"nbtools", "ipykernel", "ruff"} <= set(environment["packages"])  # imported or not
    assert "nbtools" in environment["origins"]  # installed from a folder, not from an index
    double = found["stages"]["data.double"]
    assert double["params"] == {"factor": 3}
    assert double["notebook_digest"] == found["files"]["notebooks/double.ipynb"]
    assert double["inputs"]["numbers"]["path"] == "data/numbers.txt"
    assert double["outputs"]["doubled"]["digest"] == state.stages["data.double"].outputs[0].digest
    assert double["seeds"]["PYTHONHASHSEED"] == "0"
    store = Store(Project(tmp_path).lineage / "objects")
    assert all(store.holds(digest) for digest in found["files"].values())


def test_run_that_executes_nothing_writes_no_manifest(tmp_path: Path) -> None:
    project = two_stages(tmp_path)
    first = project.run()
    again = project.run()
    assert (tmp_path / f".nbtools/lineage/{first.run}.json").exists()
    assert not (tmp_path / f".nbtools/lineage/{again.run}.json").exists()


def test_uncommitted_changes_are_kept_as_a_patch_without_data_and_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "s3cret-token")
    project = two_stages(tmp_path)
    project.write("own.py", "value = 1\n")
    for name in ("notes.txt", "config.ini", ".env", "big.bin"):
        project.write(name, "before\n")
    git(project.root, "init", "--quiet")
    git(project.root, "add", "--all")
    git(project.root, "commit", "--quiet", "--message", "first")
    project.write("own.py", "value = 2\n")
    project.write("notes.txt", "after\n")
    project.write("config.ini", "token = s3cret-token\n")
    project.write(".env", "PASSWORD=hunter2\n")
    project.write("big.bin", b"\0" * 6_000_000)
    project.write("helper.py", "from own import value\n")  # used, but git does not know it yet
    project.spec(
        """
        params: {token: {secret: TOKEN}}
        data: {result: result.txt}
        pipelines: {work: {stages: {only: {notebook: only.ipynb, outputs: [result]}}}}
        """
    )
    write = "import helper\nopen(result, 'w').write(str(helper.value))"
    project.notebook("only.ipynb", write, params="token = result = ''")
    found = manifest(project, project.run().run)

    store = Store(Project(tmp_path).lineage / "objects")
    patch = store.read(found["revision"]["patch"]).decode()
    assert "+value = 2" in patch
    assert "+after" in patch
    assert "hunter2" not in patch
    assert "s3cret-token" not in patch
    assert "big.bin" not in patch
    assert store.read(found["files"]["helper.py"]) == b"from own import value\n"
    assert sorted(line.split(":")[0] for line in found["left_out"]) == [".env", "big.bin", "config.ini"]
    # It brings back what was there.
    (tmp_path / "patch").write_text(patch)
    git(project.root, "stash", "--quiet")
    git(project.root, "apply", "patch")
    assert project.text("own.py") == "value = 2\n"


def test_each_stage_that_was_executed_has_its_manifest_in_mlflow(tmp_path: Path) -> None:
    project = committed(two_stages(tmp_path))
    project.notebook(
        "notebooks/total.ipynb",
        "import pandas as pd\npd.DataFrame({'a': [1, 2], 'b': ['x', None]}).to_parquet(total)",
        params="doubled = total = ''",
    )
    text = project.text("pipelines.yaml").replace("data/total.txt", "data/total.parquet")
    project.write("pipelines.yaml", text)
    state = project.run(track=True)
    assert state.status == "passed"

    uri = f"sqlite:///{tmp_path}/.nbtools/mlflow.db"
    client = mlflow.MlflowClient(tracking_uri=uri)
    runs = {item.data.tags.get("nbtools.stage", ""): item for item in client.search_runs(["1"])}
    for stage, item in runs.items():
        text = mlflow.artifacts.load_text(f"{item.info.artifact_uri}/manifest.json")
        found = json.loads(text)
        jsonschema.validate(found, SCHEMA)
        assert found["tracking"]["run_id"] == item.info.run_id
        assert found.get("stage", "") == stage
    total = json.loads(mlflow.artifacts.load_text(f"{runs['data.total'].info.artifact_uri}/manifest.json"))
    assert total["outputs"]["total"]["rows"] == 2
    assert set(total["outputs"]["total"]["columns"]) == {"a", "b"}
    assert total["revision"]["patch"]
    patch = mlflow.artifacts.load_text(f"{runs[''].info.artifact_uri}/uncommitted.patch")
    assert "to_parquet" in patch
    local = manifest(project, state.run)
    assert local["stages"]["data.total"]["outputs"]["total"]["rows"] == 2


def test_failed_stage_has_a_manifest_too(tmp_path: Path) -> None:
    project = two_stages(tmp_path)
    project.notebook("notebooks/total.ipynb", "1 / 0", params="doubled = total = ''")
    found = manifest(project, project.run().run)
    assert found["status"] == "failed"
    assert found["stages"]["data.total"]["status"] == "failed"
    assert "ZeroDivisionError" in found["stages"]["data.total"]["failure"]
    assert found["stages"]["data.total"]["inputs"]["doubled"]["digest"]
