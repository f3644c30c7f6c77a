"""How a run goes: in parallel, with retries and budgets, variants, params, secrets and interpreters."""

from __future__ import annotations

import base64
import html
import json
import os
import shutil
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest

import nbtools.api
from nbtools.errors import UsageError
from nbtools.execution.events import (
    RunStarted,
    StageFailed,
    StageFinished,
    StageRetried,
    StageStarted,
)
from tests.projects import SmallProject, environment, one_stage, two_stages

# Order and parallelism

MEETS = """
    import time
    from pathlib import Path
    Path(f"{me}.here").touch()
    deadline = time.monotonic() + 60
    while not Path(f"{other}.here").exists():
        assert time.monotonic() < deadline, "the other stage does not run"
        time.sleep(0.02)
"""


def test_independent_stages_run_at_the_same_time(tmp_path: Path) -> None:
    project = SmallProject(tmp_path)
    project.spec("""
        pipelines:
          work:
            stages:
              left: {notebook: meet.ipynb, params: {me: left, other: right}}
              right: {notebook: meet.ipynb, params: {me: right, other: left}}
    """)
    project.notebook("meet.ipynb", MEETS, params="me = other = ''")
    assert project.statuses(project.run(jobs=2)) == {"work.left": "finished", "work.right": "finished"}


def five_stages(root: Path) -> SmallProject:
    """Return a project in which ``bad`` fails, ``poor`` and ``poorest`` need it, and two others do not."""
    project = SmallProject(root)
    project.spec("""
        data: {a: a.txt, b: b.txt, c: c.txt, d: d.txt, e: e.txt}
        pipelines:
          work:
            stages:
              bad: {notebook: bad.ipynb, outputs: {result: a}}
              poor: {notebook: copy.ipynb, inputs: {source: a}, outputs: {result: b}}
              poorest: {notebook: copy.ipynb, inputs: {source: b}, outputs: {result: c}}
              good: {notebook: good.ipynb, outputs: {result: d}}
              better: {notebook: copy.ipynb, inputs: {source: d}, outputs: {result: e}}
    """)
    project.notebook("bad.ipynb", "1 / 0", params="result = ''")
    project.notebook("good.ipynb", "open(result, 'w').write('good')", params="result = ''")
    project.notebook(
        "copy.ipynb", "open(result, 'w').write(open(source).read())", params="source = result = ''"
    )
    return project


def test_one_job_runs_one_stage_after_the_other_and_fail_fast_starts_nothing_new(tmp_path: Path) -> None:
    project = five_stages(tmp_path)
    state = project.run(jobs=1, fail_fast=True)
    assert state.status == "failed"
    skipped = {key: stage.reason for key, stage in state.stages.items() if stage.status == "skipped"}
    assert skipped == {
        "work.poor": "work.bad",
        "work.poorest": "work.poor",
        "work.good": "another stage failed (--fail-fast)",
        "work.better": "work.good",
    }

    events = project.events(jobs=1)
    order = [event for event in events if isinstance(event, StageStarted | StageFinished | StageFailed)]
    assert [(type(event).__name__, event.stage) for event in order] == [
        ("StageStarted", "work.bad"),
        ("StageFailed", "work.bad"),
        ("StageStarted", "work.good"),
        ("StageFinished", "work.good"),
        ("StageStarted", "work.better"),
        ("StageFinished", "work.better"),
    ]
    assert project.actions() == {
        "work.bad": "run",
        "work.poor": "run",
        "work.poorest": "run",
        "work.good": "up to date",
        "work.better": "up to date",
    }


def test_as_many_jobs_as_processors_unless_said_otherwise(tmp_path: Path) -> None:
    project = two_stages(tmp_path)
    for options, expected in (({}, len(os.sched_getaffinity(0))), ({"jobs": 7}, 7)):
        (started,) = [event for event in project.events(**options) if isinstance(event, RunStarted)]
        assert started.jobs == expected
    with pytest.raises(UsageError, match="at least one job"):
        project.run(jobs=0)


def test_target_brings_what_it_needs_and_nothing_else(tmp_path: Path) -> None:
    project = five_stages(tmp_path)
    state = project.run("e")  # a dataset
    assert project.statuses(state) == {"work.good": "finished", "work.better": "finished"}
    assert not (tmp_path / "a.txt").exists()
    forced = project.run("better", force=True)
    assert project.statuses(forced) == {"work.good": "up to date", "work.better": "finished"}


