"""Whatever is killed or stopped: nothing that a cell has started outlives the run, and nothing else is ended with it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import papermill
import psutil
import pytest

import nbtools.api
from nbtools.execution.kept import end, kept_kernels
from nbtools.project import Project
from tests.faults.conftest import GONE_S, nobody_is_left, processes_of
from tests.projects import SmallProject, one_stage, wait_until

#: Starts programs that go further and further from the kernel, tells its process, and waits.
STARTS = """
    import os, subprocess, time
    from pathlib import Path
    if not Path("go").exists():
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.Popen(["sleep", "301"])
        subprocess.Popen(["setsid", "sleep", "302"])
        subprocess.Popen(["nohup", "sleep", "303"], **quiet)
        subprocess.run(["sh", "-c", "setsid sleep 304 &"], start_new_session=True, **quiet)
        Path("pid.tmp").write_text(str(os.getpid()))
        os.replace("pid.tmp", "pid")
        WAIT
"""
#: Is told once to end, and does not.
STUBBORN = STARTS.replace(
    "WAIT",
    """while True:
            try:
                time.sleep(300)
            except KeyboardInterrupt:
                Path("caught").touch()""",
)
WAITS = STARTS.replace("WAIT", 'while not Path("go").exists(): time.sleep(0.02)')
#: Starts more programs than can be listed and killed before there are others.
SPAWNS = """
    import os, subprocess
    from pathlib import Path
    running = []
    for number in range(3000):
        running.append(subprocess.Popen(["setsid", "sleep", "302"]))
        if number == 200:
            Path("pid").write_text(str(os.getpid()))
"""
#: Leaves a program behind that does the same.
LEAVES_SPAWNER = """
    import subprocess, time
    loop = "i=0; while [ $i -lt 1000 ]; do setsid sleep 302 & i=$((i+1)); done"
    subprocess.Popen(["sh", "-c", loop], start_new_session=True)
    time.sleep(0.5)
