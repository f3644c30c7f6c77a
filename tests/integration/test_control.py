"""Budgets of time and memory, and the order in which stages start, on real kernels."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbtools.execution.events import StageStarted
from nbtools.execution.state import RunState
from tests.projects import SmallProject, one_stage, stage_names


def failure(state: RunState) -> tuple[str, str, int]:
    found = state.stages["work.only"].failure
    assert found is not None
    return found.kind, found.message, found.cell


@pytest.mark.parametrize("cold", [False, True])
def test_cell_over_its_budget_is_ended_and_named(tmp_path: Path, cold: bool) -> None:
    project = one_stage(
        tmp_path,
        "import time\ntime.sleep(0.4)",
        "time.sleep(0.4)",
        "time.sleep(60)",
        options="cell_timeout: 1s, timeout: 50s",
    )
    kind, message, cell = failure(project.run(cold=cold))
    assert (kind, cell) == ("timeout", 4)
    assert message == "the cell took longer than its 1 s"


def test_stage_over_its_budget_is_said_to_be_so_although_cells_have_one_too(tmp_path: Path) -> None:
    project = one_stage(tmp_path, "import time\ntime.sleep(60)", options="cell_timeout: 50s, timeout: 1s")
    assert failure(project.run())[1] == "the stage took longer than its 1 s"


HOARD = """
import time
hoard = []
while True:
    hoard.append(bytearray(b"x" * 20_000_000))
    time.sleep(0.02)
"""


@pytest.mark.parametrize("cold", [False, True])
def test_kernel_that_holds_more_than_its_stage_has_booked_is_stopped(tmp_path: Path, cold: bool) -> None:
    project = one_stage(tmp_path, "x = 1", HOARD, options="resources: {memory: 400MiB}, timeout: 60s")
    kind, message, cell = failure(project.run(cold=cold))
    assert (kind, cell) == ("memory", 3)
    assert "the stage has booked 400 MiB" in message


def test_memory_of_programs_that_a_cell_starts_counts(tmp_path: Path) -> None:
    code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {HOARD!r}])"
    project = one_stage(tmp_path, code, options="resources: {memory: 400MiB}, timeout: 60s")
    assert failure(project.run())[0] == "memory"


def test_stage_within_its_memory_is_left_alone(tmp_path: Path) -> None:
    project = one_stage(tmp_path, "import time\ntime.sleep(1.2)", options="resources: {memory: 400MiB}")
    assert project.run().status == "passed"


def test_the_longest_chain_starts_first_once_durations_are_known(tmp_path: Path) -> None:
    project = SmallProject(tmp_path)
    project.spec("""
        params: {turn: 1}
        pipelines:
          work:
            stages:
              quick: {notebook: quick.ipynb}
              slow: {notebook: slow.ipynb}
    """)
    project.notebook("quick.ipynb", "1", params="turn = 0")
    project.notebook("slow.ipynb", "import time\ntime.sleep(1)", params="turn = 0")
    assert stage_names(project.events(jobs=1), StageStarted) == ["work.quick", "work.slow"]
    again = project.events(jobs=1, params={"turn": 2})
    assert stage_names(again, StageStarted) == ["work.slow", "work.quick"]