# Trying again, and budgets

FLAKY = """
    from pathlib import Path
    tries = Path(f"{me}.tries")
    count = int(tries.read_text()) + 1 if tries.exists() else 1
    tries.write_text(str(count))
    assert count > fails, f"try {count}"
"""


def test_failed_stage_is_tried_again_as_often_as_it_may(tmp_path: Path) -> None:
    project = SmallProject(tmp_path)
    project.spec("""
        defaults: {retries: 1}
        pipelines:
          work:
            stages:
              flaky: {notebook: flaky.ipynb, params: {me: flaky, fails: 1}}
              hopeless: {notebook: flaky.ipynb, params: {me: hopeless, fails: 9}}
              once: {notebook: flaky.ipynb, params: {me: once, fails: 9}, retries: 0}
    """)
    project.notebook("flaky.ipynb", FLAKY, params="me = ''\nfails = 0")

    events = project.events(jobs=3)

    tries = [(event.stage, event.attempt) for event in events if isinstance(event, StageStarted)]
    assert sorted(tries) == [
        ("work.flaky", 1),
        ("work.flaky", 2),
        ("work.hopeless", 1),
        ("work.hopeless", 2),
        ("work.once", 1),
    ]
    retried = {event.stage: event.failure.message for event in events if isinstance(event, StageRetried)}
    assert retried == {"work.flaky": "AssertionError: try 1", "work.hopeless": "AssertionError: try 1"}
    failed = {
        event.stage: (event.attempt, event.failure.message)
        for event in events
        if isinstance(event, StageFailed)
    }
    assert failed == {
        "work.hopeless": (2, "AssertionError: try 2"),
        "work.once": (1, "AssertionError: try 1"),
    }
    finished = [event.stage for event in events if isinstance(event, StageFinished)]
    assert finished == ["work.flaky"]


def test_budget_is_the_whole_notebooks(tmp_path: Path) -> None:
    # Each cell alone would stay within it.
    cells = ["import time\ntime.sleep(1.5)"] * 4
    project = one_stage(tmp_path, *cells, options="timeout: 4s")
    failure = project.run().stages["work.only"].failure
    assert failure is not None
    assert failure.kind == "timeout"
    assert failure.cell in (3, 4)


def test_cell_that_may_raise_does_not_fail_its_stage(tmp_path: Path) -> None:
    project = one_stage(tmp_path, "1 / 0")
    content = json.loads(project.text("only.ipynb"))
    content["cells"][1]["metadata"]["tags"] = ["raises-exception"]
    project.write("only.ipynb", json.dumps(content))
    assert project.run().status == "passed"
    executed = project.cells(".nbtools/executed/work.only.ipynb")
    assert [output["ename"] for output in executed[2]["outputs"]] == ["ZeroDivisionError"]
    assert project.text("result.txt") == "done"


# Variants, order without data, and params


@pytest.fixture(scope="module")
def spread(tmp_path_factory: pytest.TempPathFactory) -> SmallProject:
    """Return a project with a matrix stage, its consumer, and one that only comes after, after a run."""
    project = SmallProject(tmp_path_factory.mktemp("spread"))
    project.spec("""
        data: {candidate: "models/{alpha}-{kind}.txt", best: best.json}
        pipelines:
          train:
            stages:
              tidy: {notebook: tidy.ipynb, after: [choose]}
              choose: {notebook: choose.ipynb, inputs: {candidates: candidate}, outputs: [best]}
              fit:
                notebook: fit.ipynb
                outputs: {model: candidate}
                matrix: {alpha: [0, 0.5], kind: [a, "b c"]}
    """)
    project.notebook(
        "fit.ipynb",
        "import json\nwith open(model, 'w') as stream:\n    json.dump([alpha, kind], stream)",
        params="alpha = 0.1\nkind = ''\nmodel = ''",
    )
    project.notebook(
        "choose.ipynb",
        "import json\nassert isinstance(candidates, list)",
        "with open(best, 'w') as stream:\n    json.dump([[path, json.load(open(path))] for path in candidates], stream)",
        params="candidates = []\nbest = ''",
    )
    project.notebook(
        "tidy.ipynb", "from pathlib import Path\nassert Path('best.json').exists()\nPath('tidy').touch()"
    )
    assert project.run(jobs=2).status == "passed"
    return project


