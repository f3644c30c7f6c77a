"""Variants that Optuna draws: repeatable, resumable, pruned by what the notebook logs with plain MLflow."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import mlflow
import pytest

import nbtools
from nbtools.api import SweepResult
from nbtools.execution.events import Event, StageFailed, StagePruned
from tests.projects import SmallProject, wait_until

BODY = """
import mlflow, time
from pathlib import Path
if alpha > fails_above:
    raise ValueError("too much")
for step in range(steps):
    mlflow.log_metric("rmse", (alpha - 0.3) ** 2 + 1 / (step + 1), step=step)
    time.sleep(pause)
with open("runs.txt", "a") as stream:
    stream.write(f"{alpha} {kind}\\n")
Path(model).write_text(str(alpha))
"""
PARAMS = "alpha = 0.5\nkind = 'a'\nfails_above = 9.0\nsteps = 2\npause = 0.0\nmodel = 'model.txt'"
SPACE = {"alpha": "0..1", "kind": ["a", "b"]}


def project_in(root: Path) -> SmallProject:
    project = SmallProject(root)
    project.spec("""
        data: {model: model.txt}
        pipelines: {train: {stages: {fit: {notebook: fit.ipynb, outputs: [model]}}}}
    """)
    project.notebook("fit.ipynb", BODY, params=PARAMS)
    return project


@pytest.fixture
def project(tmp_path: Path) -> SmallProject:
    return project_in(tmp_path)


def search(project: SmallProject, trials: int, **options: object) -> SweepResult:
    return nbtools.sweep(
        "fit",
        SPACE,
        **{  # type: ignore[arg-type]
            "project": project.root,
            "sampler": "tpe",
            "trials": trials,
            "metric": "rmse",
            "jobs": 1,
            "track": False,
            **options,
        },
    )


def test_a_search_goes_on_as_if_it_had_not_been_interrupted(tmp_path: Path) -> None:
    whole = search(project_in(tmp_path / "whole"), 5)
    parts = project_in(tmp_path / "parts")
    search(parts, 2)
    rest = search(parts, 5)
    assert {row.variant for row in rest.variants} == {row.variant for row in whole.variants}
    assert sorted(row.state for row in rest.variants) == ["cached"] * 2 + ["finished"] * 3
    assert rest.best is not None
    assert rest.best.metrics["rmse"] == min(row.metrics["rmse"] for row in rest.variants)
    assert len(parts.text("runs.txt").splitlines()) == 5


def test_a_killed_search_draws_what_is_missing(project: SmallProject) -> None:
    words = [
        *("sweep", "fit", "-p", "alpha=0..1", "-p", "pause=0.3", "--sampler", "random", "--trials", "5"),
        *("--metric", "rmse", "--no-tracking", "--jobs", "1"),
    ]
    process = project.start(*words)
    wait_until(
        lambda: (project.root / "runs.txt").exists() and len(project.text("runs.txt").splitlines()) >= 2
    )
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    again = project.command(*words, "--json")
    assert again.returncode == 0, again.stderr
    found = json.loads(again.stdout)
    assert len({row["variant"] for row in found["variants"]}) == 5
    assert sum(row["state"] == "cached" for row in found["variants"]) >= 1
    # At most one was at its end, but not committed, when it was killed.
    assert len(project.text("runs.txt").splitlines()) <= 6


def test_other_code_is_another_search(project: SmallProject) -> None:
    search(project, 2)
    project.notebook("fit.ipynb", BODY.replace("0.3", "0.7"), params=PARAMS)
    assert [row.state for row in search(project, 2).variants] == ["finished"] * 2


def test_a_small_space_ends_when_all_of_it_is_known(project: SmallProject) -> None:
    notes: list[str] = []
    found = nbtools.sweep(
        "fit",
        {"alpha": [0, 1], "kind": ["a", "b"]},
        sampler="random",
        trials=50,
        project=project.root,
        track=False,
        note=notes.append,
    )
    assert [row.state for row in found.variants] == ["finished"] * 4
    assert found.best is None
    assert "the sampler has nothing new to draw after 4 variants" in notes


def test_failed_trials_do_not_end_a_search(project: SmallProject) -> None:
    found = search(project, 6, params={"fails_above": 0.5})
    states = [row.state for row in found.variants]
    assert len(states) == 6
    assert {"finished", "failed"} == set(states)
    assert states == sorted(states, reverse=True), "those with a value stand first"
    assert found.best is not None
    assert found.status == "failed"


def test_a_search_without_any_finished_trial_says_so(project: SmallProject) -> None:
    found = search(project, 2, params={"fails_above": -1.0})
    assert found.best is None
    assert found.problem == (
        "no variant of train.fit has a value of 'rmse' (2 failed); the first failed with: ValueError: too much"
    )


def test_a_metric_that_nobody_logs_ends_the_search_early(project: SmallProject) -> None:
    found = search(project, 30, metric="rmze")
    assert len(found.variants) == 1
    assert "did you mean 'rmse'?" in found.problem


def test_variants_worse_than_the_median_are_pruned_and_not_failed(project: SmallProject) -> None:
    seen: list[Event] = []
    options: dict[str, object] = {
        "sampler": "grid",
        "trials": None,
        "prune": True,
        "jobs": 5,
        "track": True,
        "params": {"steps": 60, "pause": 0.05},
        "listeners": [seen.append],
    }
    alphas = [0.3, 0.31, 0.32, 0.33, 0.34, 0.9]
    found = nbtools.sweep(
        "fit",
        {"alpha": alphas},
        **{"metric": "rmse", "project": project.root, **options},  # type: ignore[arg-type]
    )
    assert found.status == "passed"
    assert {row.params["alpha"]: row.state for row in found.variants} == {
        **dict.fromkeys(alphas[:5], "finished"),
        0.9: "pruned",
    }
    (pruned,) = [event for event in seen if isinstance(event, StagePruned)]
    assert "is worse than the others' median" in pruned.why
    assert not [event for event in seen if isinstance(event, StageFailed)]
    assert "0.9 a" not in project.text("runs.txt").splitlines(), "its kernel was interrupted"
    client = mlflow.MlflowClient(f"sqlite:///{project.root}/.nbtools/mlflow.db")
    run = client.get_run(found.variants[-1].tracking_run)
    assert (run.info.run_name, run.info.status) == ("fit[alpha=0.9]", "KILLED")
    assert run.data.tags["nbtools.pruned"] == pruned.why
    shown = nbtools.show(project=project.root)
    assert shown.stages["train.fit[alpha=0.9]"].status == "pruned"


def test_a_study_that_is_torn_or_damaged_does_no_harm(project: SmallProject) -> None:
    search(project, 2)
    (study,) = (project.root / ".nbtools/sweeps").glob("*.log")
    content = study.read_bytes()
    study.write_bytes(content + b'{"op_code":4,"tri')
    assert [row.state for row in search(project, 3).variants].count("cached") == 2
    study.write_bytes(b"no journal\n" + content)
    notes: list[str] = []
    assert len(search(project, 2, note=notes.append).variants) == 2
    assert "the study was damaged" in "\n".join(notes)
