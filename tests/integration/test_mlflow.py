"""A run as MLflow's own client sees it, on a real SQLite store."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

import nbtools
from nbtools.tracking.template import ensure_store, template_path
from tests.projects import SmallProject, one_stage

SPEC = """
    params: {alpha: 0.5, token: {secret: SMALL_TOKEN}}
    data: {raw: data/raw.txt, made: data/made.txt, last: data/last.txt}
    pipelines:
      train:
        stages:
          fit: {notebook: notebooks/fit.ipynb, inputs: [raw], outputs: [made]}
          bad: {notebook: notebooks/bad.ipynb, inputs: [made], outputs: [last]}
"""
SECRET = "s3cret-value-of-a-token"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> SmallProject:
    """A run whose second stage fails, tracked in the project's own store."""
    project = SmallProject(tmp_path_factory.mktemp("tracked project"))
    project.spec(SPEC)
    project.write("data/raw.txt", "1")
    project.notebook(
        "notebooks/fit.ipynb",
        """
        import os, mlflow
        mlflow.log_metric("r2", 0.25, step=0)
        mlflow.log_metric("r2", 0.5, step=1)
        mlflow.log_text("hello", "note.txt")
        with mlflow.start_run(nested=True, run_name="inner"):
            mlflow.log_metric("inner", 1)
        print(os.environ[token])
        open(made, "w").write("made")
        """,
        params='alpha = 0.1\ntoken = "SMALL_TOKEN"\nraw = "../data/raw.txt"\nmade = "../data/made.txt"',
    )
    project.notebook(
        "notebooks/bad.ipynb",
        "raise ValueError('no <b>luck</b>')",
        params='made = "../data/made.txt"\nlast = "../data/last.txt"',
    )
    os.environ["SMALL_TOKEN"] = SECRET
    try:
        outcome = project.run(track=True, params={"alpha": 0.75})
    finally:
        del os.environ["SMALL_TOKEN"]
    assert project.statuses(outcome) == {"train.fit": "finished", "train.bad": "failed"}
    return project


@pytest.fixture(scope="module")
def runs(project: SmallProject) -> dict[str, Run]:
    client = MlflowClient(f"sqlite:///{project.root}/.nbtools/mlflow.db")
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    return {run.info.run_name.split(" ")[0]: run for run in client.search_runs([experiment.experiment_id])}


def artifacts(project: SmallProject, run: Run, folder: str = "") -> list[str]:
    client = MlflowClient(f"sqlite:///{project.root}/.nbtools/mlflow.db")
    return sorted(item.path for item in client.list_artifacts(run.info.run_id, folder))


def test_each_stage_is_a_nested_run_of_the_pipeline_run(runs: dict[str, Run]) -> None:
    parent = runs["everything"]
    assert {runs[name].data.tags["mlflow.parentRunId"] for name in ("fit", "bad")} == {parent.info.run_id}
    assert runs["inner"].data.tags["mlflow.parentRunId"] == runs["fit"].info.run_id


def test_runs_end_with_the_status_of_what_they_stand_for(runs: dict[str, Run]) -> None:
    assert {name: runs[name].info.status for name in ("everything", "fit", "bad")} == {
        "everything": "FAILED",
        "fit": "FINISHED",
        "bad": "FAILED",
    }
    assert "no <b>luck</b>" in runs["bad"].data.tags["nbtools.failure"]


def test_what_the_notebook_logs_lands_in_its_stages_run(project: SmallProject, runs: dict[str, Run]) -> None:
    assert runs["fit"].data.metrics == {"r2": 0.5}
    assert "note.txt" in artifacts(project, runs["fit"])
    assert nbtools.show(project=project.root).stages["train.fit"].metrics == {"r2": 0.5}


def test_params_and_digests_are_searchable(project: SmallProject, runs: dict[str, Run]) -> None:
    fit = runs["fit"]
    assert fit.data.params["alpha"] == "0.75"
    assert fit.inputs is not None
    assert [item.dataset.name for item in fit.inputs.dataset_inputs] == ["raw"]
    shown = nbtools.show(project=project.root).stages["train.fit"]
    assert fit.data.tags["nbtools.input.raw"] == shown.inputs[0].digest
    assert fit.data.tags["nbtools.output.made"] == shown.outputs[0].digest
    client = MlflowClient(f"sqlite:///{project.root}/.nbtools/mlflow.db")
    found = client.search_runs([fit.info.experiment_id], "metrics.r2 > 0.24 and params.alpha = '0.75'")
    assert [run.info.run_id for run in found] == [fit.info.run_id]


