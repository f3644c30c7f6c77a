"""Gates on real runs: what a stage logs decides whether its result is used."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbtools.execution.events import StageFailed, StageFinished, StageStarted
from nbtools.execution.state import RunState
from tests.projects import SmallProject, stage_names

SPEC = """
    params: {{score: 0.3}}
    data: {{model: model.txt, report: report.txt}}
    pipelines:
      train:
        stages:
          fit: {{notebook: fit.ipynb, outputs: [model], gates: {gates}}}
          use: {{notebook: use.ipynb, inputs: [model], outputs: [report]}}
"""


@pytest.fixture
def project(tmp_path: Path) -> SmallProject:
    project = SmallProject(tmp_path)
    project.spec(SPEC.format(gates='["r2 > 0.24"]'))
    project.notebook(
        "fit.ipynb",
        "import mlflow\nfrom pathlib import Path",
        "mlflow.log_metric('r2', score)\nPath(model).write_text(str(score))",
        params='score = 0.1\nmodel = "model.txt"',
    )
    project.notebook(
        "use.ipynb",
        "from pathlib import Path\nPath(report).write_text('of ' + Path(model).read_text())",
        params='model = "model.txt"\nreport = "report.txt"',
    )
    return project


def said(state: RunState) -> str:
    failure = state.stages["train.fit"].failure
    return failure.message if failure else ""


@pytest.mark.parametrize("track", [False, True])
def test_a_result_that_its_gate_refuses_is_not_used(project: SmallProject, track: bool) -> None:
    assert project.run(track=track).status == "passed"
    state = project.run(params={"score": 0.2}, track=track)
    assert project.statuses(state) == {"train.fit": "failed", "train.use": "skipped"}
    failure = state.stages["train.fit"].failure
    assert failure is not None
    assert failure.kind == "gate"
    assert "✗ r2 > 0.24 does not hold: r2 = 0.2" in failure.message
    assert "pipelines.yaml:" in failure.fix
    assert (project.root / failure.notebook).exists()
    assert project.text("model.txt") == "0.3"
    assert project.text("report.txt") == "of 0.3"


def test_a_refused_result_is_refused_again_without_running(project: SmallProject) -> None:
    project.run(params={"score": 0.2})
    assert project.actions(params={"score": 0.2}) == {"train.fit": "gate failed", "train.use": "blocked"}
    events = project.events(params={"score": 0.2})
    assert stage_names(events, StageStarted) == []
    assert [event.failure.kind for event in events if isinstance(event, StageFailed)] == ["gate"]


def test_a_loosened_gate_accepts_the_kept_result_without_running_it(project: SmallProject) -> None:
    project.run(params={"score": 0.2})
    project.spec(SPEC.format(gates='["r2 > 0.1"]'))
    events = project.events(params={"score": 0.2})
    assert stage_names(events, StageStarted) == ["train.use"]
    assert project.text("report.txt") == "of 0.2"


def test_a_tightened_gate_refuses_what_is_up_to_date(project: SmallProject) -> None:
    project.run()
    project.spec(SPEC.format(gates='["r2 > 0.9"]'))
    assert project.actions()["train.fit"] == "gate failed"
    assert project.run().status == "failed"
    assert project.text("report.txt") == "of 0.3"


def test_force_runs_a_refused_stage_again(project: SmallProject) -> None:
    project.run(params={"score": 0.2})
    events = project.events("fit", params={"score": 0.2}, force=True)
    assert stage_names(events, StageStarted) == ["train.fit"]


def test_the_champion_is_the_last_accepted_result(project: SmallProject) -> None:
    project.spec(SPEC.format(gates='["r2 > champion.r2"]'))
    first = next(event for event in project.events() if isinstance(event, StageFinished))
    assert first.gates == ("r2 > champion.r2 holds: r2 = 0.3, there is no champion yet",)
    assert set(project.actions().values()) == {"up to date"}  # it need not be better than itself
    refused = project.run(params={"score": 0.25})
    assert "champion.r2 = 0.3" in said(refused)
    assert project.run(params={"score": 0.28}).status == "failed"  # a refused result is nobody's champion
    assert project.run(params={"score": 0.4}).status == "passed"
    assert project.actions(params={"score": 0.4})["train.fit"] == "up to date"


def test_gates_that_held_stand_in_the_run_and_in_mlflow(project: SmallProject) -> None:
    import mlflow

    state = project.run(track=True)
    shown = project.command("show").stdout
    assert "✓ train.fit: r2 > 0.24 holds: r2 = 0.3" in shown
    client = mlflow.MlflowClient(f"sqlite:///{project.root}/.nbtools/mlflow.db")
    run = client.get_run(state.stages["train.fit"].tracking_run)
    assert run.data.tags["nbtools.gates"] == "r2 > 0.24 holds: r2 = 0.3"


def test_the_commands_say_what_refuses_and_where_to_mend_it(project: SmallProject) -> None:
    project.run(params={"score": 0.2})
    project.write("low.yaml", "score: 0.2\n")
    run = project.command("run", "--params-file", "low.yaml")
    assert run.returncode == 1
    assert "its gate refuses the result" in run.stdout + run.stderr
    plan = project.command("plan", "-p", "score=0.2")
    assert "gate failed" in plan.stdout
    assert "the result of train.fit is refused by its gate" in plan.stdout


def test_a_metric_that_nobody_logs_is_named(project: SmallProject) -> None:
    project.spec(SPEC.format(gates='["r_2 > 0.24"]'))
    assert "the metric 'r_2' was not logged; did you mean 'r2'?" in said(project.run())


def test_a_broken_gate_is_reported_with_its_place(project: SmallProject) -> None:
    project.spec(SPEC.format(gates='["r2 =< 0.24"]'))
    done = project.command("plan")
    assert done.returncode == 2
    assert "pipelines.yaml:9:60 (pipelines.train.stages.fit.gates[0])" in done.stderr
    assert "is no gate" in done.stderr


def test_stages_that_take_the_whole_machine_run_one_after_the_other(tmp_path: Path) -> None:
    project = SmallProject(tmp_path)
    project.spec("""
        defaults: {resources: {cpu: 10000, memory: 1KiB}}
        pipelines:
          work:
            stages:
              a: {notebook: a.ipynb}
              b: {notebook: a.ipynb}
    """)
    project.notebook("a.ipynb", "import time; time.sleep(0.3)")
    notes: list[str] = []
    events = project.events(jobs=2, note=notes.append)
    order = [type(event).__name__ for event in events if isinstance(event, StageStarted | StageFinished)]
    assert order == ["StageStarted", "StageFinished"] * 2
    assert notes == [
        "work.a asks for more than this machine has: it runs alone",
        "work.b asks for more than this machine has: it runs alone",
    ]
