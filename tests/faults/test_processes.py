"""Kernels and the process that they are forked from are killed, stopped and broken."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import psutil
import pytest

import nbtools.api
from nbtools.execution import kernel_watch
from nbtools.execution.events import StageRetried, StageStarted
from tests.projects import SmallProject, one_stage, wait_until

#: Tells its process and its parent, and works until a file says that it may end.
TELLS = """
    import os, time
    from pathlib import Path
    number = len(list(Path(".").glob("pid*")))
    Path("pid.tmp").write_text(f"{os.getpid()} {os.getppid()}")
    os.replace("pid.tmp", f"pid{number}")
    while not Path("go").exists():
        time.sleep(0.02)
"""


def _run_and(project: SmallProject, fault: object, **options: object) -> tuple[object, list[object]]:
    """Run the project while ``fault`` is called with the first kernel's and its parent's process ids."""
    seen: list[object] = []

    def disturb() -> None:
        wait_until((project.root / "pid0").exists)
        kernel, parent = map(int, project.text("pid0").split())
        fault(kernel, parent)  # type: ignore[operator]

    thread = threading.Thread(target=disturb)
    thread.start()
    outcome = project.run(listeners=[seen.append], **options)
    thread.join()
    return outcome, seen


def test_stage_whose_kernel_died_with_the_zygote_runs_again_on_an_ordinary_one(tmp_path: Path) -> None:
    project = one_stage(tmp_path, TELLS)
    commands: list[str] = []

    def kill(_: int, zygote: int) -> None:
        os.kill(zygote, signal.SIGKILL)
        wait_until((tmp_path / "pid1").exists)
        parent = project.text("pid1").split()[1]
        commands.append(Path(f"/proc/{parent}/cmdline").read_text())
        project.write("go", "")

    outcome, seen = _run_and(project, kill)

    assert outcome.status == "passed"  # type: ignore[attr-defined]
    assert [event.failure.kind for event in seen if isinstance(event, StageRetried)] == ["zygote died"]
    assert "zygote" not in commands[0], "the second kernel is an ordinary one"
    assert project.actions() == {"work.only": "up to date"}


def test_stages_that_come_after_the_death_of_the_zygote_get_ordinary_kernels(tmp_path: Path) -> None:
    project = SmallProject(tmp_path)
    project.spec("""
        data: {first: first.txt, second: second.txt}
        pipelines:
          work:
            stages:
              one: {notebook: one.ipynb, outputs: [first]}
              two: {notebook: two.ipynb, inputs: [first], outputs: [second]}
    """)
    project.notebook(
        "one.ipynb",
        """
        import os
        from pathlib import Path
        Path(first).write_text("1")
        Path("zygote").write_text(str(os.getppid()))
        """,
        params="first = 'first.txt'",
    )
    project.notebook(
        "two.ipynb", "from pathlib import Path\nPath(second).write_text('2')", params="first = second = ''"
    )
    started: list[str] = []

    def after_first(event: object) -> None:
        if isinstance(event, StageStarted):
            started.append(event.stage)
            if event.stage == "work.two":
                os.kill(int(project.text("zygote")), signal.SIGKILL)

    assert project.run(listeners=[after_first]).status == "passed"
    assert project.text("second.txt") == "2"


@pytest.mark.parametrize("cold", [False, True], ids=["forked", "ordinary"])
def test_crash_in_native_code_fails_the_stage_and_the_next_run_works(tmp_path: Path, *, cold: bool) -> None:
    project = one_stage(
        tmp_path,
        """
        import ctypes
        from pathlib import Path
        if not Path("go").exists():
            print("before", flush=True)
            ctypes.string_at(0)
        """,
    )
    failure = project.run(cold=cold).stages["work.only"].failure
    assert failure is not None
    assert (failure.kind, failure.cell) == ("kernel died", 2)
    assert "SIGSEGV" in failure.message
    project.write("go", "")
    assert project.run(cold=cold).status == "passed"


@pytest.mark.parametrize("cold", [False, True], ids=["forked", "ordinary"])
def test_stopped_kernel_is_told_of_and_ended_by_its_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, cold: bool
) -> None:
    monkeypatch.setattr(kernel_watch, "UNRESPONSIVE_S", 1.0)
    project = one_stage(tmp_path, TELLS, options="timeout: 6s")
    notes: list[str] = []

    outcome, _ = _run_and(
        project, lambda kernel, _: os.kill(kernel, signal.SIGSTOP), cold=cold, note=notes.append
    )

    failure = outcome.stages["work.only"].failure  # type: ignore[attr-defined]
    assert failure.kind == "timeout"
    kernel = project.text("pid0").split()[0]
    told = [note for note in notes if "unresponsive" in note]
    assert len(told) == 1
    assert f"kill -CONT {kernel}" in told[0]
    wait_until(lambda: not Path(f"/proc/{kernel}").exists(), 15)


def test_woken_kernel_goes_on(tmp_path: Path) -> None:
    project = one_stage(tmp_path, TELLS)

    def stop_and_wake(kernel: int, _: int) -> None:
        os.kill(kernel, signal.SIGSTOP)
        wait_until(lambda: " T " in Path(f"/proc/{kernel}/stat").read_text())
        project.write("go", "")
        os.kill(kernel, signal.SIGCONT)

    outcome, _ = _run_and(project, stop_and_wake)
    assert outcome.status == "passed"  # type: ignore[attr-defined]


def test_stopped_zygote_delays_nobody_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbtools.execution.kernels.warm import forker, nursery

    monkeypatch.setattr(forker, "_FORK_S", 1.0)
    project = one_stage(tmp_path)
    begin = nursery.Zygote.__init__

    def begin_stopped(self: nursery.Zygote, *arguments: object) -> None:
        begin(self, *arguments)  # type: ignore[arg-type]
        below = psutil.Process(self._guardian.pid).children
        wait_until(lambda: len(below(recursive=True)) == 2)
        os.kill(below(recursive=True)[-1].pid, signal.SIGSTOP)

    monkeypatch.setattr(nursery.Zygote, "__init__", begin_stopped)
    assert project.run().status == "passed"
    assert nbtools.api.status(tmp_path).stages[0].action == "up to date"