def test_each_variant_runs_with_its_point_of_the_matrix(spread: SmallProject) -> None:
    names = sorted(path.name for path in (spread.root / "models").iterdir())
    assert len(names) == 4
    values = sorted(json.loads((spread.root / "models" / name).read_text()) for name in names)
    assert values == [[0, "a"], [0, "b c"], [0.5, "a"], [0.5, "b c"]]
    assert len([key for key in spread.actions() if key.startswith("train.fit")]) == 4


def test_consumer_of_a_matrix_receives_the_list_of_all_variants(spread: SmallProject) -> None:
    found = json.loads(spread.text("best.json"))
    assert [values for _, values in found] == [[0, "a"], [0, "b c"], [0.5, "a"], [0.5, "b c"]]
    assert all((spread.root / path).is_file() for path, _ in found)


def test_stage_comes_after_another_without_a_dataset_between_them(spread: SmallProject) -> None:
    assert (spread.root / "tidy").exists()
    assert list(spread.actions("tidy"))[-2:] == ["train.choose", "train.tidy"]


def test_new_variant_runs_alone(spread: SmallProject) -> None:
    before = spread.text("pipelines.yaml")
    spread.write("pipelines.yaml", before.replace("[0, 0.5]", "[0, 0.5, 0.9]"))
    actions = spread.actions("fit")
    spread.write("pipelines.yaml", before)
    assert sorted(actions.values()) == ["run", "run", *["up to date"] * 4]
    assert all("0.9" in key for key, action in actions.items() if action == "run")


