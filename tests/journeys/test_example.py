"""A newcomer's way through the example: run it, change something, look at it, explore it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pandas as pd
import pytest

import nbtools
from nbtools.execution.state import RunState

ROOT = Path(__file__).parents[2]
STAGES = [
    "data.ingest",
    "data.validate",
    "data.features",
    "train.fit",
    "train.evaluate",
    "train.package",
    "deploy.release",
    "deploy.smoke",
]
VARIANTS = [
    f"sweep.elastic_net[alpha={alpha},l1_ratio={l1_ratio}]"
    for alpha in (0.01, 0.1, 1.0)
    for l1_ratio in (0.0, 0.5, 1.0)
]
EVERYTHING = [*STAGES, *VARIANTS, "sweep.choose"]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example in a git repository of its own, in a folder with a space in its name."""
    folder = tmp_path_factory.mktemp("a newcomer's clone") / "airline delay"
    shutil.copytree(
        ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".*", "__pycache__")
    )
    for name in ("pipelines.yaml", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)
    git = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "Begin"]):
        subprocess.run([*git, *words], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def first(example: Path) -> RunState:
    """The first run, on a fiftieth of the flights."""
    outcome = nbtools.run(project=example, params={"sample": 0.02})
    failures = [stage.failure for stage in outcome.stages.values() if stage.failure]
    assert outcome.status == "passed", failures
    return outcome


def test_first_run_makes_everything_from_raw_data_to_a_tested_model(example: Path, first: RunState) -> None:
    assert {key: stage.status for key, stage in first.stages.items()} == dict.fromkeys(EVERYTHING, "finished")
    report = json.loads((example / "deploy/smoke.json").read_text())
    assert report, "the smoke test wrote down what it checked"
    assert 0.5 < first.stages["train.evaluate"].metrics["roc_auc"] < 0.8, (
        "better than chance, and not too good"
    )


def test_second_run_has_nothing_to_do(example: Path, first: RunState) -> None:
    again = nbtools.run(project=example, params={"sample": 0.02})
    assert {stage.status for stage in again.stages.values()} == {"up to date"}


def test_sweep_gives_the_table_that_the_field_knows(example: Path, first: RunState) -> None:
    table = pd.read_csv(example / "models/linear_table.csv")
    assert list(table.columns) == ["alpha", "l1_ratio", "mae", "r2", "rmse"]
    assert table["rmse"].is_monotonic_increasing
    logged = {first.stages[variant].metrics["rmse"] for variant in VARIANTS}
    assert sorted(logged) == pytest.approx(list(table["rmse"]))
    final = first.stages["sweep.choose"].metrics
    assert final["rmse"] < final["baseline_rmse"]


def test_sweeps_own_command_knows_the_variants_of_the_file(example: Path, first: RunState) -> None:
    found = nbtools.sweep("elastic_net", metric="rmse", params={"sample": 0.02}, project=example)
    assert {row.state for row in found.variants} == {"cached"}
    table = pd.read_csv(example / "models/linear_table.csv")
    assert found.best is not None
    assert found.best.params == {"alpha": table["alpha"][0], "l1_ratio": table["l1_ratio"][0]}


def months_of(table: Path) -> set[int]:
    scheduled = pd.read_parquet(table)["scheduled"].dt.tz_convert("America/New_York")
    return set(scheduled.dt.month)


def test_train_and_test_months_do_not_overlap(example: Path, first: RunState) -> None:
    months = {name: months_of(example / f"data/{name}.parquet") for name in ("train", "test", "production")}
    assert months == {"train": set(range(1, 9)), "test": {9, 10}, "production": {11, 12}}


def test_plain_mlflow_client_loads_the_registered_model(example: Path, first: RunState) -> None:
    candidate = json.loads((example / "models/candidate.json").read_text())
    script = (
        "import mlflow, sys; mlflow.set_tracking_uri(sys.argv[1]); m = mlflow.pyfunc.load_model(sys.argv[2]);"
        "print(m.predict(m.input_example).shape)"
    )
    uri = f"sqlite:///{example}/.nbtools/mlflow.db"
    done = subprocess.run(
        [sys.executable, "-c", script, uri, candidate["uri"]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1].rstrip(")") == "2"


def test_model_version_knows_commit_notebooks_params_and_data(example: Path, first: RunState) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{example}/.nbtools/mlflow.db")
    folder = Path(mlflow.artifacts.download_artifacts("models:/airline-delay/1"))
    lineage = json.loads((folder / "lineage.json").read_text())
    assert lineage["missing"] == []
    assert lineage["revision"]["message"] == "Begin"
    assert {item["stage"] for item in lineage["upstream"]} >= {"data.ingest", "data.features", "train.fit"}
    ingest = next(item for item in lineage["upstream"] if item["stage"] == "data.ingest")
    assert ingest["params"]["sample"] == 0.02
    assert {item["dataset"] for item in ingest["outputs"]} >= {"flights", "weather"}


def test_changed_param_runs_only_what_depends_on_it_and_comes_back_for_nothing(
    example: Path, first: RunState
) -> None:
    changed = {"sample": 0.02, "fit.max_iter": 20}
    planned = nbtools.plan(project=example, params=changed)
    assert next(step.key for step in planned.to_run()) == "train.fit"
    up_to_date = {step.key for step in planned.steps if step.action.value == "up to date"}
    assert up_to_date == set(EVERYTHING) - set(STAGES[3:])
    assert nbtools.run(["fit"], project=example, params=changed).status == "passed"
    back = nbtools.run(project=example, params={"sample": 0.02})
    assert back.stages["train.fit"].status == "restored"
    assert "finished" not in {stage.status for stage in back.stages.values()}


@pytest.mark.parametrize("notebook", ["03_features", "05_evaluate", "09_elastic_net", "10_choose"])
def test_notebooks_run_unedited_where_jupyterlab_starts_their_kernels(
    example: Path, first: RunState, tmp_path: Path, notebook: str
) -> None:
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    copy = tmp_path / "explored"
    shutil.copytree(example, copy, ignore=shutil.ignore_patterns(".nbtools", ".git"))
    command = [
        sys.executable,
        "-m",
        "nbconvert",
        "--to",
        "notebook",
        "--execute",
        "--stdout",
        f"{notebook}.ipynb",
    ]
    done = subprocess.run(
        command, cwd=copy / "notebooks", env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert '"output_type"' in done.stdout


def test_notebooks_are_kept_without_outputs() -> None:
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text())["cells"]
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        assert [cell["outputs"] for cell in code if cell["outputs"]] == [], path.name
        assert {cell["execution_count"] for cell in code} == {None}, path.name
