"""Stages with a condition, on real runs: what is skipped, what goes on, and what is said about it."""

from __future__ import annotations

from pathlib import Path

import pytest

import nbtools.api
from nbtools.errors import SpecError, UsageError
from tests.projects import SmallProject

SPEC = """
    params: {publish: true}
    data: {model: model.txt, page: page.txt}
    pipelines:
      p:
        stages:
          fit: {notebook: fit.ipynb, outputs: [model]}
          publish:
            notebook: publish.ipynb
            when: publish and fit.auc > 0.6
            inputs: [model]
            outputs: [page]
          read: {notebook: read.ipynb, inputs: [page]}
          after: {notebook: after.ipynb, after: [publish]}
"""


@pytest.fixture
def project(tmp_path: Path) -> SmallProject:
    project = SmallProject(tmp_path)
    project.spec(SPEC)
    project.notebook(
        "fit.ipynb",
        "import mlflow\nmlflow.log_metric('auc', auc)\nopen(model, 'w').write(str(auc));",
        params="auc = 0.7\nmodel = 'm'",
    )
    project.notebook(
        "publish.ipynb",
        "open(page, 'w').write(open(model).read());",
        params="model = 'm'\npage = 'p'",
    )
    project.notebook("read.ipynb", "print(open(page).read())", params="page = 'p'")
    project.notebook("after.ipynb", "print('goes on')")
    project.notebook("part.ipynb", "open(part, 'w').write(str(k));", params="k = 0\npart = 'p'")
    project.notebook(
        "collect.ipynb",
        "open(summary, 'w').write(' '.join(open(path).read() for path in parts));",
        params="parts = []\nsummary = 's'",
    )
    return project


def test_where_the_condition_does_not_hold_the_stage_and_what_reads_its_data_are_skipped(
    project: SmallProject,
) -> None:
    state = project.run(params={"auc": 0.5})
    assert state.status == "passed"
    assert project.statuses(state) == {
        "p.fit": "finished",
        "p.publish": "skipped",
        "p.read": "skipped",
        "p.after": "finished",
    }
    reason = "publish and fit.auc > 0.6 does not hold: publish = True, fit.auc = 0.5"
    assert state.stages["p.publish"].reason == reason
    assert state.stages["p.read"].reason == "p.publish is skipped, and makes page"
    assert not (project.root / "page.txt").exists()


def test_a_condition_on_what_has_yet_to_run_is_open_in_the_plan_and_decided_in_the_run(
    project: SmallProject,
) -> None:
    plan = nbtools.api.plan(project=project.root)
    assert plan.step("p.publish").reasons == ("if publish and fit.auc > 0.6",)
    state = project.run()
    assert project.statuses(state)["p.publish"] == "finished"
    assert set(project.actions().values()) == {"up to date"}


def test_a_param_alone_decides_at_once_and_what_was_made_before_stays(project: SmallProject) -> None:
    project.run()
    assert project.actions(params={"publish": False})["p.publish"] == "skipped"
    state = project.run(params={"publish": False})
    assert project.statuses(state) == {
        "p.fit": "up to date",
        "p.publish": "skipped",
        "p.read": "skipped",
        "p.after": "up to date",
    }
    assert project.text("page.txt") == "0.7"
    assert set(project.actions().values()) == {"up to date"}


def test_a_target_brings_the_stages_whose_metrics_its_condition_names(project: SmallProject) -> None:
    assert list(project.actions("after")) == ["p.fit", "p.publish", "p.after"]


def test_a_condition_leaves_combinations_of_a_matrix_out(project: SmallProject) -> None:
    project.spec(
        """
        data: {part: "part-{k}.txt", summary: summary.txt}
        params: {least: 2}
        pipelines:
          p:
            stages:
              part: {notebook: part.ipynb, matrix: {k: [1, 2, 3]}, outputs: [part], when: "k >= least"}
              collect: {notebook: collect.ipynb, inputs: {parts: part}, outputs: [summary]}
        """
    )
    assert project.run().status == "passed"
    assert project.text("summary.txt") == "2 3"
    assert set(project.actions().values()) == {"skipped", "up to date"}
    state = project.run(params={"least": 1})
    assert project.statuses(state) == {
        "p.part[k=1]": "finished",
        "p.part[k=2]": "up to date",
        "p.part[k=3]": "up to date",
        "p.collect": "finished",
    }
    assert project.text("summary.txt") == "1 2 3"
    everything = project.run(params={"least": 9})
    assert everything.stages["p.collect"].status == "skipped"
    assert everything.status == "passed"


def test_a_stage_without_an_input_that_is_missing_is_not_missed_where_it_is_skipped(
    project: SmallProject,
) -> None:
    project.spec(
        """
        data: {page: nowhere.txt}
        pipelines: {p: {stages: {read: {notebook: read.ipynb, inputs: [page], when: false}}}}
        """
    )
    assert project.run().stages["p.read"].reason == "when: false"


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ("publish and fit.roc > 0.6", "did not log the metric 'roc'"),
        ("publish and (fit.auc == 'high' or fit.auc > 'low')", "not supported"),
    ],
)
def test_a_condition_that_cannot_be_judged_fails_its_stage_alone(
    project: SmallProject, when: str, said: str
) -> None:
    project.spec(SPEC.replace("publish and fit.auc > 0.6", when))
    state = project.run()
    assert state.status == "failed"
    assert project.statuses(state)["p.fit"] == "finished"
    failure = state.stages["p.publish"].failure
    assert failure is not None
    assert failure.kind == "condition"
    assert said in failure.message
    assert project.actions()["p.publish"] == "blocked"
    again = project.run()
    assert project.statuses(again)["p.publish"] == "failed"


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ("publihs", "did you mean 'publish'"),
        ("auc > 0.5", "a param of a condition has its value here"),
        ("fitt.auc > 0.5", "did you mean 'fit'"),
        ("publish.auc > 0.5", "wait for each other: p.publish → p.publish"),
        ("read.auc > 0.5", "wait for each other"),
        ("import os", "is no condition"),
        ("[1]", "this must be a text"),
    ],
)
def test_mistakes_in_a_condition_are_told_with_their_place(
    project: SmallProject, when: str, said: str
) -> None:
    project.spec(SPEC.replace("publish and fit.auc > 0.6", when))
    with pytest.raises(SpecError) as caught:
        project.run()
    problem = next(item for item in caught.value.problems if said in f"{item.message} {item.fix}")
    assert problem.where.startswith("pipelines.yaml:")


def test_a_condition_names_neither_secrets_nor_stages_with_variants(project: SmallProject) -> None:
    project.spec(
        """
        data: {part: "part-{k}.txt"}
        params: {token: {secret: TOKEN}}
        pipelines:
          p:
            stages:
              part: {notebook: part.ipynb, matrix: {k: [1, 2]}, outputs: [part]}
              after: {notebook: after.ipynb, when: "token == 'x' and part.auc > 1"}
        """
    )
    with pytest.raises(SpecError) as caught:
        project.run()
    told = " ".join(problem.message for problem in caught.value.problems)
    assert "a secret" in told
    assert "p.part, whose variants have a value each" in told


def test_a_param_that_only_a_condition_names_can_be_given_for_a_run(project: SmallProject) -> None:
    assert project.actions(params={"publish": False})["p.publish"] == "skipped"
    with pytest.raises(UsageError, match="publish"):
        project.actions(params={"publihs": False})
