"""Cells above the parameters cell run once for all variants, and every variant sees what they made."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from nbtools.execution.cancellation import Cancellation
from tests.projects import SmallProject, notebook

PREFIX = """
import os, random
with open("loaded.txt", "a") as stream:
    stream.write("x")
table = {"rows": list(range(1000))}
print("loading")
pid = os.getpid()
display("first", display_id="shown")
"""


@pytest.fixture
def debug(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, logger="nbtools")
    return caplog


def sweep(root: Path, *cells: str, prefix: str = PREFIX, options: str = "", **keys: Any) -> SmallProject:
    """Return a project with the stage ``work.try`` of three variants, whose notebook begins with ``prefix``."""
    project = SmallProject(root)
    more = f", {options}" if options else ""
    project.spec(f"""
        data: {{found: "found-{{k}}.txt"}}
        pipelines:
          work:
            stages:
              try: {{notebook: try.ipynb, outputs: [found], matrix: {{k: [1, 2, 3]}}{more}}}
    """)
    content = notebook(*cells, params="k = 0\nfound = 'found.txt'", **keys)
    first = notebook(prefix, params=None)["cells"][0]
    content["cells"].insert(0, {**first, "id": "first"})
    project.write("try.ipynb", json.dumps(content))
    return project


KEEP = "open(found, 'w').write(f\"{k} {len(table['rows'])} {pid}\")"


def loaded(project: SmallProject) -> int:
    return len(project.text("loaded.txt"))


def found(project: SmallProject) -> list[list[str]]:
    return [project.text(f"found-{k}.txt").split() for k in (1, 2, 3)]


def test_first_cells_run_once_and_every_variant_has_their_state(tmp_path: Path) -> None:
    project = sweep(tmp_path, KEEP)
    state = project.run(jobs=2)
    assert state.status == "passed", [stage.failure for stage in state.stages.values()]
    assert loaded(project) == 1
    assert [item[:2] for item in found(project)] == [["1", "1000"], ["2", "1000"], ["3", "1000"]]
    assert len({item[2] for item in found(project)}) == 1


def test_variants_do_not_see_each_others_changes(tmp_path: Path) -> None:
    project = sweep(tmp_path, "table['rows'] += [0] * k", KEEP)
    project.run(jobs=1)
    assert [item[1] for item in found(project)] == ["1001", "1002", "1003"]


def test_each_executed_notebook_is_whole(tmp_path: Path) -> None:
    project = sweep(
        tmp_path,
        KEEP,
        "from IPython.display import update_display\nupdate_display('changed', display_id='shown')",
        prefix=PREFIX,
    )
    state = project.run()
    assert state.status == "passed", [stage.failure for stage in state.stages.values()]
    for stage in state.stages.values():
        cells = [cell for cell in project.cells(stage.executed) if cell["cell_type"] == "code"]
        assert [cell["execution_count"] for cell in cells] == [1, 2, 3, 4, 5]
        assert {cell["metadata"]["papermill"]["status"] for cell in cells} == {"completed"}
        assert cells[0]["outputs"][0]["text"] == ["loading\n"]
        assert cells[0]["outputs"][1]["data"]["text/plain"] == ["'changed'"]


def test_sharing_can_be_turned_off(tmp_path: Path) -> None:
    project = sweep(tmp_path, KEEP, options="share_prefix: false")
    project.run()
    assert loaded(project) == 3


@pytest.mark.parametrize(
    ("prefix", "why"),
    [
        (
            f"{PREFIX}\nimport threading, time\nthreading.Thread(target=time.sleep, args=[9], daemon=True).start()",
            "threads",
        ),
        (f"{PREFIX}\nimport socket\nheld = socket.socketpair()", "open files or connections"),
        (f"{PREFIX}\nheld = open('loaded.txt')", "open files or connections"),
        (f"{PREFIX}\nimport tempfile\nheld = tempfile.TemporaryDirectory()", "a temporary folder"),
        (
            f"{PREFIX}\nimport asyncio\ntask = asyncio.create_task(asyncio.sleep(9))",
            "tasks that have not ended",
        ),
    ],
)
def test_state_that_a_fork_would_not_have_is_not_shared(
    tmp_path: Path, debug: pytest.LogCaptureFixture, prefix: str, why: str
) -> None:
    project = sweep(
        tmp_path,
        "import os\nassert not hasattr(globals().get('held'), 'name') or os.path.exists(held.name)",
        KEEP,
        prefix=prefix,
    )
    notes: list[str] = []
    assert project.run(note=notes.append).status == "passed"
    assert loaded(project) == 4  # once to find out, then by each variant
    assert [why in note for note in notes] == [True]


LOADING = """
import pandas as pd
from sklearn.ensemble import HistGradientBoostingRegressor
pd.DataFrame({"a": range(50_000)}).to_parquet("a.parquet")
frame = pd.read_parquet("a.parquet")
model = HistGradientBoostingRegressor(max_iter=5).fit(frame, frame["a"])
"""
USING = """
import threadpoolctl, os
again = pd.read_parquet("a.parquet")
HistGradientBoostingRegressor(max_iter=5).fit(again, model.predict(frame))
(openmp,) = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "openmp"]
assert openmp["num_threads"] == len(os.sched_getaffinity(0))
assert "OMP_NUM_THREADS" not in os.environ
"""


def test_tables_and_models_of_the_first_cells_are_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    project = sweep(tmp_path, USING, KEEP, prefix=PREFIX + LOADING)
    state = project.run(jobs=2)
    assert state.status == "passed", [stage.failure for stage in state.stages.values()]
    assert loaded(project) == 1


def test_data_that_are_mapped_into_memory_are_shared(tmp_path: Path) -> None:
    mapped = "import numpy\nnumpy.save('x.npy', numpy.ones(1000))\nx = numpy.load('x.npy', mmap_mode='r')\n"
    project = sweep(tmp_path, "assert x.sum() == 1000", KEEP, prefix=PREFIX + mapped)
    assert project.run().status == "passed"
    assert loaded(project) == 1


def test_first_cells_that_use_mlflow_are_not_shared(tmp_path: Path) -> None:
    project = sweep(
        tmp_path, KEEP, prefix=f"{PREFIX}\nimport importlib\nimportlib.import_module('ml' + 'flow')"
    )
    assert project.run().status == "passed"
    assert loaded(project) == 4


def test_error_in_a_first_cell_is_reported_for_every_variant(tmp_path: Path) -> None:
    project = sweep(tmp_path, KEEP, prefix="raise ValueError('no data today')")
    state = project.run()
    for stage in state.stages.values():
        assert stage.failure is not None
        assert (stage.failure.message, stage.failure.cell) == ("ValueError: no data today", 1)


def test_error_below_names_its_cell(tmp_path: Path) -> None:
    project = sweep(tmp_path, "1 / (k - 2)", KEEP)
    state = project.run(jobs=1)
    assert [stage.status for stage in state.stages.values()] == ["finished", "failed", "finished"]
    failure = state.stages["work.try[k=2]"].failure
    assert failure is not None
    assert (failure.cell, failure.line, failure.message) == (3, 1, "ZeroDivisionError: division by zero")


def test_variants_whose_common_kernel_was_killed_run_again(tmp_path: Path) -> None:
    kill = "import os, signal, time\nif os.getppid() == pid: os.kill(pid, signal.SIGKILL); time.sleep(9)"
    project = sweep(tmp_path, kill, KEEP)
    assert project.run(jobs=1).status == "passed"
    assert loaded(project) == 4


def test_first_cells_are_within_the_memory_of_their_stage(tmp_path: Path) -> None:
    big = PREFIX + "import time\nx = bytearray(400_000_000)\ntime.sleep(3)"
    project = sweep(tmp_path, KEEP, prefix=big, options="resources: {memory: 300MiB}")
    failures = [stage.failure for stage in project.run(jobs=1).stages.values()]
    assert [failure.kind for failure in failures if failure] == ["memory"] * 3


def test_first_cells_that_never_end_are_stopped_with_the_run(tmp_path: Path) -> None:
    deaf = """
    import time
    while True:
        try:
            print("x" * 50)
            time.sleep(0.01)
        except KeyboardInterrupt:
            pass
    """
    project = sweep(tmp_path, KEEP, prefix=deaf)
    cancellation = Cancellation()
    threading.Timer(3, cancellation.request).start()
    assert project.run(cancellation=cancellation).status == "cancelled"


def test_killed_variant_leaves_the_others_alone(tmp_path: Path) -> None:
    project = sweep(tmp_path, "import os, signal\nif k == 2: os.kill(os.getpid(), signal.SIGKILL)", KEEP)
    state = project.run(jobs=2)
    assert [stage.status for stage in state.stages.values()] == ["finished", "failed", "finished"]
    assert state.stages["work.try[k=2]"].failure is not None
    assert "SIGKILL" in state.stages["work.try[k=2]"].failure.message


def test_context_variables_and_the_environment_of_the_first_cells_hold_in_every_variant(
    tmp_path: Path,
) -> None:
    prefix = PREFIX + "import decimal\ndecimal.getcontext().prec = 5\nos.environ['SHARED'] = 'yes'\n"
    keep = "open(found, 'w').write(f\"{decimal.Decimal(1) / 3} {os.environ.get('SHARED')}\")"
    project = sweep(tmp_path, keep, prefix=prefix)
    assert project.run().status == "passed"
    assert loaded(project) == 1
    assert found(project) == [["0.33333", "yes"]] * 3
