"""What MLflow could not take is delivered later: all of it, once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

import nbtools.api
from tests.projects import SmallProject, two_stages, wait_until

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def project(tmp_path: Path) -> SmallProject:
    return two_stages(tmp_path)


def runs(project: SmallProject) -> dict[str, Run]:
    client = MlflowClient(f"sqlite:///{project.root}/.nbtools/mlflow.db")
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    return {run.info.run_name.split(" ")[0]: run for run in found}


def test_run_without_a_server_is_delivered_later(project: SmallProject) -> None:
    done = project.command("run", env={"MLFLOW_TRACKING_URI": NOBODY})
    assert done.returncode == 0, done.stdout
    assert "nbtools sync delivers it" in done.stderr
    still = project.command("sync", env={"MLFLOW_TRACKING_URI": NOBODY})
    assert still.returncode == 1
    assert "not delivered" in still.stdout

    elsewhere = project.command("sync")
    assert elsewhere.returncode == 1
    assert f"meant for {NOBODY}" in elsewhere.stdout
    assert project.command("sync", "--redirect").returncode == 0

    delivered = runs(project)
    assert {name: run.info.status for name, run in delivered.items()} == dict.fromkeys(
        ("everything", "double", "total"), "FINISHED"
    )
    state = nbtools.api.show(project=project.root)
    tags = delivered["double"].data.tags
    assert tags["nbtools.fingerprint"] == state.stages["data.double"].fingerprint
    assert tags["mlflow.parentRunId"] == delivered["everything"].info.run_id
    assert delivered["double"].data.params == {"factor": "2"}
    assert delivered["double"].info.start_time == int(state.stages["data.double"].started_at * 1000)
    client = MlflowClient(f"sqlite:///{project.root}/.nbtools/mlflow.db")
    names = {item.path for item in client.list_artifacts(delivered["total"].info.run_id, "notebook")}
    assert names == {"notebook/data.total.ipynb", "notebook/data.total.html"}


def test_nothing_is_delivered_twice(project: SmallProject) -> None:
    project.command("run", env={"MLFLOW_TRACKING_URI": NOBODY})
    project.command("sync", "--redirect")
    assert "MLflow knows of every run" in project.command("sync").stdout
    assert len(runs(project)) == 3
    assert nbtools.api.sync(project=project.root) == ()


def test_killed_run_is_completed_not_made_again(project: SmallProject) -> None:
    project.notebook(
        "notebooks/total.ipynb",
        "import time, pathlib, mlflow\nmlflow.log_metric('a', 1)\npathlib.Path('here').touch()\ntime.sleep(60)",
        params='doubled = "../data/doubled.txt"\ntotal = "../data/total.txt"',
    )
    process = project.start("run")
    wait_until((project.root / "here").exists)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert runs(project)["total"].info.status == "RUNNING"
    (delivery,) = nbtools.api.sync(project=project.root)
    assert delivery.problems == ()
    assert {name: run.info.status for name, run in runs(project).items()} == {
        "everything": "KILLED",
        "double": "FINISHED",
        "total": "KILLED",
    }
    assert runs(project)["total"].data.metrics == {"a": 1}


def test_there_is_nothing_to_deliver_of_untracked_runs(project: SmallProject) -> None:
    project.run(track=False)
    assert nbtools.api.sync(project=project.root) == ()