def test_later_layers_of_params_win(tmp_path: Path) -> None:
    project = SmallProject(tmp_path)
    project.spec("""
        params: {a: project, b: project, c: project, d: project, e: project, f: project}
        data: {result: seen.json}
        pipelines:
          work:
            params: {b: pipeline, c: pipeline, d: pipeline, e: pipeline, f: pipeline}
            stages:
              only:
                notebook: only.ipynb
                outputs: [result]
                params: {c: stage, d: stage, e: stage, f: stage}
    """)
    project.notebook(
        "only.ipynb",
        "import json\njson.dump([unset, a, b, c, d, e, f], open(result, 'w'))",
        params="unset = 'notebook'\na = b = c = d = e = f = 'notebook'\nresult = ''",
    )
    project.write("mine.yaml", "d: file\ne: file\nf: file\n")
    words = ("--params-file", "mine.yaml", "-p", "e=typed", "-p", "work.only.f='for one stage'")
    done = project.command("run", "--no-tracking", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    expected = ["notebook", "project", "pipeline", "stage", "file", "typed", "for one stage"]
    assert json.loads(project.text("seen.json")) == expected


# Secrets

#: Everything that must be escaped somewhere: quotes, a backslash, marks of HTML, letters outside ASCII.
SECRET = "pä\"ss'w\\örd</Ω+&7hunter2"
LEAKS = """
    import base64, html, os, sys, urllib.parse
    value = os.environ[token]
    print("the secret is", value)
    print(value[:7], end=""); sys.stdout.flush()
    print(value[7:])
    print(value, file=sys.stderr)
    print(value[:-4], end="", flush=True); print("!", file=sys.stderr, flush=True); print(value[-4:], flush=True)
    print(base64.b64encode(value.encode()).decode())
    print(urllib.parse.quote(value, safe=""))
    print([value], {"key": value})
    from IPython.display import HTML, JSON, display
    display(JSON({"key": value}), HTML(f"<b>{value}</b>"), HTML(html.escape(value)), value)
    value
"""


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> tuple[SmallProject, subprocess.CompletedProcess[str]]:
    """Return a project after a run whose notebooks print their secret in every way, and what it printed."""
    project = SmallProject(tmp_path_factory.mktemp("leaky"))
    project.spec("""
        data: {seen: seen.txt}
        pipelines:
          work:
            stages:
              prints: {notebook: prints.ipynb, params: {token: {secret: NBTOOLS_TEST_TOKEN}}}
              raises: {notebook: raises.ipynb, params: {token: {secret: NBTOOLS_TEST_TOKEN}}}
              dies: {notebook: dies.ipynb, params: {token: {secret: NBTOOLS_TEST_TOKEN}}}
              other: {notebook: other.ipynb, outputs: [seen]}
    """)
    project.notebook("prints.ipynb", LEAKS, params="token = 'NBTOOLS_TEST_TOKEN'")
    project.notebook(
        "raises.ipynb",
        "import os\nvalue = os.environ[token]",
        "raise ValueError(f'refused: {value} {[value]}')",
        params="token = ''",
    )
    project.notebook(
        "dies.ipynb",
        "import os\nos.write(2, os.environ[token].encode() + b'.' * 1996)\nos._exit(3)",
        params="token = ''",
    )
    project.notebook(
        "other.ipynb",
        "import os\nopen(seen, 'w').write(str('NBTOOLS_TEST_TOKEN' in os.environ))",
        params="seen = ''",
    )
    done = project.command("run", "--no-tracking", env={"NBTOOLS_TEST_TOKEN": SECRET})
    assert done.returncode == 1
    assert project.statuses(nbtools.api.show(project=project.root)) == {
        "work.prints": "finished",
        "work.raises": "failed",
        "work.dies": "failed",
        "work.other": "finished",
    }
    return project, done


def forms_of_secret() -> list[bytes]:
    plain = [SECRET, repr(SECRET)[1:-1], json.dumps(SECRET)[1:-1], urllib.parse.quote(SECRET, safe="")]
    plain += [html.escape(SECRET), html.escape(SECRET, quote=False)]
    plain += [json.dumps(form, ensure_ascii=False)[1:-1] for form in plain]
    parts = [b"hunter2", b"7hun", b"ter2"]
    return [form.encode() for form in plain] + [base64.b64encode(SECRET.encode()), *parts]


def test_secret_is_in_no_file_that_nbtools_keeps_and_in_nothing_that_it_prints(
    leaky: tuple[SmallProject, subprocess.CompletedProcess[str]],
) -> None:
    project, done = leaky
    files = [path for path in (project.root / ".nbtools").rglob("*") if path.is_file()]
    assert len(files) > 5
    texts = {str(path.relative_to(project.root)): path.read_bytes() for path in files}
    texts["what it printed"] = (done.stdout + done.stderr).encode()
    assert [(name, form) for name, text in texts.items() for form in forms_of_secret() if form in text] == []


def test_masked_output_shows_that_something_stood_there(
    leaky: tuple[SmallProject, subprocess.CompletedProcess[str]],
) -> None:
    project, done = leaky
    printed = project.text(".nbtools/executed/work.prints.ipynb")
    assert "the secret is ●●●●●●" in printed
    assert printed.count("●●●●●●") >= 11
    failure = nbtools.api.show(project=project.root).stages["work.raises"].failure
    assert failure is not None
    assert failure.message == "ValueError: refused: ●●●●●● ['●●●●●●']"
    assert "ValueError: refused: ●●●●●●" in done.stdout


def test_secret_reaches_only_the_stages_that_declare_it(
    leaky: tuple[SmallProject, subprocess.CompletedProcess[str]],
) -> None:
    assert leaky[0].text("seen.txt") == "False"


def test_missing_or_openly_given_secret_is_an_error_before_anything_runs(
    leaky: tuple[SmallProject, subprocess.CompletedProcess[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = leaky[0]
    runs = len(nbtools.api.history(project=project.root))
    monkeypatch.delenv("NBTOOLS_TEST_TOKEN", raising=False)
    with pytest.raises(UsageError, match=r"NBTOOLS_TEST_TOKEN is not set; work\.\w+ needs it"):
        project.run()
    monkeypatch.setenv("NBTOOLS_TEST_TOKEN", SECRET)
    with pytest.raises(UsageError, match="must not be written down"):
        project.run(params={"token": "in the open"})
    assert len(nbtools.api.history(project=project.root)) == runs


# The executed notebook


def test_executed_notebook_runs_again_with_plain_jupyter_from_the_project_folder(tmp_path: Path) -> None:
    project = two_stages(tmp_path)
    assert project.run(params={"factor": 5}).status == "passed"
    (tmp_path / "data/doubled.txt").unlink()
    executed = (tmp_path / ".nbtools/executed/data.double.ipynb").read_bytes()
    # Nothing points to the private folder of the attempt, which is gone.
    assert b"attempts" not in executed
    command = ["-m", "jupyter", "nbconvert", "--to", "notebook", "--execute", "--stdin", "--stdout"]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        input=executed,
        capture_output=True,
        timeout=120,
        check=False,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    assert project.text("data/doubled.txt") == "5\n10\n15"


# Interpreters


@pytest.fixture(scope="module")
def other_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of an environment that has nothing installed."""
    folder = tmp_path_factory.mktemp("other") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return folder / "bin" / "python"


@pytest.mark.parametrize(
    ("python", "expected"),
    [
        ("OTHER", "this Python has no ipykernel, so it cannot run notebooks"),
        ("no/such/python", "there is no Python at 'no/such/python'"),
        ("python-of-nobody", "there is no program 'python-of-nobody' on PATH"),
        ("/bin/cat", "/bin/cat does not run as a Python"),
    ],
)
def test_unusable_interpreter_is_an_error_before_anything_runs(
    tmp_path: Path, other_python: Path, python: str, expected: str
) -> None:
    python = str(other_python) if python == "OTHER" else python
    project = one_stage(tmp_path, options=f"python: {python}")
    done = project.command("run", "--no-tracking")
    assert done.returncode == 2
    assert expected in done.stderr
    assert "fix: " in done.stderr
    assert done.stdout == ""
    assert nbtools.api.history(project=tmp_path) == []


def test_stage_runs_on_its_own_interpreter_which_is_recorded(tmp_path: Path, other_python: Path) -> None:
    libraries = next(other_python.parent.parent.glob("lib/python*/site-packages"))
    ours = next(path for path in sys.path if path.endswith("site-packages"))
    (libraries / "borrowed.pth").write_text(ours)
    try:
        project = one_stage(
            tmp_path,
            "import sys\nopen('who.txt', 'w').write(sys.prefix)",
            options=f"python: {other_python}",
        )
        state = project.run()
    finally:
        (libraries / "borrowed.pth").unlink()
    assert state.status == "passed", state
    assert project.text("who.txt") == str(other_python.parent.parent)
    assert state.stages["work.only"].interpreter == str(other_python)


def test_working_directory_and_modules_of_a_stage(tmp_path: Path) -> None:
    project = one_stage(
        tmp_path,
        """
        import os
        from beside import WHERE
        assert os.path.basename(os.getcwd()) == "inner", os.getcwd()
        assert WHERE == "beside the working directory"
        """,
        options="cwd: inner",
    )
    project.write("inner/beside.py", "WHERE = 'beside the working directory'")
    before = Path.cwd()
    assert project.run().status == "passed"
    assert Path.cwd() == before
    assert project.text("result.txt") == "done"


OUTPUT_THAT_IS_NONE = {
    "a named pipe": ("os.mkfifo(result)", "a named pipe (result.txt)"),
    "a socket": (
        "import socket; os.chdir(os.path.dirname(result)); socket.socket(socket.AF_UNIX).bind('result.txt')",
        "a socket (result.txt)",
    ),
    "a pipe in a folder": (
        "os.makedirs(result + '/d'); os.mkfifo(result + '/d/pipe')",
        "a named pipe (pipe)",
    ),
    "a device": (
        "os.mkdir(result); os.mknod(result + '/null', 0o020666, os.makedev(1, 3))",
        "a device (null)",
    ),
    "a link out": ("os.mkdir(result); os.symlink('/etc', result + '/etc')", "a link to /etc"),
    "a link up": ("os.mkdir(result); os.symlink('../x', result + '/up')", "a link to ../x"),
}


@pytest.mark.parametrize("case", OUTPUT_THAT_IS_NONE)
def test_output_that_is_no_file_or_folder_of_files_is_refused_by_name(tmp_path: Path, case: str) -> None:
    code, said = OUTPUT_THAT_IS_NONE[case]
    if case == "a device" and os.geteuid():
        pytest.skip("not on this platform: only root makes devices")
    project = one_stage(tmp_path)
    project.notebook("only.ipynb", "import os", code, params='result = "result.txt"')
    failure = project.run().stages["work.only"].failure
    assert failure is not None
    assert f"the dataset 'result' is, or holds, {said}" in failure.message
    assert not os.path.lexists(tmp_path / "result.txt")


def test_links_within_an_output_survive_being_restored(tmp_path: Path) -> None:
    project = one_stage(tmp_path)
    code = "import os; os.makedirs(result + '/d'); open(result + '/d/f', 'w').write('1'); os.symlink('d', result + '/ld')"
    project.notebook("only.ipynb", code, params='result = "result.txt"')
    assert project.run().status == "passed"
    assert project.actions() == {"work.only": "up to date"}
    shutil.rmtree(tmp_path / "result.txt")
    assert project.statuses(project.run()) == {"work.only": "restored"}
    assert os.readlink(tmp_path / "result.txt/ld") == "d"
    assert project.text("result.txt/ld/f") == "1"
    assert project.actions() == {"work.only": "up to date"}