def test_executed_notebooks_and_their_pages_are_artifacts(
    project: SmallProject, runs: dict[str, Run]
) -> None:
    assert artifacts(project, runs["fit"], "notebook") == [
        "notebook/train.fit.html",
        "notebook/train.fit.ipynb",
    ]
    assert artifacts(project, runs["bad"], "notebook") == [
        "notebook/train.bad.html",
        "notebook/train.bad.ipynb",
    ]


def test_no_secret_is_stored_anywhere(project: SmallProject) -> None:
    holding = [
        path for path in project.root.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()
    ]
    assert holding == []


def test_nothing_is_tracked_when_nothing_runs(project: SmallProject, runs: dict[str, Run]) -> None:
    os.environ["SMALL_TOKEN"] = SECRET
    try:
        project.run("fit", track=True, params={"alpha": 0.75})
    finally:
        del os.environ["SMALL_TOKEN"]
    client = MlflowClient(f"sqlite:///{project.root}/.nbtools/mlflow.db")
    assert len(client.search_runs([runs["fit"].info.experiment_id])) == len(runs)


def test_unreachable_server_fails_a_stage_that_uses_mlflow_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = SmallProject(tmp_path)
    project.spec("pipelines: {p: {stages: {s: {notebook: n.ipynb}}}}")
    project.notebook("n.ipynb", "import mlflow", params=None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter2@127.0.0.1:9")
    outcome = project.run(track=True)
    failure = outcome.stages["p.s"].failure
    assert failure is not None
    assert "http://127.0.0.1:9" in failure.message
    assert "--no-tracking" in failure.fix
    assert "hunter2" not in failure.message


def test_fresh_store_is_a_working_copy_of_the_template(tmp_path: Path) -> None:
    notes: list[str] = []
    ensure_store(tmp_path / "a" / "mlflow.db", notes.append)
    ensure_store(tmp_path / "b" / "mlflow.db", notes.append)
    assert len(notes) <= 1
    client = MlflowClient(f"sqlite:///{tmp_path}/b/mlflow.db")
    assert client.get_experiment("0").artifact_location == str(tmp_path / "b" / "artifacts" / "0")
    assert sqlite3.connect(tmp_path / "b" / "mlflow.db").execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_damaged_template_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    template_path().parent.mkdir(parents=True)
    template_path().write_bytes(b"no database")
    notes: list[str] = []
    ensure_store(tmp_path / "mlflow.db", notes.append)
    assert notes
    assert MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_experiments()


def test_existing_store_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"mine")
    ensure_store(tmp_path / "mlflow.db", lambda _: None)
    assert (tmp_path / "mlflow.db").read_bytes() == b"mine"


PACKAGING = """
    import numpy as np, pandas as pd, nbtools
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    X = pd.DataFrame({"a": np.arange(10.0), "b": np.arange(10.0)[::-1]})
    model = make_pipeline(StandardScaler(), LinearRegression()).fit(X, X.a * 2)
    version = nbtools.package(model, "small model", example=X.head(3), metrics={"r2": 1.0}, description="Doubles.")
"""


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> SmallProject:
    project = SmallProject(tmp_path_factory.mktemp("packaging"))
    project.spec(
        """
        data: {reference: models/reference.json}
        pipelines: {train: {stages: {package: {notebook: notebooks/package.ipynb, outputs: [reference]}}}}
        """
    )
    project.notebook(
        "notebooks/package.ipynb",
        PACKAGING,
        """
        import json, dataclasses
        open(reference, "w").write(json.dumps(dataclasses.asdict(version)))
        """,
        params='reference = "../models/reference.json"',
    )
    outcome = project.run(track=True)
    assert outcome.status == "passed", outcome.stages["train.package"].failure
    return project


