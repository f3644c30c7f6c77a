"""Kernels forked from a zygote: what notebooks do works in them, and what is unsafe is not done."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from pathlib import Path

import pytest

import nbtools.api
from nbtools.execution.events import CellStarted, Event, StageTracked
from nbtools.execution.kernels.warm.forker import Cold, ForkJob
from nbtools.execution.kernels.warm.imports import shadows, worth_importing
from nbtools.execution.kernels.warm.nursery import Nursery
from nbtools.execution.state import RunState
from tests.projects import SmallProject, one_stage


@pytest.fixture
def debug(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, logger="nbtools")
    return caplog


def result(project: SmallProject, *cells: str, **options: object) -> object:
    """Run ``cells``, whose last value is JSON in the variable ``found``, and return that."""
    keep = "import json\nopen(result, 'w').write(json.dumps(found))"
    project.notebook("only.ipynb", *cells, keep, params='result = "result.txt"')
    state = project.run(**options)
    assert state.status == "passed", state.stages["work.only"].failure
    return json.loads(project.text("result.txt"))


WORKS = {
    "a forest on two threads": """
        from sklearn.ensemble import HistGradientBoostingRegressor
        import numpy as np
        x = np.random.default_rng(0).normal(size=(20_000, 8))
        found = bool(HistGradientBoostingRegressor(max_iter=20).fit(x, x[:, 0]).score(x, x[:, 0]) > 0.5)
    """,
    "clusters": """
        from sklearn.cluster import KMeans
        import numpy as np
        found = KMeans(3, n_init=2).fit(np.random.default_rng(0).normal(size=(3000, 4))).n_iter_ > 0
    """,
    "jobs of joblib": """
        from joblib import Parallel, delayed
        found = sum(Parallel(n_jobs=2)(delayed(abs)(-n) for n in range(10))) == 45
    """,
    "BLAS on all processors": """
        import numpy as np, os, threadpoolctl
        a = np.ones((600, 600)); found = bool((a @ a)[0, 0] == 600)
        import sklearn
        counts = {item["num_threads"] for item in threadpoolctl.threadpool_info()}
        found = found and counts == {len(os.sched_getaffinity(0))}
    """,
    "parquet": """
        import pandas as pd
        pd.DataFrame({"a": range(100_000)}).to_parquet("x.parquet")
        found = len(pd.read_parquet("x.parquet")) == 100_000
    """,
    "sqlite": """
        import sqlite3
        connection = sqlite3.connect("x.db")
        connection.execute("create table t (a)"); connection.execute("insert into t values (1)")
        found = connection.execute("select count(*) from t").fetchone() == (1,)
    """,
    "multiprocessing by fork": """
        import multiprocessing
        with multiprocessing.get_context("fork").Pool(2) as pool:
            found = pool.map(abs, [-1, -2]) == [1, 2]
    """,
    "multiprocessing by spawn": """
        import multiprocessing
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            found = pool.map(abs, [-1, -2]) == [1, 2]
    """,
    "threads": """
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(4) as pool:
            found = sum(pool.map(abs, range(-10, 0))) == 55
    """,
    "await": "import asyncio\nawait asyncio.sleep(0.01)\nfound = await asyncio.sleep(0.01, True)",
    "background tasks": """
        import asyncio
        task = asyncio.create_task(asyncio.sleep(0.05, True))
        found = await task
    """,
    "its own output": """
        import os, subprocess, sys
        found = subprocess.run([sys.executable, "-c", "print('hi')"], capture_output=True).stdout == b"hi\\n"
    """,
    "name and module": "found = __name__ == '__main__' and get_ipython().__class__.__name__ == 'ZMQInteractiveShell'",
    "one line of history each": "found = In[1] == Out.get(99, In[1]) and len(In) > 1",
    "exit handlers": "import atexit\natexit.register(lambda: open('gone.txt', 'w').write('x'))\nfound = True",
}


@pytest.mark.parametrize("driven", ["directly", "over the protocol"])
@pytest.mark.parametrize("name", WORKS)
def test_what_notebooks_do_works_in_a_forked_kernel(
    tmp_path: Path, debug: pytest.LogCaptureFixture, name: str, driven: str
) -> None:
    project = one_stage(tmp_path)
    if driven == "over the protocol":
        project.write("pipelines.yaml", project.text("pipelines.yaml") + "kernels: {protocol: true}\n")
    assert result(project, WORKS[name]) is True
    assert "ordinary kernel" not in debug.text
    if name == "exit handlers":
        assert (tmp_path / "gone.txt").exists()


def test_figures_are_shown_at_the_end_of_their_cell(tmp_path: Path, debug: pytest.LogCaptureFixture) -> None:
    project = one_stage(
        tmp_path, "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nprint(plt.get_backend())"
    )
    state = project.run()
    outputs = project.cells(state.stages["work.only"].executed)[2]["outputs"]
    assert [item["output_type"] for item in outputs] == ["stream", "display_data"]
    assert "image/png" in outputs[-1]["data"]
    assert "ordinary kernel" not in debug.text


def test_every_variant_draws_random_numbers_of_its_own_and_the_same_ones_each_time(tmp_path: Path) -> None:
    project = SmallProject(tmp_path)
    project.spec(
        """
        data: {drawn: "drawn-{k}.txt"}
        pipelines: {p: {stages: {s: {notebook: n.ipynb, outputs: [drawn], matrix: {k: [1, 2, 3]}}}}}
        """
    )
    project.notebook(
        "n.ipynb",
        """
        import random, uuid
        import numpy as np
        open(drawn, "w").write(f"{random.random()} {np.random.rand()} {uuid.uuid4()}")
        """,
        params="k = 0\ndrawn = 'd'",
    )
    drawn = []
    for options in ({}, {"force": True}, {"force": True, "cold": True}):
        assert project.run(**options).status == "passed"
        drawn.append([project.text(f"drawn-{k}.txt").split() for k in (1, 2, 3)])
    first, again, cold = drawn
    assert all(len(set(column)) == 3 for column in zip(*first, strict=True))
    for other in (again, cold):
        assert [row[:2] for row in other] == [row[:2] for row in first]
        assert not {row[2] for row in other} & {row[2] for row in first}  # what asks the system stays random


def test_seed_of_a_stage_follows_its_param_and_is_the_same_before_and_after_numpy_is_imported(
    tmp_path: Path,
) -> None:
    project = SmallProject(tmp_path)
    project.spec(
        """
        params: {seed: 1}
        data: {one: one.txt, two: two.txt}
        pipelines:
          p:
            stages:
              one: {notebook: n.ipynb, outputs: {drawn: one}}
              two: {notebook: later.ipynb, outputs: {drawn: two}}
        """
    )
    draw = "open(drawn, 'w').write(f'{numpy.random.rand()} {sorted({str(n) for n in range(9)}, key=hash)}')"
    project.notebook("n.ipynb", "import numpy", draw, params="seed = 0\ndrawn = 'd'")
    # The zygote does not see this import.
    later = "numpy = __import__('numpy')"
    project.notebook("later.ipynb", later, draw, params="seed = 0\ndrawn = 'd'")
    assert project.run("two").status == "passed"
    alone = project.text("two.txt")
    assert project.run(force=True).status == "passed"
    assert project.text("two.txt") == alone
    assert (
        project.text("one.txt").split(" ", 1)[1] == alone.split(" ", 1)[1]
    )  # hashes are the same everywhere
    assert project.run("two", params={"seed": 2}).status == "passed"
    assert project.text("two.txt").split()[0] != alone.split()[0]


def test_what_programs_of_a_cell_print_stands_in_its_cell(tmp_path: Path) -> None:
    project = one_stage(tmp_path, "import os\nos.system('echo one; echo two >&2')", "print('three')")
    cells = project.cells(project.run().stages["work.only"].executed)
    texts = {item["name"]: "".join(item["text"]) for item in cells[2]["outputs"] if "name" in item}
    assert texts == {"stdout": "one\n", "stderr": "two\n"}
    assert "".join(cells[3]["outputs"][0]["text"]) == "three\n"


def test_modules_of_the_project_are_read_when_the_stage_runs(tmp_path: Path) -> None:
    project = one_stage(tmp_path)
    project.write("own.py", "value = 1")
    assert result(project, "import own\nfound = own.value") == 1
    project.write("own.py", "value = 2")
    assert result(project, "import own\nfound = own.value") == 2


def test_project_module_with_the_name_of_a_package_wins(tmp_path: Path) -> None:
    project = one_stage(tmp_path)
    project.write("pandas.py", "mine = True")
    assert result(project, "import pandas\nfound = pandas.mine") is True


def test_environment_of_the_notebook_is_the_stages_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cell = "import os\nfound = [os.environ.get(n) for n in ('OMP_NUM_THREADS', 'JE_ARROW_MALLOC_CONF')]"
    assert result(one_stage(tmp_path), cell) == [None, None]


def test_secret_is_not_in_the_zygotes_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "s3cret-of-the-stage")
    project = one_stage(tmp_path, params='password = ""', options="params: {password: {secret: DB_PASSWORD}}")
    seen: list[bytes] = []

    def look(event: Event) -> None:
        if isinstance(event, CellStarted) and not seen:
            for folder in Path("/proc").glob("[0-9]*"):
                try:
                    if b"zygote.py" in (folder / "cmdline").read_bytes():
                        seen.append((folder / "environ").read_bytes())
                except OSError:
                    pass

    found = """
        import os
        mine = os.environ[password]
        found = [len(mine), b"s3cret-of-the-stage" in open("/proc/self/environ", "rb").read()]
    """
    keep = "import json\nopen(result, 'w').write(json.dumps(found))"
    project.notebook("only.ipynb", found, keep, params='password = ""\nresult = "result.txt"')
    assert project.run(listeners=[look]).status == "passed"
    assert json.loads(project.text("result.txt")) == [19, False]
    assert seen
    assert not any(b"s3cret-of-the-stage" in environ for environ in seen)


# When an ordinary kernel must do


def reason(debug: pytest.LogCaptureFixture) -> str:
    return next(line for line in debug.text.splitlines() if "ordinary kernel" in line)


def test_package_that_starts_a_thread_at_import_is_not_forked(
    tmp_path: Path, debug: pytest.LogCaptureFixture
) -> None:
    nursery = Nursery()
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / "threaded.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=[60], daemon=True).start()"
    )
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    nursery.prepare(sys.executable, ["threaded"], environment)
    with pytest.raises(Cold, match="importing threaded starts threads"):
        nursery.fork(sys.executable, ForkJob(("threaded",), environment, str(tmp_path), ()))
    nursery.close()


@pytest.fixture
def killed_zygotes(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = Nursery.prepare

    def prepare_and_kill(self: Nursery, *arguments: object) -> None:
        prepare(self, *arguments)  # type: ignore[arg-type]
        for item in self._zygotes.values():
            os.kill(item._guardian.pid, signal.SIGKILL)

    monkeypatch.setattr(Nursery, "prepare", prepare_and_kill)


@pytest.mark.usefixtures("killed_zygotes")
def test_stage_runs_on_an_ordinary_kernel_when_the_zygote_dies(
    tmp_path: Path, debug: pytest.LogCaptureFixture
) -> None:
    assert result(one_stage(tmp_path), "found = 1") == 1
    assert "the zygote has ended" in reason(debug)


@pytest.mark.parametrize("how", ["option", "spec"])
def test_warm_kernels_can_be_turned_off(tmp_path: Path, how: str) -> None:
    project = one_stage(tmp_path)
    if how == "spec":
        project.write("pipelines.yaml", project.text("pipelines.yaml") + "kernels: {warm: false}\n")
    parent = "import os\nfound = open(f'/proc/{os.getppid()}/cmdline').read()"
    assert "zygote" in str(result(one_stage(tmp_path / "warm"), parent))
    assert "zygote" not in str(result(project, parent, cold=how == "option"))


def test_only_installed_packages_that_survive_a_fork_are_imported_ahead(tmp_path: Path) -> None:
    (tmp_path / "scipy").mkdir()
    (tmp_path / "own.py").write_text("")
    packages = {"pandas": ("pandas", "3"), "torch": ("torch", "2"), "scipy": ("scipy", "1")}
    names = ["pandas", "pandas.io", "torch.nn", "scipy.stats", "own", "pandas"]
    assert worth_importing(names, packages, shadows([tmp_path])) == ("pandas", "pandas.io")


# The stage's MLflow run comes late, and in time


def tracked(state: RunState) -> str:
    return state.stages["work.only"].tracking_run


@pytest.mark.parametrize(
    "cell",
    [
        "import importlib\nm = importlib.import_module('ml' + 'flow')\nm.log_metric('a', 1)",
        """
        import subprocess, sys
        code = "import importlib; importlib.import_module('ml' + 'flow').log_metric('a', 1)"
        subprocess.run([sys.executable, "-c", code], check=True)
        """,
    ],
    ids=["import", "program"],
)
def test_notebook_that_does_not_name_mlflow_logs_into_its_run_all_the_same(tmp_path: Path, cell: str) -> None:
    from mlflow import MlflowClient

    project = one_stage(tmp_path, cell)
    state = project.run(track=True)
    assert state.stages["work.only"].metrics == {"a": 1}
    run = MlflowClient(f"sqlite:///{tmp_path}/.nbtools/mlflow.db").get_run(tracked(state))
    assert run.data.metrics == {"a": 1}


@pytest.mark.parametrize("driven", ["directly", "over the protocol", "cold"])
def test_programs_are_inside_the_stages_run_whoever_starts_them_and_whenever(
    tmp_path: Path, driven: str
) -> None:
    cells = [
        """
        import asyncio, atexit, os, subprocess, threading, time
        def told(name):
            command = f"echo $MLFLOW_RUN_ID > {os.getcwd()}/{name}.txt"
            subprocess.run(["sh", "-c", command], check=True)
        async def later():
            told("task")
        task = asyncio.create_task(later())
        """,
        "print('goes on')",
        "!echo $MLFLOW_RUN_ID > bang.txt",
        "atexit.register(told, 'exit')\nthreading.Thread(target=lambda: (time.sleep(0.5), told('thread'))).start()",
    ]
    project = one_stage(tmp_path, *cells)
    if driven == "over the protocol":
        project.write("pipelines.yaml", project.text("pipelines.yaml") + "kernels: {protocol: true}\n")
    state = project.run(track=True, cold=driven == "cold")
    assert state.status == "passed", state.stages["work.only"].failure
    names = ("task", "bang", "exit", "thread")
    assert {name: project.text(f"{name}.txt").strip() for name in names} == dict.fromkeys(
        names, tracked(state)
    )


@pytest.mark.parametrize("first", ["subprocess.run(['true'])", "import mlflow"])
def test_programs_that_only_the_end_starts_are_inside_the_stages_run(tmp_path: Path, first: str) -> None:
    code = f"import atexit, subprocess\ndef end():\n    {first}\n    open('ended.txt', 'w').write('yes')\natexit.register(end)"
    assert one_stage(tmp_path, code).run(track=True).status == "passed"
    assert (tmp_path / "ended.txt").exists()


def test_run_of_a_stage_that_has_nothing_to_log_stands_in_the_journal(tmp_path: Path) -> None:
    project = one_stage(tmp_path)
    events: list[Event] = []
    project.run(track=True, listeners=[events.append])
    (known,) = [event for event in events if isinstance(event, StageTracked)]
    assert tracked(nbtools.api.show(project=tmp_path)) == known.tracking_run != ""


def test_fork_that_a_cell_made_and_did_not_end_does_not_serve_beside_its_parent(tmp_path: Path) -> None:
    project = one_stage(
        tmp_path,
        """
        import os, sys
        pid = os.fork()
        if pid == 0:
            sys.exit(7)
        print(os.waitpid(pid, 0)[0] == pid)
        """,
        "print('only the parent goes on')",
    )
    assert project.run().status == "passed"
    cells = project.cells(".nbtools/executed/work.only.ipynb")
    assert [str(cell["outputs"]).count("True") for cell in cells[2:4]] == [1, 0]
    assert str(cells[3]["outputs"]).count("only the parent goes on") == 1


def test_what_programs_print_stands_where_it_was_printed(tmp_path: Path) -> None:
    cells = [
        "import subprocess\nfor n in range(20):\n    print(n)\n    subprocess.run(['echo', f'program {n}'])",
        "subprocess.run(['echo', 'before the result']).returncode",
    ]
    project = one_stage(tmp_path, *cells)
    assert project.run().status == "passed"
    first, second = (cell["outputs"] for cell in project.cells(".nbtools/executed/work.only.ipynb")[2:4])
    assert "".join(first[0]["text"]) == "".join(f"{n}\nprogram {n}\n" for n in range(20))
    assert [output["output_type"] for output in second] == ["stream", "execute_result"]