"""
WARM_AND_COLD = pytest.mark.parametrize("options", [(), ("--cold",)], ids=["forked", "ordinary"])


class Started:
    """A run in a process of its own whose cell has started its programs."""

    def __init__(self, project: SmallProject, *options: str) -> None:
        self.project = project
        self.process = project.start("run", "--no-tracking", *options)
        wait_until(lambda: (project.root / "pid").exists() or self.process.poll() is not None)
        kernel = psutil.Process(int(project.text("pid")))
        #: The kernel, and those above it up to the run's own process.
        self.line = [kernel]
        while self.line[-1].ppid() != self.process.pid:
            self.line.append(self.line[-1].parent())
        #: What the cell has started, and the kernel.
        self.programs = [kernel, *kernel.children(recursive=True)]
        for parent in self.line[1:]:
            self.programs += [child for child in parent.children() if child not in self.line]

    def end(self) -> int:
        """Wait for the end of the run and return its exit code."""
        _, said = self.process.communicate(timeout=60)
        assert "Traceback (most recent call last)" not in said
        return self.process.returncode

    def programs_have_ended(self) -> None:
        """Wait until neither the kernel is left nor anything that its cell has started."""
        assert len(self.programs) >= 5
        _, alive = psutil.wait_procs(self.programs, GONE_S)
        assert not alive


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path) -> Iterator[None]:
    """End what a failed test has left."""
    yield
    for pid in processes_of(SmallProject(tmp_path)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@WARM_AND_COLD
def test_nothing_outlives_a_run_that_was_killed(tmp_path: Path, options: tuple[str, ...]) -> None:
    started = Started(one_stage(tmp_path, WAITS), *options)
    started.process.kill()
    started.process.communicate()
    started.programs_have_ended()
    nobody_is_left(started.project)


def test_nothing_outlives_a_killed_run_whose_cell_starts_programs_all_the_time(tmp_path: Path) -> None:
    started = Started(one_stage(tmp_path, SPAWNS))
    started.process.kill()
    started.process.communicate()
    nobody_is_left(started.project)


@WARM_AND_COLD
def test_nothing_outlives_a_run_that_was_cancelled(tmp_path: Path, options: tuple[str, ...]) -> None:
    started = Started(one_stage(tmp_path, WAITS), *options)
    started.process.send_signal(signal.SIGINT)
    assert started.end() == 130
    started.programs_have_ended()
    nobody_is_left(started.project)


@WARM_AND_COLD
def test_nothing_outlives_a_run_that_passed_but_what_is_not_its_own(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    mine = subprocess.Popen(["setsid", "sleep", "300"])
    try:
        project = one_stage(tmp_path, LEAVES_SPAWNER)
        assert project.run(cold=bool(options)).status == "passed"
        nobody_is_left(project)
        assert mine.poll() is None
    finally:
        mine.kill()
        mine.wait()


@pytest.mark.parametrize("which", [1, 2, 3], ids=["zygote", "lower guardian", "upper guardian"])
def test_programs_end_with_the_process_that_their_kernel_was_forked_from(tmp_path: Path, which: int) -> None:
    started = Started(one_stage(tmp_path, WAITS))
    assert len(started.line) == 4
    started.line[which].kill()
    started.programs_have_ended()
    started.project.write("go", "")
    assert started.end() == 0, "the stage runs again"
    assert started.project.text("result.txt") == "done"
    nobody_is_left(started.project)


@pytest.mark.parametrize("which", [0, 1, 2], ids=["kernel", "lower guardian", "upper guardian"])
def test_programs_end_with_the_guardians_of_an_ordinary_kernel(tmp_path: Path, which: int) -> None:
    started = Started(one_stage(tmp_path, WAITS), "--cold")
    assert len(started.line) == 3
    started.line[which].kill()
    started.programs_have_ended()
    assert started.end() == 1
    failure = nbtools.api.show(project=tmp_path).stages["work.only"].failure
    assert failure is not None
    assert failure.kind == "kernel died"
    assert "SIGKILL" in failure.message
    nobody_is_left(started.project)


@pytest.mark.parametrize("which", [1, 3], ids=["zygote", "upper guardian"])
def test_nothing_outlives_a_killed_run_that_had_a_stopped_process(tmp_path: Path, which: int) -> None:
    started = Started(one_stage(tmp_path, WAITS))
    started.line[which].suspend()
    started.process.kill()
    started.process.communicate()
    started.programs_have_ended()
    nobody_is_left(started.project)


def test_nothing_outlives_a_run_that_is_ended_while_its_zygote_is_stopped(tmp_path: Path) -> None:
    started = Started(one_stage(tmp_path, STUBBORN))
    started.line[1].suspend()
    started.process.send_signal(signal.SIGINT)
    wait_until((tmp_path / "caught").exists)
    started.process.send_signal(signal.SIGINT)
    assert started.end() == 130
    started.programs_have_ended()
    nobody_is_left(started.project)


def test_exit_code_of_an_ordinary_kernel_is_told(tmp_path: Path) -> None:
    failure = one_stage(tmp_path, "import os\nos._exit(3)").run(cold=True).stages["work.only"].failure
    assert failure is not None
    assert "exit code 3" in failure.message


def test_kernel_of_a_kernelspec_leaves_nothing(tmp_path: Path) -> None:
    metadata = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    project = SmallProject(tmp_path)
    project.notebook("in.ipynb", STARTS.replace("WAIT", ""), metadata=metadata)
    papermill.execute_notebook(
        tmp_path / "in.ipynb", tmp_path / "out.ipynb", engine_name="nbtools", cwd=tmp_path, progress_bar=False
    )
    assert (tmp_path / "pid").exists()
    nobody_is_left(project)


def test_kept_kernel_outlives_a_killed_run_and_nothing_else_does(tmp_path: Path) -> None:
    project = SmallProject(tmp_path)
    project.spec("""
        data: {first: first.txt, second: second.txt}
        kernels: {keep_for: 2m}
        pipelines:
          work:
            stages:
              fails: {notebook: fails.ipynb, outputs: [first]}
              waits: {notebook: waits.ipynb, outputs: [second]}
    """)
    project.notebook("fails.ipynb", "value = 1", "1 / 0", params="first = ''")
    project.notebook("waits.ipynb", WAITS, params="second = ''")
    started = Started(project, "--debug", "--jobs", "2")
    wait_until(lambda: list((tmp_path / ".nbtools/kept").glob("*.json")))
    (kept,) = kept_kernels(Project(tmp_path))
    state = (kept.pid, kept.before_pid)  # the failed cell's, and that from before it
    started.programs = [item for item in started.programs if item.pid not in state]
    started.process.kill()
    started.process.communicate()
    started.programs_have_ended()
    assert kept_kernels(Project(tmp_path)) == [kept]
    assert kept.before_pid
    assert not kept.is_spoilt
    end(Project(tmp_path), kept)
    nobody_is_left(project)
