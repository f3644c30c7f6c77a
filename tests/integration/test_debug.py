"""The kernel of a failed cell is kept, looked into, and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from jupyter_client.blocking.client import BlockingKernelClient

import nbtools.api
from nbtools.errors import UsageError
from nbtools.execution import kept
from nbtools.project import Project
from tests.projects import SmallProject, one_stage, wait_until

SPEC = """
    params: {divisor: 0}
    data: {source: source.txt, result: result.txt, total: total.txt}
    pipelines:
      work:
        stages:
          split: {notebook: split.ipynb, inputs: [source], outputs: [result]}
          total: {notebook: total.ipynb, inputs: [result], outputs: [total]}
"""
LOADS = """
from pathlib import Path
import own
values = [int(line) for line in Path(source).read_text().split()]
Path("loads").write_text(str(int(Path("loads").read_text()) + 1) if Path("loads").exists() else "1")
print("loaded", len(values))
"""
FAILS = "half = True\nshares = [value / divisor for value in values]"
MENDED = "shares = [value / (divisor or 2) for value in values]"
WRITES = "Path(result).write_text(' '.join(map(str, shares)))"


@pytest.fixture
def failed(tmp_path: Path) -> Iterator[SmallProject]:
    """Return a project whose first stage failed in its third cell, with its kernel kept."""
    project = SmallProject(tmp_path)
    project.spec(SPEC)
    project.write("source.txt", "2\n4\n6\n")
    project.write("own.py", "VALUE = 1")
    write(project, FAILS)
    project.notebook(
        "total.ipynb",
        "from pathlib import Path\nPath(total).write_text(str(sum(map(float, Path(result).read_text().split()))))",
        params="result = total = ''",
    )
    assert project.command("run", "--debug", "--no-tracking").returncode == 1
    yield project
    for kernel in kept.kept_kernels(Project(tmp_path)):
        kept.end(Project(tmp_path), kernel)


def write(project: SmallProject, fails: str, *, loads: str = LOADS) -> None:
    """Write the notebook of the first stage."""
    project.notebook(
        "split.ipynb",
        loads,
        fails,
        WRITES,
        params="divisor = 1\nsource = 'source.txt'\nresult = 'result.txt'",
    )


def the_kept(project: SmallProject) -> kept.KeptKernel:
    """Return the only kernel that is kept."""
    (kernel,) = kept.kept_kernels(Project(project.root))
    return kernel


def ask(kernel: kept.KeptKernel, code: str) -> str:
    """Return what code prints in a kept kernel."""
    client = BlockingKernelClient(connection_file=kernel.to_look_into()[1])
    client.load_connection_file()
    client.start_channels()
    printed: list[str] = []
    try:
        client.wait_for_ready(timeout=20)
        client.execute_interactive(
            code, timeout=20, output_hook=lambda message: printed.append(message["content"].get("text", ""))
        )
    finally:
        client.stop_channels()
    return "".join(printed)


def test_all_variables_are_as_they_were_when_the_cell_failed(failed: SmallProject) -> None:
    kernel = the_kept(failed)
    assert ask(kernel, "print(values, half, divisor, 'shares' in globals())") == "[2, 4, 6] True 0 False\n"
    assert "ZeroDivisionError" in ask(kernel, "import sys; print(sys.last_value.__class__)")
    assert (kernel.stage, kernel.cell) == ("work.split", 3)


def test_only_the_owner_may_reach_it(failed: SmallProject) -> None:
    file = Path(the_kept(failed).connection_file)
    assert file.parent.stat().st_mode & 0o077 == 0
    assert json.loads(file.read_text())["transport"] == "ipc"


def test_status_lists_it_with_its_memory(failed: SmallProject) -> None:
    (row,) = nbtools.api.status(failed.root).kept
    assert row.size_bytes > 1_000_000
    assert "kept: work.split, failed in cell 3" in failed.command("status").stdout


def test_console_opens_on_it(failed: SmallProject) -> None:
    command = nbtools.api.debug("split", project=failed.root)
    assert command is not None
    done = subprocess.run(
        [*command.words, "--simple-prompt"],
        input="print('sum is', sum(values))\n",
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        cwd=failed.root,
        check=False,
    )
    assert "sum is 12" in done.stdout
    assert the_kept(failed).pid, "leaving the console leaves the kernel"
    said = failed.command("debug", "split")
    assert (said.returncode, "jupyter_console --existing" in said.stdout) == (0, True)


def test_resumed_stage_runs_only_the_failed_cell_and_those_after_it(failed: SmallProject) -> None:
    pid = the_kept(failed).pid
    write(failed, MENDED)

    done = failed.command("resume", "split", "--no-tracking")

    assert done.returncode == 0, done.stderr
    assert failed.text("result.txt") == "1.0 2.0 3.0"
    assert failed.text("loads") == "1"
    cells = failed.cells(".nbtools/executed/work.split.ipynb")
    assert [cell["execution_count"] for cell in cells if cell["cell_type"] == "code"] == [1, 2, 3, 4, 5]
    assert "loaded 3" in str(cells[2]["outputs"])
    assert kept.kept_kernels(Project(failed.root)) == []
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), 10)
    assert not list((failed.root / ".nbtools/attempts").glob("*"))
    assert "resumed" in failed.command("show").stdout
    assert "it was resumed at a failed cell" in failed.command("plan").stdout


def test_what_follows_uses_a_resumed_result_and_a_forced_run_makes_it_anew(failed: SmallProject) -> None:
    write(failed, MENDED)
    assert nbtools.api.resume("split", track=False, project=failed.root).status == "passed"
    assert failed.run().status == "passed"
    assert failed.text("total.txt") == "6.0"
    again = failed.run("split", force=True)
    assert (again.stages["work.split"].resumed, failed.text("loads")) == (False, "2")
    assert set(failed.actions().values()) == {"up to date"}


def test_cell_that_fails_again_may_be_resumed_again(failed: SmallProject) -> None:
    write(failed, "first = 1\nraise ValueError('still wrong')")
    state = nbtools.api.resume("split", track=False, project=failed.root)
    failure = state.stages["work.split"].failure
    assert failure is not None
    assert failure.message == "ValueError: still wrong"
    assert "first" in ask(the_kept(failed), "print(*globals())")
    write(failed, MENDED)
    assert nbtools.api.resume("split", track=False, project=failed.root).status == "passed"
    assert failed.text("loads") == "1"


def test_after_a_later_cell_has_failed_it_goes_on_from_the_state_before_the_first_that_did(
    failed: SmallProject,
) -> None:
    failed.notebook(
        "split.ipynb",
        LOADS,
        MENDED + "\nvalues.append(8)",
        "values.append(10); wrong",
        params="divisor = 1\nsource = 'source.txt'\nresult = 'result.txt'",
    )
    assert nbtools.api.resume("split", track=False, project=failed.root).status == "failed"
    assert (the_kept(failed).cell, the_kept(failed).first) == (4, 3)
    assert ask(the_kept(failed), "print(values)") == "[2, 4, 6, 8, 10]\n"
    write(failed, "shares = values")
    assert nbtools.api.resume("split", track=False, project=failed.root).status == "passed"
    assert failed.text("result.txt") == "2 4 6"
    assert failed.text("loads") == "1"


def test_what_a_failed_cell_had_done_is_undone_before_it_runs_again(failed: SmallProject) -> None:
    write(failed, "values.pop()\nraise ValueError")
    assert failed.command("run", "--debug", "--no-tracking").returncode == 1
    assert ask(the_kept(failed), "print(len(values))") == "2\n"
    write(failed, "values.pop()\nshares = values")
    assert nbtools.api.resume("split", track=False, project=failed.root).status == "passed"
    assert failed.text("result.txt") == "2 4"


def test_what_it_had_done_is_undone_however_often_it_fails(failed: SmallProject) -> None:
    fails = "values.append(8)\nif not Path('fixed').exists(): 1/0\nshares = values"
    write(failed, fails)
    assert failed.command("run", "--debug", "--no-tracking").returncode == 1
    kernel = the_kept(failed)
    for _ in range(2):
        assert nbtools.api.resume("split", track=False, project=failed.root).status == "failed"
        assert ask(the_kept(failed), "print(values)") == "[2, 4, 6, 8]\n"
    resumed = the_kept(failed).resumed_pid
    failed.write("fixed", "")

    assert nbtools.api.resume("split", track=False, project=failed.root).status == "passed"

    assert failed.text("result.txt") == "2 4 6 8"
    for pid in (kernel.pid, kernel.before_pid, resumed):
        wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), 10)  # type: ignore[misc]


def test_it_is_undone_too_where_the_notebook_ran_to_its_end_without_its_output(failed: SmallProject) -> None:
    write(failed, "values.append(8)\nshares = values\nresult = 'elsewhere.txt'")
    state = nbtools.api.resume("split", track=False, project=failed.root)
    assert state.stages["work.split"].status == "failed"
    write(failed, "values.append(8)\nshares = values")
    assert nbtools.api.resume("split", track=False, project=failed.root).status == "passed"
    assert failed.text("result.txt") == "2 4 6 8"


def test_nothing_is_resumed_from_a_state_that_is_gone(failed: SmallProject) -> None:
    os.kill(the_kept(failed).before_pid, signal.SIGKILL)
    write(failed, MENDED)
    done = failed.command("resume", "split", "--no-tracking")
    assert done.returncode == 2
    assert "the process with the state from before cell 3 has ended" in done.stderr
    assert "nbtools run work.split --debug" in done.stderr


def test_state_from_before_a_cell_is_not_kept_where_a_fork_would_not_be_safe(failed: SmallProject) -> None:
    threads = "\nimport threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    write(failed, "values.pop()\nraise ValueError", loads=LOADS + threads)
    assert failed.command("run", "--debug", "--no-tracking").returncode == 1
    assert the_kept(failed).before_pid == 0
    write(failed, "values.pop()\nshares = values\nresult = 'elsewhere.txt'", loads=LOADS + threads)
    told: list[str] = []
    state = nbtools.api.resume("split", track=False, project=failed.root, note=told.append)
    assert state.status == "failed"
    assert "what the failed cell had done is not undone" in told[0]
    with pytest.raises(UsageError, match="no cell of its notebook failed"):
        nbtools.api.resume("split", track=False, project=failed.root)


def test_without_that_state_it_goes_on_from_where_the_cell_left_it(failed: SmallProject) -> None:
    threads = "\nimport threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    write(failed, "values.pop()\nraise ValueError", loads=LOADS + threads)
    assert failed.command("run", "--debug", "--no-tracking").returncode == 1
    write(failed, "values.pop()\nshares = values", loads=LOADS + threads)
    assert nbtools.api.resume("split", track=False, project=failed.root).status == "passed"
    assert failed.text("result.txt") == "2"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda project: write(project, MENDED, loads=LOADS + "\nvalues = []"),
            "cell 2, before the failed one, changed",
        ),
        (lambda project: project.write("source.txt", "1\n"), "source changed"),
        (lambda project: project.write("own.py", "VALUE = 2"), "module own.py changed"),
        (lambda project: project.spec(SPEC.replace("divisor: 0", "divisor: 3")), "divisor"),
    ],
    ids=["cell", "input", "module", "param"],
)
def test_what_its_variables_depend_on_must_not_have_changed(
    failed: SmallProject, change: object, said: str
) -> None:
    change(failed)  # type: ignore[operator]
    done = failed.command("resume", "split")
    assert done.returncode == 2
    assert said in done.stderr
    assert "nbtools run work.split runs all of it" in done.stderr
    assert the_kept(failed).cell == 3


def test_params_of_the_failed_run_hold_for_what_is_resumed(failed: SmallProject) -> None:
    write(failed, "shares = [value / missing for value in values]")
    assert failed.command("run", "--debug", "--no-tracking", "-p", "divisor=4", "split").returncode == 1
    write(failed, MENDED)
    assert nbtools.api.resume("split", track=False, project=failed.root).status == "passed"
    assert failed.text("result.txt") == "0.5 1.0 1.5"
    assert failed.actions(params={"divisor": 4})["work.split"] == "up to date"
    assert failed.actions()["work.split"] == "run"


def test_nothing_is_resumed_where_nothing_is_kept(failed: SmallProject) -> None:
    kernel = the_kept(failed)
    os.kill(kernel.pid, signal.SIGKILL)
    wait_until(lambda: not kept.kept_kernels(Project(failed.root)))
    wait_until(lambda: not Path(f"/proc/{kernel.before_pid}").exists())
    with pytest.raises(UsageError, match="no kernel of 'split' is kept"):
        nbtools.api.resume("split", project=failed.root)
    assert nbtools.api.debug("split", project=failed.root) is None
    write(failed, MENDED)
    assert failed.run().status == "passed"
    assert not (failed.root / ".nbtools/kept/work.split.json").exists()
    assert not list((failed.root / ".nbtools/attempts").glob("*"))


def test_new_run_of_the_stage_ends_the_kernel_only_if_another_is_to_be_kept(failed: SmallProject) -> None:
    first = the_kept(failed).pid
    assert failed.command("run", "--debug", "--no-tracking").returncode == 1
    assert the_kept(failed).pid != first
    wait_until(lambda: not Path(f"/proc/{first}").exists(), 10)


def test_kept_kernels_are_bounded_in_number_and_time(failed: SmallProject) -> None:
    failed.spec(SPEC + "    kernels: {keep: 1, keep_for: 3s}\n")
    failed.notebook("total.ipynb", "wrong", params="result = total = ''")
    first = the_kept(failed).pid
    write(failed, "shares = []")
    assert failed.command("run", "--debug", "--no-tracking").returncode == 1
    kernel = the_kept(failed)
    assert kernel.stage == "work.total"
    wait_until(lambda: not Path(f"/proc/{first}").exists(), 10)
    wait_until(lambda: not kept.kept_kernels(Project(failed.root)), 20)
    assert time.time() >= kernel.until - 1
    assert failed.command("status").returncode == 0
    assert not Path(kernel.connection_file).parent.exists()
    assert not list((failed.root / ".nbtools/kept").iterdir())
    assert not list((failed.root / ".nbtools/attempts").glob("*"))


def test_no_more_kernels_are_kept_than_there_may_be_if_stages_fail_at_the_same_time(tmp_path: Path) -> None:
    project = SmallProject(tmp_path)
    names = ["a", "b", "c"]
    stages = "".join(f"{name}: {{notebook: {name}.ipynb}}, " for name in names)
    project.spec(f"""
        kernels: {{keep: 2}}
        pipelines: {{work: {{stages: {{{stages}}}}}}}
    """)
    for name in names:
        project.notebook(f"{name}.ipynb", "import time; time.sleep(0.5)", "wrong")
    try:
        assert project.command("run", "--debug", "--no-tracking", "-j", "3").returncode == 1
        assert len(kept.kept_kernels(Project(tmp_path))) == 2
        assert len(list((tmp_path / ".nbtools/kept").iterdir())) == 2
    finally:
        for kernel in kept.kept_kernels(Project(tmp_path)):
            kept.end(Project(tmp_path), kernel)


def test_damaged_record_has_nothing_else_removed(failed: SmallProject) -> None:
    kernel = the_kept(failed)
    kept.end(Project(failed.root), kernel)
    outside = failed.write("mine/kernel.json", "")
    for folder in ("", ".", "..", "mine", ".nbtools/attempts", ".nbtools/attempts/../../mine"):
        kept.record(Project(failed.root), replace(kernel, folder=folder, connection_file=str(outside)))
        kept.forget_ended(Project(failed.root))
    assert outside.exists()
    assert not list((failed.root / ".nbtools/kept").iterdir())


def test_cell_that_waits_for_its_children_does_not_wait_for_what_is_kept(tmp_path: Path) -> None:
    wait = """
    import os
    if os.fork() == 0:
        os._exit(0)
    ended = []
    while True:
        try:
            ended.append(os.wait())
        except ChildProcessError:
            break
    assert len(ended) == 1
    """
    project = one_stage(tmp_path, wait, options="timeout: 60s")
    state = project.run(debug=True)
    assert state.status == "passed", state.stages["work.only"].failure


def test_without_debug_nothing_is_kept(failed: SmallProject) -> None:
    kept.end(Project(failed.root), the_kept(failed))
    assert failed.command("run", "--no-tracking").returncode == 1
    assert kept.kept_kernels(Project(failed.root)) == []


PACKAGES = """
import mlflow, nbtools
mlflow.log_metric("before", 1)
"""


def test_model_of_a_resumed_result_needs_a_reason_and_metrics_of_both_halves_are_kept(tmp_path: Path) -> None:
    project = SmallProject(tmp_path)
    project.spec("""
        data: {result: result.txt, sealed: sealed.txt}
        pipelines:
          work:
            stages:
              fit: {notebook: fit.ipynb, outputs: [result], gates: ["before + after > 2"]}
              seal: {notebook: seal.ipynb, inputs: [result], outputs: [sealed]}
    """)

    def fit(cell: str) -> None:
        project.notebook(
            "fit.ipynb",
            "import mlflow\nfrom pathlib import Path\nmlflow.log_metric('before', 1)",
            cell,
            "Path(result).write_text('fitted')",
            params="result = ''",
        )

    def seal(more: str) -> None:
        project.notebook(
            "seal.ipynb",
            "import nbtools\nfrom pathlib import Path",
            "def model(model_input: list[int]) -> list[int]:\n    return model_input",
            f"nbtools.package(model, 'small'{more})\nPath(sealed).write_text('sealed')",
            params="result = sealed = ''",
        )

    fit("wrong")
    seal("")
    try:
        assert project.command("run", "--debug", "fit").returncode == 1
        fit("mlflow.log_metric('after', 2)")
        resumed = nbtools.api.resume("fit", project=tmp_path)
        assert resumed.status == "passed"
        assert resumed.stages["work.fit"].metrics == {"before": 1.0, "after": 2.0}

        refused = project.run(track=True).stages["work.seal"].failure
        assert refused is not None
        assert "work.fit was resumed at a failed cell" in refused.message
        seal(", allow_resumed='looked at by both of us'")
        assert project.run(track=True).status == "passed"
    finally:
        for kernel in kept.kept_kernels(Project(tmp_path)):
            kept.end(Project(tmp_path), kernel)

    code = (
        "import mlflow, sys; client = mlflow.MlflowClient(sys.argv[1]);"
        "print(client.search_model_versions(\"name = 'small'\")[0].tags['nbtools.resumed'])"
    )
    uri = f"sqlite:///{tmp_path}/.nbtools/mlflow.db"
    done = subprocess.run(
        [sys.executable, "-c", code, uri], capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout.strip() == "work.fit: looked at by both of us"
