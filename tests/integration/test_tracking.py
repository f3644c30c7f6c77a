"""What the tracker records of runs that are not the usual ones, on a real SQLite store."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from nbtools.errors import OperationError
from nbtools.execution.events import Artifact, Revision, RunFinished, RunStarted, StageFinished, StageStarted
from nbtools.pipeline.spec import Tracking
from nbtools.tracking.address import resolve, without_credentials
from nbtools.tracking.template import ensure_store
from nbtools.tracking.tracker import MlflowTracker
from tests.projects import SmallProject

LONG = "x" * 7_000  # longer than the 6,000 characters that MLflow keeps of a param


def client(root: Path) -> MlflowClient:
    uri = resolve(root, Tracking(), "small", {}).uri
    return MlflowClient(uri, uri)


def runs_of(root: Path) -> dict[str, Run]:
    found = client(root).get_experiment_by_name("small")
    assert found is not None
    return {run.info.run_name.split(" ")[0]: run for run in client(root).search_runs([found.experiment_id])}


def artifact(root: Path, run: Run, name: str) -> dict:
    return json.loads(Path(client(root).download_artifacts(run.info.run_id, name)).read_text())


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> SmallProject:
    """A stage that logs its own params, fed by two variants of another."""
    project = SmallProject(tmp_path_factory.mktemp("params"))
    project.spec(
        """
        params: {shuffle: true, names: [a, b], nothing: null, alpha: 0.5, long: short}
        data: {part: "data/{k}.txt", last: data/last.txt}
        pipelines:
          train:
            stages:
              make: {notebook: make.ipynb, outputs: [part], matrix: {k: [x, y]}}
              use: {notebook: use.ipynb, inputs: [part], outputs: [last]}
        """
    )
    project.notebook("make.ipynb", "open(part, 'w').write(k)", params="k = 'x'\npart = 'p'")
    project.notebook(
        "use.ipynb",
        """
        import mlflow
        mlflow.log_params({"shuffle": shuffle, "names": names, "nothing": nothing, "alpha": 0.75})
        open(last, "w").write("l")
        """,
        params="shuffle = False\nnames = []\nnothing = 1\nalpha = 1.0\nlong = ''\npart = []\nlast = 'l'",
    )
    outcome = project.run(track=True, params={"long": LONG})
    assert outcome.status == "passed", outcome.stages["train.use"].failure
    return project


@pytest.fixture(scope="module")
def runs(project: SmallProject) -> dict[str, Run]:
    return runs_of(project.root)


def test_notebook_may_log_its_own_params_under_their_names(runs: dict[str, Run]) -> None:
    logged = runs["use"].data.params
    assert (logged["shuffle"], logged["names"], logged["nothing"]) == ("True", "['a', 'b']", "None")


def test_value_that_a_notebook_logged_stays_and_the_injected_one_is_a_tag(runs: dict[str, Run]) -> None:
    assert runs["use"].data.params["alpha"] == "0.75"
    tags = runs["use"].data.tags
    assert {name: value for name, value in tags.items() if name.startswith("nbtools.param.")} == {
        "nbtools.param.alpha": "0.5"
    }


def test_param_over_mlflows_limit_is_marked_and_kept_whole_in_a_file(
    project: SmallProject, runs: dict[str, Run]
) -> None:
    assert runs["use"].data.params["long"].endswith("…")
    assert artifact(project.root, runs["use"], "params.json")["long"] == LONG


def test_digests_of_all_variants_are_recorded(runs: dict[str, Run]) -> None:
    made = [runs[f"make[k={k}]"].data.tags["nbtools.output.part"] for k in ("x", "y")]
    assert runs["use"].data.tags["nbtools.input.part"].split(",") == made
    assert runs["use"].inputs is not None
    assert len(runs["use"].inputs.dataset_inputs) == 2


def test_plan_of_a_run_tells_what_became_of_every_stage(project: SmallProject, runs: dict[str, Run]) -> None:
    plan = artifact(project.root, runs["everything"], "plan.json")
    assert plan["status"] == "passed"
    assert plan["stages"].keys() == {"train.make[k=x]", "train.make[k=y]", "train.use"}
    assert plan["stages"]["train.use"] == {
        "outcome": "executed",
        "fingerprint": runs["use"].data.tags["nbtools.fingerprint"],
        "tracking_run": runs["use"].info.run_id,
    }


def test_script_without_a_main_guard_is_tracked(tmp_path: Path) -> None:
    project = SmallProject(tmp_path)
    project.spec("pipelines: {p: {stages: {s: {notebook: n.ipynb}}}}")
    project.notebook("n.ipynb", "1", params=None)
    script = project.write("script.py", "import nbtools\nprint(nbtools.run().status)\n")
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, check=False, timeout=120
    )
    assert done.stdout == "passed\n", done.stderr
    assert runs_of(tmp_path)["s"].info.status == "FINISHED"


@pytest.fixture
def tracker(tmp_path: Path) -> MlflowTracker:
    address = resolve(tmp_path, Tracking(), "small", {})
    tracker = MlflowTracker(address, tmp_path, lambda _: None)
    tracker(RunStarted("r-1", time.time(), "small", (), (), Revision()))
    return tracker


def carry_out(tracker: MlflowTracker) -> None:
    data = (Artifact("d", "d.txt", "0" * 64, 1),)
    tracker(StageStarted("r-1", time.time(), "p.s", "n.ipynb", "0", 1, "f", 1, {"a": 1}, data))
    tracker(StageFinished("r-1", time.time(), "p.s", "f", 1.0, data))
    tracker(RunFinished("r-1", time.time(), "passed", 1.0))


def test_death_of_the_tracking_process_is_one_warning_and_no_error(tracker: MlflowTracker) -> None:
    tracker.begin("p.s", 1).result()
    (process,) = multiprocessing.active_children()
    process.kill()
    process.join()
    carry_out(tracker)
    assert tracker.metrics("p.s") is None
    warnings = tracker.close()
    assert len(warnings) == 1
    assert "could not be delivered" in warnings[0]


def test_missing_notebook_is_a_warning_and_the_rest_is_kept(tracker: MlflowTracker, tmp_path: Path) -> None:
    tracker.begin("p.s", 1).result()
    tracker(StageFinished("r-1", time.time(), "p.s", "f", 1.0, executed="gone.ipynb"))
    tracker(RunFinished("r-1", time.time(), "passed", 1.0))
    (warning,) = tracker.close()
    assert "the notebook of p.s" in warning
    assert {run.info.status for run in runs_of(tmp_path).values()} == {"FINISHED"}


def test_settings_of_the_users_own_are_not_overridden_in_kernels(
    tracker: MlflowTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "600")
    environment = tracker.begin("p.s", 1).result()
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in environment
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert tracker.close() == ()


def test_store_of_an_older_mlflow_is_an_error_with_the_command_that_upgrades_it(tmp_path: Path) -> None:
    address = resolve(tmp_path, Tracking(), "small", {})
    assert address.database is not None
    ensure_store(address.database, lambda _: None)
    connection = sqlite3.connect(address.database)
    with connection:
        connection.execute("UPDATE alembic_version SET version_num = 'cfd24bdc0731'")
    connection.close()
    tracker = MlflowTracker(address, tmp_path, lambda _: None)
    tracker(RunStarted("r-1", time.time(), "small", (), (), Revision()))
    with pytest.raises(OperationError) as caught:
        tracker.begin("p.s", 1).result()
    assert f"mlflow db upgrade {address.uri}" in str(caught.value)
    tracker.close()


def test_tracking_process_has_no_secrets_but_those_that_mlflow_may_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {"DB_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY"}
    for name in secrets:
        monkeypatch.setenv(name, "hunter2")
    tracker = MlflowTracker(resolve(tmp_path, Tracking(), "small", {}), tmp_path, print, secrets=secrets)
    found = {name: tracker._pool.submit(os.getenv, name).result() for name in secrets}
    assert found == {
        "DB_PASSWORD": None,
        "MLFLOW_TRACKING_TOKEN": "hunter2",
        "AWS_SECRET_ACCESS_KEY": "hunter2",
    }
    tracker.close()


def test_tracking_process_ends_when_nbtools_is_killed(tmp_path: Path) -> None:
    script = f"""
    import multiprocessing, os, pathlib
    from nbtools.pipeline.spec import Tracking
    from nbtools.tracking.address import resolve
    from nbtools.tracking.tracker import MlflowTracker
    root = pathlib.Path({str(tmp_path)!r})
    tracker = MlflowTracker(resolve(root, Tracking(), "p", {{}}), root, print)
    tracker._do("ready").result()
    print(multiprocessing.active_children()[0].pid, flush=True)
    os.kill(os.getpid(), {signal.SIGKILL:d})
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    process = Path("/proc") / done.stdout.strip()
    assert done.returncode == -signal.SIGKILL, done.stderr
    deadline = time.monotonic() + 5  # design.md: no orphans after 5 s
    while alive(process) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(process)


def alive(process: Path) -> bool:
    try:
        os.kill(int(process.name), 0)
        return "\nState:\tZ" not in (process / "status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://me:hun/ter2@host/db",
        "postgresql://me:hun@ter2@host/db",
        "http://me:hunter2@host:1/path",
        "http://host?api_key=hunter2",
    ],
)
def test_no_part_of_a_password_is_shown(uri: str) -> None:
    shown = without_credentials(f"cannot reach {uri}")
    assert "hun" not in shown
    assert "ter2" not in shown
    assert "host" in shown


def test_paths_with_an_at_sign_are_shown_whole() -> None:
    assert without_credentials("sqlite:////home/me@work/m.db") == "sqlite:////home/me@work/m.db"
