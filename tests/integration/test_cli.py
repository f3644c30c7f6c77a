"""The command line as people and machines use it: exit codes, what goes to which stream, JSON."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

import nbtools
from tests.projects import SmallProject, notebook, one_stage, two_stages


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> SmallProject:
    """Return a project after a run that passed and one that failed; tests only look at it."""
    project = two_stages(tmp_path_factory.mktemp("cli"))
    for words in (["init", "-q", "-b", "trunk"], ["add", "."], ["commit", "-q", "-m", 'One, "two"']):
        identity = ["-c", "user.name=A Tester", "-c", "user.email=tester@example.org"]
        subprocess.run(["git", *identity, *words], cwd=project.root, check=True)
    passed = project.command("run", "--no-tracking")
    assert passed.returncode == 0, passed.stderr
    assert passed.stderr == ""
    assert "data.double" in passed.stdout
    assert passed.stdout.splitlines()[-1].startswith("small: 2 stages run")
    content = json.loads(project.text("notebooks/total.ipynb"))
    content["cells"].append({**notebook("x = 1\n1 / 0", params=None)["cells"][0], "id": "last"})
    project.write("notebooks/total.ipynb", json.dumps(content))
    failed = project.command("run", "--no-tracking")
    assert failed.returncode == 1
    assert failed.stderr == ""
    (project.root / "failed.txt").write_text(failed.stdout)
    return project


def test_failure_shows_notebook_cell_source_error_and_the_command_that_opens_it(
    project: SmallProject,
) -> None:
    said = project.text("failed.txt")
    assert "\x1b" not in said
    for part in (
        "data.total",
        "notebooks/total.ipynb",
        "cell 3",
        "→ 2 │ 1 / 0",
        "ZeroDivisionError: division by zero",
        ".nbtools/failed/data.total.ipynb",
    ):
        assert part in said, part
    assert re.search(r"(nbtools open|jupyter lab) .*total", said)


def test_alone_it_prints_what_the_project_holds_and_the_next_sensible_command(project: SmallProject) -> None:
    done = project.command()
    assert (done.returncode, done.stderr) == (0, "")
    assert "small: pipelines data; stages: 1 up to date, 1 failed" in done.stdout
    assert "nbtools why data.total" in done.stdout


LOOKS = [
    ("plan",),
    ("run", "--dry-run"),
    ("why", "total"),
    ("status",),
    ("history",),
    ("show",),
    ("graph",),
    ("schema",),
]


@pytest.mark.parametrize("words", LOOKS, ids=" ".join)
def test_looking_prints_text_and_json_and_nothing_on_stderr(
    project: SmallProject, words: tuple[str, ...]
) -> None:
    done = project.command(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    assert "\x1b" not in done.stdout
    if words == ("schema",):
        assert json.loads(done.stdout)["title"] == "nbtools pipelines.yaml"
        return
    machine = project.command(*words, "--json")
    assert (machine.returncode, machine.stderr) == (0, "")
    assert json.loads(machine.stdout)


def test_plan_says_what_would_run_and_why(project: SmallProject) -> None:
    said = project.command("plan").stdout
    assert re.search(r"up to date +data\.double", said)
    assert re.search(r"run +data\.total +.*1 cell changed", said)
    assert "1 of 2 stages would run" in said
    steps = json.loads(project.command("plan", "--json", "-p", "factor=3").stdout)
    assert {step["stage"]: step["action"] for step in steps} == {"data.double": "run", "data.total": "run"}
    assert steps[0]["reasons"] == ["param factor: 2 → 3"]


def test_why_shows_the_changed_cell_as_a_diff(project: SmallProject) -> None:
    said = project.command("why", "total").stdout
    assert "data.total: run" in said
    assert "+1 / 0" in said


def test_history_has_one_row_a_run_newest_first_with_commit_branch_and_message(project: SmallProject) -> None:
    rows = json.loads(project.command("history", "--json").stdout)
    assert [row["status"] for row in rows] == ["failed", "passed"]
    assert list(rows[0])[:7] == ["status", "run", "commit", "branch", "message", "duration", "completed"]
    assert rows[1]["branch"] == "trunk"
    assert rows[1]["message"] == 'One, "two"'
    assert rows[1]["dirty"] is False
    assert rows[0]["dirty"] is True
    assert rows[1]["duration"] > 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", rows[1]["completed"])


def test_history_as_csv_holds_the_same(project: SmallProject, tmp_path: Path) -> None:
    printed = project.command("history", "--csv", "-")
    written = project.command("history", "--csv", str(tmp_path / "runs.csv"))
    assert written.stdout == ""
    assert (tmp_path / "runs.csv").read_text() == printed.stdout
    rows = list(csv.DictReader(io.StringIO(printed.stdout)))
    as_json = json.loads(project.command("history", "--json").stdout)
    assert [row["run"] for row in rows] == [row["run"] for row in as_json]
    assert rows[1]["message"] == 'One, "two"'


def test_history_filters(project: SmallProject) -> None:
    def statuses(*words: str) -> list[str]:
        return [row["status"] for row in json.loads(project.command("history", "--json", *words).stdout)]

    assert statuses("--status", "passed") == ["passed"]
    assert statuses("--limit", "1") == ["failed"]
    assert statuses("--branch", "trunk") == ["failed", "passed"]
    assert statuses("--branch", "other") == []


def test_show_takes_the_end_of_an_id(project: SmallProject) -> None:
    run = json.loads(project.command("history", "--json").stdout)[1]["run"]
    shown = json.loads(project.command("show", run[-6:], "--json").stdout)
    assert shown["run"] == run
    assert {key: stage["status"] for key, stage in shown["stages"].items()} == {
        "data.double": "finished",
        "data.total": "finished",
    }
    latest = project.command("show").stdout
    assert "ZeroDivisionError" in latest
    assert "cell 3" in latest


def test_graph_formats(project: SmallProject, tmp_path: Path) -> None:
    text = project.command("graph").stdout
    assert "double" in text
    assert "total" in text
    mermaid = project.command("graph", "--format", "mermaid").stdout
    assert re.match(r"(flowchart|graph) ", mermaid)
    picture = ElementTree.fromstring(project.command("graph", "--format", "svg").stdout)
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    assert "double" in "".join(picture.itertext())
    written = project.command("graph", "-o", str(tmp_path / "dag.svg"))
    assert (written.returncode, written.stdout) == (0, "")
    assert ElementTree.parse(tmp_path / "dag.svg").getroot().tag == picture.tag
    found = json.loads(project.command("graph", "--json").stdout)
    assert [node["key"] for node in found["nodes"]] == ["data.double", "data.total"]


def test_commands_work_from_a_subfolder_and_with_the_project_named(
    project: SmallProject, tmp_path: Path
) -> None:
    expected = project.command("plan", "--json").stdout
    assert project.command("plan", "--json", folder="notebooks").stdout == expected
    elsewhere = SmallProject(tmp_path)
    assert elsewhere.command("-C", str(project.root), "plan", "--json").stdout == expected
    relative = os.path.relpath(project.root, tmp_path)
    assert elsewhere.command("--project", relative, "plan", "--json").stdout == expected


WRONG_USE = [
    (("statsu",), ["no such command 'statsu'", "did you mean 'status'?"]),
    (("run", "--job", "2", "--no-tracking"), ["--job"]),
    (("run", "totl"), ["'totl'", "did you mean 'total'?"]),
    (("run", "data.totl"), ["'data.totl'", "data.total"]),
    (("why",), ["STAGE"]),
    (("why", "nothing"), ["'nothing'"]),
    (("show", "zzzz"), ["there is no run 'zzzz'"]),
    (("run", "-p", "factor"), ["'factor' is no param", "-p name=value"]),
    (("run", "-p", "factor=[1"), ["not valid YAML"]),
    (("run", "-p", "factro=1"), ["unknown param 'factro'", "did you mean 'factor'?"]),
    (("run", "-p", "factor=2.5"), ["a whole number is expected, not 2.5"]),
    (("run", "--jobs", "0"), ["at least one job is needed"]),
    (("run", "--params-file", "missing.yaml"), ["missing.yaml", "No such file"]),
    (("plan", "--params-file", "data/numbers.txt"), ["data/numbers.txt"]),
    (("graph", "--format", "png"), ["png", "svg"]),
    (("-C", "/nowhere/at/all", "status"), ["pipelines.yaml"]),
    (("history", "--limit", "0"), ["0"]),
    (("open", "nothing"), ["'nothing'"]),
]


@pytest.mark.parametrize(("words", "expected"), WRONG_USE, ids=lambda item: " ".join(item) if item else "")
def test_wrong_use_ends_with_2_and_a_message_on_stderr_only(
    project: SmallProject, words: tuple[str, ...], expected: list[str]
) -> None:
    done = project.command(*words)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert [part for part in expected if part not in done.stderr] == []
    assert len(json.loads(project.command("history", "--json").stdout)) == 2


def test_error_with_json_is_json_on_stdout_and_words_on_stderr(project: SmallProject) -> None:
    done = project.command("run", "totl", "--json")
    assert done.returncode == 2
    (problem,) = json.loads(done.stdout)["errors"]
    assert "'totl'" in problem["message"]
    assert "'totl'" in done.stderr


def test_help_and_version_need_no_project(tmp_path: Path) -> None:
    nowhere = SmallProject(tmp_path)
    assert nowhere.command("--version").stdout.strip().endswith(nbtools.__version__)
    said = nowhere.command("--help").stdout
    for name in ("run", "plan", "why", "status", "history", "show", "graph", "open", "lab", "schema"):
        assert re.search(rf"^  {name} ", said, re.MULTILINE)
        helped = nowhere.command(name, "--help")
        assert (helped.returncode, helped.stderr) == (0, "")
    assert "Exit codes" in said
    assert nowhere.command("status").returncode == 2


def test_run_for_machines_prints_one_event_a_line_and_nothing_else(tmp_path: Path) -> None:
    project = one_stage(tmp_path, "print('from the notebook')", "1 / 0")
    done = project.command("run", "--no-tracking", "--json")
    assert done.returncode == 1
    assert done.stderr == ""
    events = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds[0] == "RunStarted"
    assert kinds[-1] == "RunFinished"
    assert kinds.count("CellStarted") == 3
    assert "from the notebook" not in done.stdout
    (failed,) = [event for event in events if event["event"] == "StageFailed"]
    assert failed["failure"]["message"] == "ZeroDivisionError: division by zero"
    assert failed["failure"]["cell"] == 3


def test_quiet_run_prints_the_last_line_only(tmp_path: Path) -> None:
    done = one_stage(tmp_path).command("run", "--no-tracking", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1
    assert done.stdout.startswith("small: 1 stage run")


TYPED = {
    "a=false": False,
    "b=3": 3,
    "c=1e-3": 0.001,
    "d='3'": "3",
    "e=[1, {k: null}]": [1, {"k": None}],
    "f=": None,
    "g=a=b": "a=b",
    "h=no": "no",
}


def test_params_typed_as_yaml_arrive_in_the_notebook(tmp_path: Path) -> None:
    names = [given[0] for given in TYPED]
    project = one_stage(
        tmp_path,
        f"import json\njson.dump([{', '.join(names)}], open('seen.json', 'w'))",
        params=f"{' = '.join(names)} = None",
    )
    words = [word for given in TYPED for word in ("-p", given)]
    done = project.command("run", "--no-tracking", *words)
    assert done.returncode == 0, done.stderr
    seen = json.loads(project.text("seen.json"))
    assert seen == list(TYPED.values())
    assert [type(value) for value in seen] == [type(value) for value in TYPED.values()]