def test_plain_mlflow_client_loads_a_packaged_model(packaged: SmallProject) -> None:
    reference = json.loads(packaged.text("models/reference.json"))
    assert (reference["version"], reference["uri"]) == (1, "models:/small model/1")
    script = f"""
    import mlflow, pandas as pd
    mlflow.set_tracking_uri("sqlite:///{packaged.root}/.nbtools/mlflow.db")
    model = mlflow.pyfunc.load_model("{reference["uri"]}")
    print(model.predict(pd.DataFrame({{"a": [4.0], "b": [5.0]}})).round(6).tolist())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        cwd=packaged.root.parent,
        check=False,
    )
    assert done.stdout.strip().splitlines()[-1] == "[8.0]", done.stderr


def test_run_without_tracking_registers_nothing_and_says_why(packaged: SmallProject) -> None:
    outcome = packaged.run(track=False, force=True)
    failure = outcome.stages["train.package"].failure
    assert failure is not None
    assert "a run without tracking cannot register a model" in failure.message


def test_packaged_version_has_signature_exact_requirements_and_lineage(packaged: SmallProject) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{packaged.root}/.nbtools/mlflow.db")
    info = mlflow.models.get_model_info("models:/small model/1")
    assert info.signature is not None
    assert info.signature.inputs.input_names() == ["a", "b"]
    folder = Path(mlflow.artifacts.download_artifacts("models:/small model/1"))
    needed = (folder / "requirements.txt").read_text().split()
    assert all("==" in item for item in needed)
    assert {"scikit-learn", "numpy", "pandas", "mlflow"} <= {item.split("==")[0] for item in needed}
    assert not {"jupyterlab", "papermill", "nbtools"} & {item.split("==")[0] for item in needed}
    lineage = json.loads((folder / "lineage.json").read_text())
    assert lineage["stage"]["stage"] == "train.package"
    assert lineage["run"] == nbtools.history(project=packaged.root)[-1].run
    version = MlflowClient().get_model_version("small model", "1")
    assert version.description == "Doubles."
    assert version.tags["nbtools.run"] == lineage["run"]
    assert MlflowClient().get_run(str(version.run_id)).data.metrics["r2"] == 1.0


def test_package_works_outside_a_pipeline_and_says_what_is_missing(packaged: SmallProject) -> None:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "NBTOOLS_"))
    }
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PACKAGING) + "print(version.version, len(version.missing))"],
        capture_output=True,
        text=True,
        cwd=packaged.root / "notebooks",
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "lineage is incomplete: it was not made by a pipeline run" in done.stdout
    assert done.stdout.split()[-2:] == ["2", "1"]
    assert not (packaged.root / "notebooks" / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ('nbtools.package(model, "a/b")', "leave out slashes"),
        ('nbtools.package(model, "")', "needs a name"),
        ('nbtools.package(object(), "m")', "cannot be packaged"),
        (
            'nbtools.package(model, "m", example=X, pyfunc_predict_fn="predict_proba")',
            "no method 'predict_proba'",
        ),
    ],
)
def test_what_cannot_be_packaged_is_refused_in_words(packaged: SmallProject, call: str, said: str) -> None:
    script = textwrap.dedent(PACKAGING).rsplit("version =", 1)[0] + call
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=packaged.root / "notebooks",
        check=False,
    )
    assert "UsageError" in done.stderr
    assert said in done.stderr


AFTER_RUNS = """
import mlflow
from sklearn.linear_model import LinearRegression
with mlflow.start_run():
    mlflow.log_metric("in_a_run", 2)
with mlflow.start_run():
    mlflow.log_param("in_another", 3)
mlflow.autolog()
LinearRegression().fit([[1], [2]], [1, 2])
mlflow.log_metric("after_autolog", 1)
"""


@pytest.mark.parametrize("cold", [False, True])
def test_what_is_logged_after_autolog_or_a_finished_run_lands_in_the_stages_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cold: bool
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # set by another test's `set_tracking_uri`
    gate = 'gates: ["after_all > 0"]'
    project = one_stage(tmp_path, AFTER_RUNS, "mlflow.log_metric('after_all', 4)", options=gate)
    state = project.run(track=True, cold=cold)
    assert state.status == "passed", state.stages["work.only"].failure
    found = state.stages["work.only"].metrics
    assert {name: found[name] for name in ("after_autolog", "in_a_run", "after_all")} == {
        "after_autolog": 1,
        "in_a_run": 2,
        "after_all": 4,
    }
    client = MlflowClient(f"sqlite:///{tmp_path}/.nbtools/mlflow.db")
    everywhere = [item.experiment_id for item in client.search_experiments()]
    runs = {run.info.run_id: run for run in client.search_runs(everywhere)}
    assert len(runs) == 2, "the run and its stage, and no run that nobody knows of"
    stage = runs[state.stages["work.only"].tracking_run]
    assert stage.info.status == "FINISHED"
    assert stage.data.params["in_another"] == "3"
    assert stage.data.tags["nbtools.interpreter"] == sys.executable


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("import mlflow\nmlflow.set_experiment('mine')\nmlflow.log_metric('a', 1)", "set_experiment"),
        (
            "import mlflow\nmlflow.set_tracking_uri('sqlite:///x.db')\nmlflow.log_metric('a', 1)",
            "set_tracking",
        ),
    ],
)
def test_notebook_that_turns_to_another_store_or_experiment_is_told_what_to_leave_out(
    tmp_path: Path, cell: str, said: str
) -> None:
    failure = one_stage(tmp_path, cell).run(track=True).stages["work.only"].failure
    assert failure is not None
    assert f"leave out mlflow.{said}" in failure.fix
