"""Cells that put out far too much: the run goes on, the notebook stays small, and nothing is lost."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from nbtools.execution.kernels import output
from tests.projects import SmallProject, environment, one_stage

ORCHESTRATOR_MIB = 300
#: Runs a project and prints how it ended and the most memory that this process ever held.
RUN = """
import re, sys
from pathlib import Path
from nbtools import api
outcome = api.run(project=sys.argv[1], track=False)
held = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(outcome.status, int(held[1]) // 1024)
"""


def _run_apart(project: SmallProject) -> int:
    """Run in a process of its own and return the memory that it held, in MiB."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(project.root)],
        capture_output=True,
        env=environment(),
        encoding="utf-8",
        check=True,
        timeout=280,
    )
    status, held = done.stdout.split()
    assert status == "passed"
    return int(held)


def _printed(project: SmallProject, name: str, folder: str = "executed") -> str:
    return gzip.decompress(
        (project.root / f".nbtools/{folder}/work.only.printed/{name}").read_bytes()
    ).decode()


def test_200_megabytes_of_one_cell_are_taken_in_and_kept_beside(tmp_path: Path) -> None:
    project = one_stage(tmp_path, "for _ in range(200):\n    print(('y' * 99 + '\\n') * 10_000, end='')")
    assert _run_apart(project) < ORCHESTRATOR_MIB
    assert (tmp_path / ".nbtools/executed/work.only.ipynb").stat().st_size < 2_000_000
    assert "the whole is in work.only.printed/cell-2.txt.gz" in project.text(
        ".nbtools/executed/work.only.ipynb"
    )
    assert len(_printed(project, "cell-2.txt.gz")) == 200_000_000


def test_300000_flushed_lines_are_taken_in(tmp_path: Path) -> None:
    project = one_stage(tmp_path, "for number in range(300_000):\n    print(number, flush=True)")
    assert _run_apart(project) < ORCHESTRATOR_MIB
    assert _printed(project, "cell-2.txt.gz") == "".join(f"{number}\n" for number in range(300_000))


def test_lines_that_change_between_the_streams_are_bounded(tmp_path: Path) -> None:
    project = one_stage(
        tmp_path,
        "import sys\nfor number in range(50_000):\n    print(number)\n    print(number, file=sys.stderr)",
    )
    assert _run_apart(project) < ORCHESTRATOR_MIB
    assert (tmp_path / ".nbtools/executed/work.only.ipynb").stat().st_size < 4_000_000
    assert _printed(project, "cell-2.txt.gz").endswith("49999\n49999\n")


def test_displays_of_a_notebook_are_bounded_together(tmp_path: Path) -> None:
    show = "from IPython.display import HTML\nfor number in range(4):\n    display(HTML(str(number) * 3_000_000))"
    project = one_stage(tmp_path, show, show, "print('still heard')")
    assert project.run().status == "passed"
    executed = tmp_path / ".nbtools/executed/work.only.ipynb"
    assert executed.stat().st_size < output.NOTEBOOK_CHARACTERS + 1_000_000
    cells = project.cells(".nbtools/executed/work.only.ipynb")
    assert "333" in str(cells[2]["outputs"][3])
    assert "2 outputs of 6,00" in str(cells[3]["outputs"][-1])
    assert "text/html" in str(cells[3]["outputs"][-1])
    assert cells[4]["outputs"][0]["text"] in ("still heard\n", ["still heard\n"])


@pytest.mark.parametrize(
    "show",
    [
        "from IPython.display import HTML, display\ndisplay(HTML('x' * 200_000_000))",
        "for number in range(40_000):\n    display(number)",
    ],
    ids=["one large", "many"],
)
def test_displays_beyond_all_bounds_are_counted_in_one_line(tmp_path: Path, show: str) -> None:
    project = one_stage(tmp_path, show)
    assert _run_apart(project) < ORCHESTRATOR_MIB
    outputs = project.cells(".nbtools/executed/work.only.ipynb")[2]["outputs"]
    assert "left out: outputs of a notebook are kept up to 20,000,000" in str(outputs[-1])
    assert sum("left out" in str(item) for item in outputs) == 1


def test_display_that_replaces_itself_is_counted_once(tmp_path: Path) -> None:
    project = one_stage(
        tmp_path,
        """
        from IPython.display import HTML, clear_output
        for number in range(30):
            clear_output(wait=True)
            print("step", number)
            display(HTML(f"<p>{number}</p>" + "x" * 1_000_000))
        """,
    )
    assert project.run().status == "passed"
    outputs = project.cells(".nbtools/executed/work.only.ipynb")[2]["outputs"]
    assert len(outputs) == 2
    assert "step 29" in str(outputs[0])
    assert "<p>29</p>" in str(outputs[1])


@pytest.mark.parametrize("cold", [False, True], ids=["forked", "ordinary"])
def test_updates_find_their_display_among_outputs_that_were_left_out(tmp_path: Path, *, cold: bool) -> None:
    project = one_stage(
        tmp_path,
        """
        import sys
        handle = display("before", display_id=True)
        for number in range(20_000):
            print(number, flush=True)
            print(number, file=sys.stderr, flush=True)
        late = display("late before", display_id=True)
        for number in range(20_000):
            print(number, flush=True)
            print(number, file=sys.stderr, flush=True)
        handle.update("after")
        late.update("late after")
        """,
    )
    assert project.run(cold=cold).status == "passed"
    outputs = project.cells(".nbtools/executed/work.only.ipynb")[2]["outputs"]
    shown = [item["data"]["text/plain"] for item in outputs if item["output_type"] == "display_data"]
    assert [str(item).strip("[]\"'") for item in shown] == ["after", "late after"]


def test_what_was_printed_comes_back_with_a_restored_result(tmp_path: Path) -> None:
    project = one_stage(tmp_path, "print(f'{size}' * 2_000_000)", params="size = 1")
    assert project.run().status == "passed"
    assert project.run(params={"only.size": 2}).status == "passed"
    assert _printed(project, "cell-2.txt.gz").startswith("222")
    (tmp_path / "result.txt").unlink()
    assert project.run().stages["work.only"].status == "restored"
    assert _printed(project, "cell-2.txt.gz").startswith("111")


def test_what_a_failing_cell_had_printed_is_kept_until_the_stage_passes(tmp_path: Path) -> None:
    project = one_stage(
        tmp_path,
        """
        from pathlib import Path
        if not Path("go").exists():
            print("z" * 2_000_000)
            raise ValueError("E" * 5_000_000)
        """,
    )
    failure = project.run().stages["work.only"].failure
    assert failure is not None
    assert len(failure.message) < 11_000
    assert _printed(project, "cell-2.txt.gz", "failed").startswith("zzz")
    assert (tmp_path / failure.notebook).stat().st_size < 2_000_000
    project.write("go", "")
    assert project.run().status == "passed"
    assert not (tmp_path / ".nbtools/failed/work.only.printed").exists()
