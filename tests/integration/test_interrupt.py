"""Signals: whoever is stopped or killed leaves nothing running, nothing locked and nothing half done."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import nbtools.api
from tests.projects import SmallProject, one_stage, wait_until

#: What the issue promises, with slack for a machine that does other things too.
SLACK = 3
KERNEL_DEATH_NOTICED_S = 3 * SLACK
ORPHANS_GONE_S = 5 * SLACK

#: Tells its process, then works until it is told to stop; `go` lets the next run pass at once.
WAITS = """
import os, time
from pathlib import Path
print("at work", flush=True)
if not Path("go").exists():
    time.sleep(0.5)  # what was printed is on its way
    Path("pid.tmp").write_text(str(os.getpid()))
    os.replace("pid.tmp", "pid")
    BODY
"""
PATIENT = WAITS.replace("BODY", "time.sleep(300)")
BUSY = WAITS.replace("BODY", "sum(range(10**11))")
#: Cells that catch the interrupt and go on.
STUBBORN = WAITS.replace(
    "BODY",
    """while True:
        try:
            time.sleep(300)
        except KeyboardInterrupt:
            Path("caught").touch()""",
)


class Started:
    """A run in a process of its own whose notebook has reached the cell that waits."""

    def __init__(self, project: SmallProject) -> None:
        self.project = project
        self.process = project.start("run", "--no-tracking")
        wait_until(lambda: (project.root / "pid").exists() or self.process.poll() is not None)
        self.kernel = int(project.text("pid"))

    def end(self) -> tuple[int, str]:
        """Wait for the end of the run and return its exit code and what it printed."""
        out, err = self.process.communicate(timeout=60)
        assert "Traceback (most recent call last)" not in err
        return self.process.returncode, out


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that only waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[object]:
    """Return what starts a run of a notebook with a given cell; nothing of it outlives the test."""
    started: list[Started] = []

    def begin(cell: str, options: str = "") -> Started:
        started.append(Started(one_stage(tmp_path, "x = 1", cell, options=options)))
        return started[-1]

    yield begin
    for item in started:
        for pid in (item.process.pid, item.kernel):
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        item.process.communicate()


def check_next_run_works(project: SmallProject) -> None:
    project.write("go", "")
    done = project.command("run", "--no-tracking")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "waiting" not in done.stderr
    assert project.text("result.txt") == "done"
    assert nbtools.api.history(project=project.root)[0].status == "passed"


@pytest.mark.parametrize(
    ("number", "code", "cell"),
    [(signal.SIGINT, 130, PATIENT), (signal.SIGTERM, 143, BUSY)],
    ids=["SIGINT", "SIGTERM"],
)
def test_stopped_run_is_recorded_as_cancelled_and_the_next_run_works(
    begin: object, number: int, code: int, cell: str
) -> None:
    started: Started = begin(cell)  # type: ignore[operator]
    started.process.send_signal(number)

    returned, said = started.end()

    assert returned == code
    assert "cancelled" in said
    assert not is_alive(started.kernel)
    project = started.project
    (row,) = nbtools.api.history(project=project.root)
    assert row.status == "cancelled"
    state = nbtools.api.show(project=project.root)
    stage = state.stages["work.only"]
    assert stage.status == "cancelled"
    assert stage.failure is not None
    assert (stage.failure.kind, stage.failure.cell) == ("cancelled", 3)
    assert not (project.root / "result.txt").exists()
    assert not list((project.root / ".nbtools/attempts").iterdir())
    assert nbtools.api.status(project.root).running == ""
    check_next_run_works(project)


def test_second_signal_ends_a_cell_that_ignores_the_first(begin: object) -> None:
    started: Started = begin(STUBBORN)  # type: ignore[operator]
    started.process.send_signal(signal.SIGINT)
    wait_until((started.project.root / "caught").exists)
    assert started.process.poll() is None
    started.process.send_signal(signal.SIGINT)

    assert started.end()[0] == 130

    assert not is_alive(started.kernel)
    assert nbtools.api.history(project=started.project.root)[0].status == "cancelled"
    check_next_run_works(started.project)


def test_signal_before_any_stage_started_is_no_traceback(tmp_path: Path) -> None:
    project = one_stage(tmp_path, "import time\ntime.sleep(60)")
    with project.start("run", "--no-tracking") as process:
        wait_until((tmp_path / ".nbtools").exists)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback (most recent call last)" not in said


@pytest.mark.parametrize("cell", [PATIENT, BUSY], ids=["patient", "busy"])
def test_killed_run_leaves_no_kernel_needs_no_unlocking_and_is_shown_as_aborted(
    begin: object, cell: str
) -> None:
    started: Started = begin(cell)  # type: ignore[operator]
    project = started.project
    assert nbtools.api.status(project.root).running != ""
    assert nbtools.api.history(project=project.root)[0].status == "running"
    started.process.kill()
    started.process.communicate()

    wait_until(lambda: not is_alive(started.kernel), ORPHANS_GONE_S)

    (row,) = nbtools.api.history(project=project.root)
    assert (row.status, row.completed_at) == ("aborted", None)
    assert nbtools.api.show(project=project.root).status == "aborted"
    assert nbtools.api.status(project.root).running == ""
    assert project.actions() == {"work.only": "run"}
    assert not (project.root / "result.txt").exists()
    check_next_run_works(project)
    assert [row.status for row in nbtools.api.history(project=project.root)] == ["passed", "aborted"]
    assert not list((project.root / ".nbtools/attempts").iterdir())


@pytest.mark.parametrize("cell", [PATIENT, BUSY], ids=["patient", "busy"])
def test_killed_kernel_fails_its_stage_and_names_the_cell(begin: object, cell: str) -> None:
    started: Started = begin(cell)  # type: ignore[operator]
    os.kill(started.kernel, signal.SIGKILL)
    wait_until(lambda: started.process.poll() is not None, KERNEL_DEATH_NOTICED_S)

    code, said = started.end()

    assert code == 1
    assert "the kernel died: killed by SIGKILL" in said
    assert "cell 3" in said
    failure = nbtools.api.show(project=started.project.root).stages["work.only"].failure
    assert failure is not None
    assert (failure.kind, failure.cell) == ("kernel died", 3)
    # What it had printed by then is kept, and no later cell is said to be done.
    cells = started.project.cells(failure.notebook)
    assert "at work" in str(cells[3]["outputs"])
    assert [item["metadata"]["papermill"]["status"] for item in cells][-2:] == ["failed", "pending"]
    check_next_run_works(started.project)


def test_programs_that_a_cell_started_do_not_outlive_a_stopped_run(begin: object) -> None:
    started: Started = begin(  # type: ignore[operator]
        """
        import os, subprocess, time
        from pathlib import Path
        if not Path("go").exists():
            child = subprocess.Popen(["sleep", "300"])
            Path("child").write_text(str(child.pid))
            Path("pid").write_text(str(os.getpid()))
            time.sleep(300)
        """
    )
    child = int(started.project.text("child"))
    started.process.send_signal(signal.SIGINT)
    assert started.end()[0] == 130
    wait_until(lambda: not is_alive(child), ORPHANS_GONE_S)
    check_next_run_works(started.project)


DETACHED = """
    import os, subprocess, time
    from pathlib import Path
    if not Path("go").exists():
        # In a session of its own, started by a process that has ended: as far from the kernel as it gets.
        options = "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True"
        code = f"import subprocess; print(subprocess.Popen(['sleep', '300'], {options}).pid)"
        done = subprocess.run(["python3", "-c", code], capture_output=True, text=True, start_new_session=True)
        Path("child").write_text(done.stdout)
        Path("pid").write_text(str(os.getpid()))
        time.sleep(300)
