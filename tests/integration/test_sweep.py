"""A stage at many points: given on the command line, cached, resumable, and nothing of it in the workspace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import mlflow
import pytest

import nbtools
from nbtools.api import SweepResult
from nbtools.errors import NbtoolsError
from tests.projects import SmallProject, wait_until

BODY = """
from pathlib import Path
with open("runs.txt", "a") as stream:
    stream.write(f"{alpha} {l1_ratio}\\n")
if alpha in fails and not Path("mended").exists():
    raise ValueError(f"no luck with {alpha}")
import time
time.sleep(pause)
Path(model).write_text(f"{alpha} {l1_ratio} {Path(table).read_text()}")
"""
PARAMS = "alpha = 0.5\nl1_ratio = 0.0\nfails = []\npause = 0.0\ntable = 'table.txt'\nmodel = 'model.txt'"


@pytest.fixture
def project(tmp_path: Path) -> SmallProject:
    """A stage that makes a table, and one that fits a model to it."""
    project = SmallProject(tmp_path)
    project.spec("""
        data: {table: table.txt, model: model.txt}
        pipelines:
          train:
            stages:
              make: {notebook: make.ipynb, outputs: [table]}
              fit: {notebook: fit.ipynb, inputs: [table], outputs: [model]}
    """)
    project.notebook(
        "make.ipynb",
        "from pathlib import Path\nPath(table).write_text(text)",
        params="text = 'a'\ntable = 'table.txt'",
    )
    project.notebook("fit.ipynb", BODY, params=PARAMS)
    return project


def swept(project: SmallProject, **options: object) -> SweepResult:
    space = {"alpha": [0, 0.5], "l1_ratio": "range(0, 1, 0.5)"}
    return nbtools.sweep("fit", space, project=project.root, **{"track": False, **options})  # type: ignore[arg-type]


def runs(project: SmallProject) -> Counter[str]:
    """How often the notebook ran at each point."""
    return Counter(project.text("runs.txt").splitlines())


def states(found: SweepResult) -> list[str]:
    return [row.state for row in found.variants]


def test_every_combination_is_a_cached_run_that_leaves_the_workspace_alone(project: SmallProject) -> None:
    first = swept(project)
    assert [row.variant for row in first.variants] == [
        "train.fit[alpha=0,l1_ratio=0.0]",
        "train.fit[alpha=0,l1_ratio=0.5]",
        "train.fit[alpha=0.5,l1_ratio=0.0]",
        "train.fit[alpha=0.5,l1_ratio=0.5]",
    ]
    assert (first.status, states(first)) == ("passed", ["finished"] * 4)
    assert not (project.root / "model.txt").exists()
    assert project.text(first.variants[1].outputs["model"]) == "0 0.5 a"
    again = swept(project)
    assert states(again) == ["cached"] * 4
    assert set(runs(project).values()) == {1}
    frame = again.frame()
    assert list(frame.columns) == ["alpha", "l1_ratio", "state", "duration_s"]
    assert len(frame) == 4


def test_a_variant_becomes_the_stages_result_without_running(project: SmallProject) -> None:
    swept(project)
    used = project.run("fit", params={"fit.alpha": 0.5, "fit.l1_ratio": 0.5})
    assert used.stages["train.fit"].status == "restored"
    assert project.text("model.txt") == "0.5 0.5 a"
    (project.root / ".nbtools/sweeps").rename(project.root / "thrown away")
    assert states(swept(project)) == ["cached"] * 4
    assert set(runs(project).values()) == {1}


def test_a_failed_variant_is_told_and_tried_again(project: SmallProject) -> None:
    found = swept(project, params={"fails": [0.5]})
    assert found.status == "failed"
    assert states(found) == ["finished", "finished", "failed", "failed"]
    assert found.variants[2].reason == "ValueError: no luck with 0.5"
    project.write("mended", "")
    again = swept(project, params={"fails": [0.5]})
    assert states(again) == ["cached", "cached", "finished", "finished"]


def test_notebook_of_a_failed_variant_is_opened_by_the_name_that_was_printed(project: SmallProject) -> None:
    swept(project, params={"fails": [0.5]})
    found = nbtools.lab("train.fit[alpha=0.5,l1_ratio=0.0]", project=project.root)
    assert found.words[-1] == str(project.root / ".nbtools/failed/train.fit[alpha=0.5,l1_ratio=0.0].ipynb")
    with pytest.raises(NbtoolsError, match=r"nothing is called 'train\.fit\[alpha=7\]'"):
        nbtools.lab("train.fit[alpha=7]", project=project.root)


@pytest.mark.parametrize("word", ["min", "minimize"])
def test_direction_is_said_in_either_way(project: SmallProject, word: str) -> None:
    assert swept(project, metric="rmse", direction=word).direction == "minimize"
    with pytest.raises(NbtoolsError, match="unknown direction 'down'"):
        swept(project, metric="rmse", direction="down")


def test_what_variants_have_made_is_freed_when_no_run_has_needed_it_for_long(project: SmallProject) -> None:
    project.run("make")
    swept(project)
    folder = project.root / ".nbtools/sweeps/train.fit"
    nbtools.gc(project=project.root)
    assert len(list(folder.iterdir())) == 4
    nbtools.gc(keep_days=0, project=project.root)
    assert not list(folder.iterdir())
    assert project.actions("make") == {"train.make": "up to date"}
    assert states(swept(project)) == ["finished"] * 4


def test_params_with_one_value_reach_the_stages_before(project: SmallProject) -> None:
    found = swept(project, params={"text": "b"})
    assert project.text(found.variants[0].outputs["model"]) == "0 0.0 b"


def test_a_killed_sweep_goes_on_where_it_was(project: SmallProject) -> None:
    words = ["sweep", "fit", "-p", "alpha=range(0,6)", "-p", "pause=0.5", "--no-tracking", "--jobs", "1"]
    process = project.start(*words)
    wait_until(lambda: len(list((project.root / ".nbtools/sweeps").glob("train.fit/*/model.txt"))) >= 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = len(list((project.root / ".nbtools/sweeps").glob("train.fit/*/model.txt")))
    assert done < 6
    again = project.command(*words, "--json")
    assert again.returncode == 0, again.stderr
    found = Counter(row["state"] for row in json.loads(again.stdout)["variants"])
    assert found["cached"] >= done
    assert found["cached"] + found["finished"] == 6
    # At most the variant that was killed has been begun twice.
    assert sum(runs(project).values()) <= 7


def test_two_sweeps_at_once_wait_for_each_other(project: SmallProject) -> None:
    words = ["sweep", "fit", "-p", "alpha=0,1,2", "-p", "pause=0.4", "--no-tracking"]
    processes = [project.start(*words) for _ in range(2)]
    ends = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ends
    assert sum("waiting for run" in stderr for _, stderr in ends) == 1
    assert set(runs(project).values()) == {1}


def test_variants_are_nested_runs_of_mlflow_with_their_params(project: SmallProject) -> None:
    project.notebook("fit.ipynb", BODY, "import mlflow\nmlflow.log_metric('rmse', 1 - alpha)", params=PARAMS)
    found = swept(project, track=True, metric="rmse", jobs=2)
    assert found.best is not None
    assert found.best.params["alpha"] == 0.5
    client = mlflow.MlflowClient(f"sqlite:///{project.root}/.nbtools/mlflow.db")
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    (parent,) = client.search_runs([experiment.experiment_id], "tags.`nbtools.targets` = 'train.fit'")
    assert "nbtools sweep train.fit" in parent.data.tags["mlflow.note.content"]
    nested = client.search_runs(
        [experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    )
    named = {run.info.run_name: run for run in nested}
    assert named["fit[alpha=0.5,l1_ratio=0.0]"].data.params["alpha"] == "0.5"
    assert named["fit[alpha=0,l1_ratio=0.5]"].data.metrics == {"rmse": 1.0}
    assert {run.info.run_id for run in nested} >= {row.tracking_run for row in found.variants}


def test_the_matrix_of_the_file_is_swept_to_its_pattern(project: SmallProject) -> None:
    text = project.text("pipelines.yaml").replace("model: model.txt", "model: 'm/{alpha}.txt'")
    project.write(
        "pipelines.yaml", text.replace("outputs: [model]}", "outputs: [model], matrix: {alpha: [1, 2]}}")
    )
    found = nbtools.sweep("fit", project=project.root, track=False)
    assert [row.outputs["model"] for row in found.variants] == ["m/1.txt", "m/2.txt"]


def test_single_value_of_a_param_of_the_matrix_is_a_variant_and_its_outputs_are_named(
    project: SmallProject,
) -> None:
    matrix = "outputs: [model], matrix: {alpha: [0.1, 0.2]}}"
    spec = project.text("pipelines.yaml").replace("outputs: [model]}", matrix)
    project.write("pipelines.yaml", spec.replace("model: model.txt", '"model": "model-{alpha}.txt"'))
    done = project.command("sweep", "fit", "-p", "alpha=0.5", "-p", "text=b", "--no-tracking")
    assert done.returncode == 0, done.stderr
    assert "train.fit[alpha=0.5]" in done.stdout
    assert project.text(".nbtools/sweeps/train.fit/alpha=0.5/model.txt").startswith("0.5")


@pytest.mark.parametrize(
    ("metric", "way"), [("r2", "maximize"), ("test_roc_auc", "maximize"), ("rmse", "minimize")]
)
def test_direction_follows_from_the_metrics_name(project: SmallProject, metric: str, way: str) -> None:
    assert swept(project, metric=metric).direction == way


def test_the_table_is_printed_and_written(project: SmallProject) -> None:
    done = project.command("sweep", "fit", "-p", "alpha=1,2", "-q", "--no-tracking", "--csv", "t.csv")
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()[-2:]] == [
        ["1", "finished"],
        ["2", "finished"],
    ]
    assert project.text("t.csv").splitlines()[1].startswith("train.fit[alpha=1],1,finished,0.")


def test_a_plan_of_a_sweep_needs_no_optuna(project: SmallProject) -> None:
    code = (
        "import sys, nbtools\n"
        f"made = nbtools.plan_sweep('fit', {{'alpha': [1, 2]}}, project={str(project.root)!r})\n"
        "print(len(made.steps), 'optuna' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "False"]


@pytest.mark.parametrize(
    ("words", "message", "fix"),
    [
        (["fot", "-p", "alpha=1,2"], "no stage is called 'fot'", "did you mean 'fit'?"),
        (["fit"], "nothing is varied: train.fit has no matrix", "-p alpha=0,0.2,0.5"),
        (["fit", "-p", "alpa=1,2"], "-p alpa: fit.ipynb declares no param 'alpa'", "did you mean 'alpha'?"),
        (["fit", "-p", "alpha=a,b"], "-p alpha: a number is expected, not 'a'", ""),
        (["fit", "-p", "alpha=0,0.0,0"], "-p alpha: 0 and 0 would make variants of the same name", ""),
        (["fit", "-p", "alpha=range(1,0)"], "-p alpha: it has no values", "-p alpha=0,0.2,0.5"),
        (["fit", "-p", "alpha=0..1"], "has no values to make a grid of", "linspace(0.0, 1.0, 5)"),
        (["fit", "-p", "alpha=0,1..2"], "1..2 is an interval, and cannot stand beside values", ""),
        (["fit", "-p", "make.text=a,b"], "'make.text' is no param of train.fit", "others have one value"),
        (["fit", "-p", "alpha=1,2", "--sampler", "tpa"], "unknown sampler 'tpa'", "did you mean 'tpe'?"),
        (["fit", "-p", "alpha=1,2", "--sampler", "tpe"], "tpe learns from a metric", "--metric rmse"),
        (["fit", "-p", "alpha=1,2", "--prune"], "variants are compared by a metric", "--metric rmse"),
        (["fit", "-p", "alpha=1,2", "--trials", "2"], "a grid runs all its points", "--sampler random"),
        (["fit", "-p", "alpha=1..0", "--sampler", "random"], "1..0 is empty", ""),
        (["fit", "-p", "alpha=log(0..1)", "--sampler", "random"], "lies above 0", ""),
        (["fit", "-p", "alpha=range(0,1,0.001)", "-p", "l1_ratio=range(99)"], "99,000 variants", "sampler"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused_in_words(
    project: SmallProject, words: list[str], message: str, fix: str
) -> None:
    from nbtools.cli.main import cli

    with pytest.raises(NbtoolsError) as caught:
        cli.main(["--project", str(project.root), "sweep", *words], standalone_mode=False)
    assert message in str(caught.value)
    assert fix in str(caught.value)
    assert caught.value.exit_code == 2
    assert not (project.root / "runs.txt").exists()
