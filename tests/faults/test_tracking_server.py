"""A tracking server that is away, or takes connections and never answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

import nbtools
from nbtools.execution.cancellation import Cancellation
from nbtools.tracking import lazy, patience
from tests.projects import SmallProject, one_stage

PROGRAM = "import subprocess\nsubprocess.run(['true'], check=True)"


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the address of a server that takes connections and never answers."""
    monkeypatch.setattr(patience, "STALLED_S", 3.0)
    listener = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                held.append(listener.accept()[0])
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()
    for connection in held:
        connection.close()


@pytest.fixture
def away() -> str:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    return f"http://127.0.0.1:{port}"


def tracked_at(address: str, project: SmallProject) -> SmallProject:
    project.write("pipelines.yaml", project.text("pipelines.yaml") + f"tracking: '{address}'\n")
    return project


@pytest.mark.parametrize("cold", [False, True])
def test_stage_that_does_not_name_mlflow_goes_on_without_a_server_that_is_silent(
    tmp_path: Path, silent: str, cold: bool
) -> None:
    project = tracked_at(silent, one_stage(tmp_path, PROGRAM, options="timeout: 40s"))
    notes: list[str] = []
    state = project.run(track=True, cold=cold, note=notes.append)
    assert state.status == "passed", state.stages["work.only"].failure
    said = "\n".join(notes)
    assert "work.only goes on outside its MLflow run" in said
    assert "nothing is lost; nbtools sync delivers it" in said


@pytest.mark.parametrize("cold", [False, True])
def test_stage_that_does_not_name_mlflow_goes_on_without_a_server_that_is_away(
    tmp_path: Path, away: str, cold: bool
) -> None:
    project = tracked_at(away, one_stage(tmp_path, PROGRAM))
    assert project.run(track=True, cold=cold).status == "passed"


def test_stage_that_names_mlflow_is_within_its_budget_while_it_waits(tmp_path: Path, silent: str) -> None:
    project = tracked_at(silent, one_stage(tmp_path, "import mlflow", options="timeout: 7s"))
    notes: list[str] = []
    failure = project.run(track=True, note=notes.append).stages["work.only"].failure
    assert failure is not None
    assert (failure.kind, failure.message) == (
        "timeout",
        "MLflow has not answered within the stage's 7 s",
    )
    assert "work.only: waiting for MLflow" in notes


def test_run_that_waits_for_a_server_can_be_stopped_and_its_end_too(tmp_path: Path, silent: str) -> None:
    project = tracked_at(silent, one_stage(tmp_path, "import mlflow"))
    cancellation = Cancellation()
    for seconds in (3, 6, 7, 8, 9):  # whoever wants to leave says so until it happens
        timer = threading.Timer(seconds, cancellation.request)
        timer.daemon = True
        timer.start()
    assert project.run(track=True, cancellation=cancellation).status == "cancelled"


def test_sweep_goes_on_without_its_server_and_what_it_logged_is_delivered_later(
    tmp_path: Path, away: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lazy, "_GONE_S", 0.5)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    body = "import mlflow\nfor step in range(3):\n    mlflow.log_metric('rmse', alpha + step, step=step)"
    project = tracked_at(away, one_stage(tmp_path, body, params="alpha = 0.0"))
    notes: list[str] = []
    found = nbtools.sweep(
        "only",
        {"alpha": "0..1"},
        sampler="random",
        trials=2,
        metric="rmse",
        jobs=1,
        project=project.root,
        note=notes.append,
    )
    assert found.status == "passed"
    assert [row.metrics["rmse"] for row in found.variants] == [
        row.params["alpha"] + 2 for row in found.variants
    ]
    assert "nbtools sync delivers it" in "\n".join(notes)

    project.write("pipelines.yaml", project.text("pipelines.yaml").replace(f"tracking: '{away}'", ""))
    assert [item.problems for item in nbtools.sync(redirect=True, project=project.root)] == [()]
    client = mlflow.MlflowClient(f"sqlite:///{project.root}/.nbtools/mlflow.db")
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    (run,) = client.search_runs(
        [experiment.experiment_id], f"params.alpha = '{found.variants[0].params['alpha']}'"
    )
    history = client.get_metric_history(run.info.run_id, "rmse")
    assert [item.step for item in history] == [0, 1, 2]
    assert run.info.status == "FINISHED"
    assert not list((project.root / ".nbtools/spool").iterdir())