"""


def test_program_that_a_cell_has_detached_does_not_outlive_a_killed_run(begin: object) -> None:
    started: Started = begin(DETACHED)  # type: ignore[operator]
    child = int(started.project.text("child"))
    started.process.kill()
    started.process.communicate()
    wait_until(lambda: not is_alive(child), ORPHANS_GONE_S)
    wait_until(lambda: not is_alive(started.kernel), ORPHANS_GONE_S)
    check_next_run_works(started.project)


def test_program_that_a_cell_has_detached_ends_with_the_run(tmp_path: Path) -> None:
    project = one_stage(tmp_path, DETACHED.replace("time.sleep(300)", "pass"))
    assert project.run().status == "passed"
    wait_until(lambda: not is_alive(int(project.text("child"))), ORPHANS_GONE_S)


def test_reader_that_leaves_does_not_stop_the_run(tmp_path: Path) -> None:
    project = one_stage(tmp_path)
    with project.start("run", "--no-tracking") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == 0
    assert project.text("result.txt") == "done"


def test_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    project = one_stage(tmp_path)
    words = " ".join(["python", "-m", "nbtools", "schema"])
    python = os.path.dirname(os.path.abspath(__import__("sys").executable))
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; PATH={python}:$PATH {words} | true"],
        cwd=project.root,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
