"""A project whose runs are kept in PostgreSQL behaves as one with SQLite: with MLflow's server in between, and without."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from mlflow import MlflowClient

import nbtools
import nbtools.api
from nbtools.pipeline.spec import Tracking
from nbtools.tracking.address import StoreAddress, resolve
from tests.integration.test_runs import *  # noqa: F403 - all of them hold here, too
from tests.postgres import mlflow_server, postgres, with_database
from tests.projects import SmallProject


@pytest.fixture(scope="module")
def database_server() -> Iterator[str]:
    with postgres() as found:
        yield found


@pytest.fixture(scope="module", params=["server", "database"])
def uri(
    request: pytest.FixtureRequest, database_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Where MLflow keeps the runs: the address of its server, or of the database itself."""
    database = with_database(database_server, f"behind_{request.param}")
    if request.param == "database":
        yield database
        return
    with mlflow_server(database, tmp_path_factory.mktemp("artifacts")) as found:
        yield found


@pytest.fixture(scope="module")  # type: ignore[no-redef]
def address(uri: str, tmp_path_factory: pytest.TempPathFactory) -> StoreAddress:
    """Take the place of the SQLite store of the other tests."""
    return resolve(tmp_path_factory.mktemp("store"), Tracking(uri, "small"), "small", {})


@pytest.fixture(scope="module")
def project(uri: str, tmp_path_factory: pytest.TempPathFactory) -> SmallProject:
    """Return a project with a sweep, which has run."""
    project = SmallProject(tmp_path_factory.mktemp("project"))
    project.spec(f"""
        tracking: {{uri: "{uri}", experiment: project}}
        params: {{seed: 13}}
        data: {{fitted: "fitted-{{alpha}}.txt", table: table.json}}
        pipelines:
          train:
            stages:
              fit: {{notebook: fit.ipynb, outputs: [fitted], matrix: {{alpha: [0.5, 1.0]}}}}
              choose: {{notebook: choose.ipynb, inputs: [fitted], outputs: [table]}}
    """)
    project.notebook(
        "fit.ipynb",
        "import mlflow\nfor step in range(3):\n    mlflow.log_metric('loss', alpha / (step + 1), step=step)",
        "mlflow.log_metric('rmse', 2 * alpha)\nopen(fitted, 'w').write(str(alpha))",
        params="seed = 0\nalpha = 0.0\nfitted = 'fitted.txt'",
    )
    project.notebook(
        "choose.ipynb",
        "import json\nopen(table, 'w').write(json.dumps([open(path).read() for path in fitted]))",
        params="fitted = []\ntable = 'table.json'",
    )
    state = project.run(track=True)
    assert state.status == "passed", state
    return project


def test_runs_of_a_project_are_nested_named_and_hold_params_metrics_and_notebooks(
    project: SmallProject, uri: str
) -> None:
    client = MlflowClient(uri, uri)
    state = nbtools.api.show(project=project.root)
    run = client.get_run(state.stages["train.fit[alpha=0.5]"].tracking_run)
    assert run.info.run_name == "fit[alpha=0.5]"
    assert run.info.status == "FINISHED"
    assert run.data.params == {"seed": "13", "alpha": "0.5"}
    assert run.data.metrics == {"loss": pytest.approx(0.5 / 3), "rmse": 1.0}
    assert [point.value for point in client.get_metric_history(run.info.run_id, "loss")] == [
        0.5,
        0.25,
        0.5 / 3,
    ]
    parent = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert parent.data.tags["nbtools.run"] == state.run
    names = {item.path for item in client.list_artifacts(run.info.run_id, "notebook")}
    assert {"notebook/train.fit[alpha=0.5].ipynb", "notebook/train.fit[alpha=0.5].html"} <= names
    assert f"`nbtools show {state.run}`" in run.data.tags["mlflow.note.content"]


def test_runs_are_found_and_compared(project: SmallProject) -> None:
    frame = nbtools.runs("metrics.rmse > 1.5 and params.alpha = '1.0'", project=project.root)
    assert list(frame["name"]) == ["fit[alpha=1.0]"]
    best = nbtools.best("rmse", direction="min", project=project.root)
    assert best.params["alpha"] == "0.5"


def test_sweep_from_the_command_line_is_tracked(project: SmallProject) -> None:
    done = project.command("sweep", "fit", "-p", "alpha=0.1,0.2", "--metric", "rmse", "--json")
    assert done.returncode == 0, done.stderr
    found = nbtools.runs("metrics.rmse < 0.5", project=project.root)
    assert sorted(found["name"]) == ["fit[alpha=0.1]", "fit[alpha=0.2]"]


def test_nothing_is_kept_in_the_project_that_belongs_to_the_store(project: SmallProject) -> None:
    assert not (project.root / "mlruns").exists()
    assert not (project.root / ".nbtools/mlflow.db").exists()


def test_password_of_the_store_is_nowhere_in_the_project(project: SmallProject) -> None:
    written = [path for path in (project.root / ".nbtools").rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if b"s3cret-pass" in path.read_bytes()]


def test_pages_of_a_server_are_the_servers_and_those_of_a_database_are_served(
    project: SmallProject, uri: str
) -> None:
    found = nbtools.ui(project=project.root)
    assert (found.command is None) == uri.startswith("http")
    assert "s3cret-pass" not in found.url + " ".join(found.command.words if found.command else ())
    assert json.dumps(found.url).startswith('"http://127.0.0.1')
