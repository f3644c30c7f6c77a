"""``nbtools.package`` outside a pipeline, in a project that keeps its runs elsewhere."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient

PROJECT = """
version: 1
project: explored
tracking: {uri: "sqlite:///team/runs.db", experiment: flights}
pipelines: {p: {stages: {s: {notebook: n.ipynb}}}}
"""
SCRIPT = """
    import concurrent.futures, json, sys, mlflow, numpy as np, pandas as pd, nbtools, features
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    X = pd.DataFrame({"a": np.arange(40.0), "b": np.arange(40.0)[::-1]})
    trees = HistGradientBoostingClassifier(max_iter=3)
    model = make_pipeline(FunctionTransformer(features.double), trees).fit(X, X.a > 20)

    class Triples(mlflow.pyfunc.PythonModel):
        def predict(self, model_input, params=None):
            return features.double(model_input.a) * 1.5

    class Quadruples(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return model_input.a * 4

    def doubles(frame):
        return features.double(frame.a)

    def refused(**options):
        try:
            nbtools.package(model, "refused", **options)
        except nbtools.errors.UsageError as error:
            return str(error)

    found = {
        "trees": nbtools.package(model, "late.arrival 50%", example=X.head(3), extra_files=["notes", "card.md"]).uri,
        "triples": nbtools.package(Triples(), "triples", example=X.head(3)).uri,
        "quadruples": nbtools.package(Quadruples(), "quadruples", example=X.head(3)).uri,
        "doubles": nbtools.package(doubles, "überdoubles", example=X.head(3), tags={"owner": 7}).uri,
        "refused": [
            refused(example=X.head(3), pyfunc_predict_fn="nope"),
            refused(extra_files=["nope.txt"]),
        ],
        "heavy": sorted({"xgboost", "jupyterlab"} & set(sys.modules)),
    }
    print("found:", json.dumps(found))
"""


def python(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "NBTOOLS_"))
    }
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("explored")
    (root / "pipelines.yaml").write_text(PROJECT)
    (root / "features.py").write_text("import scaling\ndef double(x):\n    return x * scaling.FACTOR\n")
    (root / "scaling.py").write_text("FACTOR = 2\n")
    (root / "unrelated.py").write_text("")
    (root / "card.md").write_text("card")
    (root / "notes").mkdir()
    (root / "notes" / "a.txt").write_text("a")
    return root


@pytest.fixture(scope="module")
def found(root: Path) -> dict[str, Any]:
    done = python(SCRIPT, root)
    lines = [line for line in done.stdout.splitlines() if line.startswith("found: ")]
    assert lines, done.stderr
    return dict(json.loads(lines[0].removeprefix("found: ")))


@pytest.fixture(autouse=True)
def _store(root: Path) -> None:
    # For each test anew: conftest.py undoes it after each, but not what a fixture of the module's did.
    mlflow.set_tracking_uri(f"sqlite:///{root}/team/runs.db")


def test_models_and_runs_land_where_pipelines_yaml_says(root: Path, found: dict[str, Any]) -> None:
    client = MlflowClient()
    experiment = client.get_experiment_by_name("flights")
    assert experiment is not None
    assert {run.info.status for run in client.search_runs([experiment.experiment_id])} == {"FINISHED"}
    assert client.search_runs(["0"]) == []
    assert not (root / ".nbtools" / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("trees", [False, True]),
        ("triples", [3.0, 90.0]),
        ("quadruples", [4.0, 120.0]),
        ("doubles", [2.0, 60.0]),
    ],
)
def test_models_load_where_the_projects_modules_are_not(
    root: Path, tmp_path: Path, found: dict[str, Any], model: str, expected: list
) -> None:
    script = f"""
    import json, mlflow, pandas as pd
    mlflow.set_tracking_uri("sqlite:///{root}/team/runs.db")
    model = mlflow.pyfunc.load_model({found[model]!r})
    predicted = model.predict(pd.DataFrame({{"a": [1.0, 30.0], "b": [2.0, 3.0]}}))
    print(json.dumps(list(predicted), default=bool))
    """
    done = python(script, tmp_path)
    assert done.stdout, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == expected


def test_model_brings_the_modules_that_it_needs_and_no_others(found: dict[str, Any]) -> None:
    folder = Path(mlflow.artifacts.download_artifacts(found["trees"]))
    # Whoever loads the model from where it is kept may leave byte code there.
    brought = {path.name for path in (folder / "code").iterdir()} - {"__pycache__"}
    assert brought == {"features.py", "scaling.py"}


def test_extra_files_and_folders_lie_beside_the_model(found: dict[str, Any]) -> None:
    folder = Path(mlflow.artifacts.download_artifacts(found["trees"]))
    assert (folder / "extra_files" / "card.md").read_text() == "card"
    assert (folder / "extra_files" / "notes" / "a.txt").read_text() == "a"


def test_version_names_its_manifest_by_digest(found: dict[str, Any]) -> None:
    version = MlflowClient().get_model_version("überdoubles", "1")
    folder = Path(mlflow.artifacts.download_artifacts(found["doubles"]))
    manifest = (folder / version.tags["nbtools.lineage"]).read_bytes()
    assert hashlib.sha256(manifest).hexdigest() == version.tags["nbtools.lineage_digest"]
    assert json.loads(manifest)["missing"] == [version.tags["nbtools.missing"]]
    assert version.tags["owner"] == "7"


def test_what_is_refused_leaves_no_run_and_no_model(found: dict[str, Any]) -> None:
    assert "no method 'nope'" in found["refused"][0]
    assert "does not exist" in found["refused"][1]
    names = {model.name for model in MlflowClient().search_registered_models()}
    assert names == {"late.arrival 50%", "triples", "quadruples", "überdoubles"}


def test_two_processes_that_register_at_once_get_different_versions(
    root: Path, found: dict[str, Any]
) -> None:
    script = """
    import nbtools
    def same(frame):
        return frame.a
    print(nbtools.package(same, "shared").version)
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    both = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            env=environment,
        )
        for _ in range(2)
    ]
    versions = [process.communicate(timeout=120)[0].split()[-1] for process in both]
    assert sorted(versions) == ["1", "2"]
    assert {int(item.version) for item in MlflowClient().search_model_versions("name='shared'")} == {1, 2}


def test_signature_comes_from_the_example(found: dict[str, Any]) -> None:
    info = mlflow.models.get_model_info(found["triples"])
    assert info.signature is not None
    assert info.signature.inputs.input_names() == ["a", "b"]
    loaded = mlflow.pyfunc.load_model(found["quadruples"])
    with pytest.raises(mlflow.MlflowException):
        loaded.predict(pd.DataFrame({"b": [1.0]}))
