"""Bad input ends with a clear message and the right exit code, nothing is lost, and the next run works."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

import nbtools.api
from nbtools.execution.state import RunState, StageState
from tests.projects import NBTOOLS, WRITE, SmallProject, environment, one_stage, two_stages

STAGE = "pipelines: {work: {stages: {only: {notebook: only.ipynb}}}}"


def refused(project: SmallProject, *words: str, code: int = 2) -> str:
    """Run a command that must fail, and return what it says."""
    done = project.command(*(words or ("run", "--no-tracking")))
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done.stderr


# pipelines.yaml


def test_missing_pipelines_yaml(tmp_path: Path) -> None:
    said = refused(SmallProject(tmp_path))
    assert "there is no pipelines.yaml here or in a folder above" in said
    assert "fix: " in said
    assert list(tmp_path.iterdir()) == []


BILLION_LAUGHS = "\n".join(
    ["a0: &a0 [lol]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10))]
)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ["pipelines.yaml", "the file is empty"]),
        (b"# only a comment\n", ["the file is empty"]),
        (b"\x00\x01\x02PK\x03\x04", ["pipelines.yaml:1:1", "not allowed in YAML"]),
        (b"\xff\xfe\x80\x81 not text", ["the file is not UTF-8 text"]),
        (b"version: 1\nproject: x\npipelines:\n\twork: {}\n", ["pipelines.yaml:4:1", "a tab", "spaces"]),
        (BILLION_LAUGHS.encode(), ["pipelines.yaml", "aliases expand to more"]),
        (
            b"version: 1\nversion: 1\nproject: x\n" + STAGE.encode(),
            ["pipelines.yaml:2:1", "'version'", "twice"],
        ),
        (b"version: 1\nproject: x\npipelines: [\n", ["pipelines.yaml:", "not valid YAML"]),
        (b"- a\n- list\n", ["a mapping"]),
        (b"version: 2\nproject: x\n" + STAGE.encode(), ["pipelines.yaml:1:"]),
        (
            b"version: 1\nproject: x\npipelines: {work: {stages: {only: {notebook: only.ipynb, timout: 3}}}}",
            ["pipelines.yaml:3:", "'timout'", "did you mean 'timeout'?"],
        ),
    ],
    ids=[
        "empty",
        "comment",
        "binary",
        "not utf-8",
        "tab",
        "alias bomb",
        "duplicate",
        "broken",
        "list",
        "version",
        "key",
    ],
)
def test_bad_pipelines_yaml(tmp_path: Path, content: bytes, expected: list[str]) -> None:
    project = SmallProject(tmp_path)
    project.write("pipelines.yaml", content)
    project.notebook("only.ipynb", "1", params=None)

    said = refused(project)

    assert [part for part in expected if part not in said] == []
    # Mended, it runs: nothing in the way is left behind.
    project.spec(STAGE)
    assert project.actions() == {"work.only": "run"}


def test_all_mistakes_are_reported_at_once_in_reading_order(tmp_path: Path) -> None:
    project = SmallProject(tmp_path)
    project.spec("""
        parms: {a: 1}
        data: {here: ../outside.txt}
        pipelines:
          work:
            stages:
              only: {notebook: only.ipynb, timout: 3, inputs: [her], retries: many}
    """)
    said = refused(project)
    expected = [
        "'parms'",
        "'params'",
        "leads out of the project",
        "'timout'",
        "'timeout'",
        "'here'",
        "retries",
    ]
    assert [part for part in expected if part not in said] == []
    lines = [
        int(line.split(":")[2]) for line in said.splitlines() if line.startswith("error: pipelines.yaml")
    ]
    assert lines == sorted(lines)
    assert len(lines) == 5


def test_cycle_is_shown_as_the_cycle(tmp_path: Path) -> None:
    project = SmallProject(tmp_path)
    project.spec("""
        data: {egg: egg.txt, hen: hen.txt}
        pipelines:
          work:
            stages:
              lay: {notebook: only.ipynb, inputs: [hen], outputs: [egg]}
              hatch: {notebook: only.ipynb, inputs: [egg], outputs: [hen]}
    """)
    said = refused(project)
    assert "these stages wait for each other: work.lay → work.hatch → work.lay" in said
    assert "pipelines.yaml:" in said


# Notebooks


def test_missing_notebook(tmp_path: Path) -> None:
    project = SmallProject(tmp_path)
    project.spec(STAGE)
    project.notebook("onyl.ipynb", "1")
    said = refused(project)
    assert "the notebook only.ipynb does not exist" in said
    assert "did you mean 'onyl.ipynb'?" in said


NBFORMAT_3 = {"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": [{"cells": []}]}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("print('a script')", ["only.ipynb", "not valid JSON", "fix: "]),
        ("", ["only.ipynb", "not valid JSON"]),
        (b"\x89PNG\xff", ["only.ipynb", "not UTF-8 text"]),
        ("[1, 2]", ["only.ipynb", "no object"]),
        ('{"a": 1}', ["only.ipynb", "no cells"]),
        (json.dumps(NBFORMAT_3), ["only.ipynb", "format 3", "nbconvert", "--inplace only.ipynb"]),
        ('{"nbformat": 5, "cells": []}', ["only.ipynb", "unknown format 5"]),
        ("[" * 100_000, ["only.ipynb", "not valid JSON"]),
    ],
    ids=["script", "empty", "binary", "list", "no cells", "nbformat 3", "nbformat 5", "deep"],
)
def test_file_that_is_no_notebook(tmp_path: Path, content: str | bytes, expected: list[str]) -> None:
    project = SmallProject(tmp_path)
    project.spec(STAGE)
    file = project.write("only.ipynb", content)
    before = file.read_bytes()

    said = refused(project)

    assert [part for part in expected if part not in said] == []
    assert file.read_bytes() == before


def test_unknown_kernel(tmp_path: Path) -> None:
    project = SmallProject(tmp_path)
    project.spec(STAGE)
    metadata = {"kernelspec": {"name": "fortran77", "language": "fortran", "display_name": "Fortran"}}
    project.notebook("only.ipynb", "print *, 1", params=None, metadata=metadata)
    said = refused(project)
    assert "only.ipynb needs the kernel 'fortran77', which is not installed" in said
    assert "pipelines.yaml:" in said
    assert nbtools.api.history(project=tmp_path) == []


def test_python_kernel_that_the_machine_does_not_know_by_name_runs(tmp_path: Path) -> None:
    project = SmallProject(tmp_path)
    project.spec(STAGE)
    metadata = {
        "kernelspec": {"name": "conda-env-of-a-colleague-py", "language": "python", "display_name": "x"}
    }
    project.notebook("only.ipynb", "1 + 1", params=None, metadata=metadata)
    assert project.run().status == "passed"


def test_notebook_without_parameters_cell_that_needs_one(tmp_path: Path) -> None:
    project = one_stage(tmp_path)
    project.notebook("only.ipynb", WRITE, params=None)
    said = refused(project)
    assert "the parameters cell of only.ipynb does not set 'result'" in said
    assert "tag the one that sets its params with `parameters`" in said


def test_parameters_cell_without_a_declared_variable_is_named(tmp_path: Path) -> None:
    project = two_stages(tmp_path)
    project.notebook("notebooks/total.ipynb", "1", params='doubled = "x"\ntotl = "y"')
    said = refused(project)
    assert "does not set 'total'" in said
    assert "add total = … to code cell 1" in said
    assert "did you mean 'totl'?" in said


def test_notebook_without_parameters_cell_is_named_where_a_param_of_all_stages_has_no_taker(
    tmp_path: Path,
) -> None:
    project = SmallProject(tmp_path)
    project.spec("params: {x: 5}\npipelines: {p: {stages: {s: {notebook: n.ipynb}}}}")
    project.notebook("n.ipynb", "x = 1", params=None)
    said = refused(project)
    assert "no notebook declares the param 'x'" in said
    assert "there is no such cell in n.ipynb" in said


def test_two_parameters_cells_are_refused(tmp_path: Path) -> None:
    project = two_stages(tmp_path)
    content = json.loads(project.text("notebooks/total.ipynb"))
    content["cells"].append({**content["cells"][0], "id": "again"})
    project.write("notebooks/total.ipynb", json.dumps(content))
    assert "notebooks/total.ipynb: code cells 1, 3 are all tagged parameters" in refused(project)


def test_output_may_not_replace_a_module_that_stages_import(tmp_path: Path) -> None:
    project = one_stage(tmp_path, "import helper")
    project.write("helper.py", "value = 1")
    project.write("pipelines.yaml", project.text("pipelines.yaml").replace("result.txt", "helper.py"))
    assert "would replace the module helper.py" in refused(project)
    assert project.text("helper.py") == "value = 1"


def test_output_may_not_be_a_link_that_leads_out(tmp_path: Path) -> None:
    project = one_stage(tmp_path, "import os\nos.symlink('/etc/passwd', result)", "raise SystemExit")
    project.notebook("only.ipynb", "import os\nos.symlink('/etc/hostname', result)", params='result = "r"')
    failure = project.run().stages["work.only"].failure
    assert failure is not None
    assert "link to /etc/hostname" in failure.message
    assert not (tmp_path / "result.txt").exists()


# Data and params


def test_missing_external_input(tmp_path: Path) -> None:
    project = two_stages(tmp_path)
    (tmp_path / "data/numbers.txt").unlink()
    said = refused(project, code=1)
    assert "the dataset 'numbers' is missing: there is nothing at data/numbers.txt" in said
    assert "pipelines.yaml:9:59" in said
    assert nbtools.api.history(project=tmp_path) == []


def test_param_of_the_wrong_kind(tmp_path: Path) -> None:
    project = two_stages(tmp_path)
    said = refused(project, "run", "--no-tracking", "-p", "factor=two")
    assert "-p factor" in said
    assert "a whole number is expected, not 'two'" in said
    project.write("pipelines.yaml", project.text("pipelines.yaml").replace("factor: 2", "factor: two"))
    said = refused(project)
    assert "pipelines.yaml:4:" in said
    assert "a whole number is expected, not 'two'" in said
    assert nbtools.api.history(project=tmp_path) == []


# Cells

CELLS = {
    "raises": "numbers = [1]\nprint('before')\nnumbers[7]",
    "exits": "import sys\nsys.exit('no more')",
    "exits_0": "import sys\nsys.exit(0)",
    "exits_hard": "import os\nos._exit(0)",
    "quits": "quit()",
    "leaves": "exit()",
    "asks": "name = input('Who? ')",
    "hangs": "while True: pass",
    "writes_nothing": "Path = None\nimport sys\nsys.modules['pathlib'] = None",
    "syntax": "for in x",
}


def write_cell(project: SmallProject, name: str, cell: str = "") -> None:
    """Write the notebook of a stage; one without a ``cell`` of its own passes."""
    # Two stages that are the same in everything but their names would share one result.
    cell = cell or f"me = {name!r}"
    last = "x = 1" if cell == CELLS["writes_nothing"] else WRITE
    project.notebook(f"{name}.ipynb", "x = 0", cell, last, params="result = 'result.txt'")


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> tuple[SmallProject, str, RunState]:
    """Return a project whose stages fail in every way, what a run of it printed, and how it ended."""
    project = SmallProject(tmp_path_factory.mktemp("failing"))
    names = [*CELLS, "fine"]
    lines = "\n".join(
        f"      {name}: {{notebook: {name}.ipynb, outputs: {{result: of_{name}}}, "
        f"timeout: {'4s' if name == 'hangs' else '60s'}}}"
        for name in names
    )
    data = ", ".join(f"of_{name}: out/{name}.txt" for name in names)
    project.write(
        "pipelines.yaml",
        f"version: 1\nproject: small\ndata: {{{data}}}\npipelines:\n  work:\n    stages:\n{lines}\n",
    )
    for name in names:
        write_cell(project, name, CELLS.get(name, ""))
    done = project.command("run", "--no-tracking")
    assert done.returncode == 1
    assert "Traceback (most recent call last)" not in done.stderr
    return project, done.stdout, nbtools.api.show(project=project.root)


def stage_of(failed: tuple[SmallProject, str, RunState], name: str) -> StageState:
    return failed[2].stages[f"work.{name}"]


@pytest.mark.parametrize(
    ("name", "kind", "message", "cell", "line"),
    [
        ("raises", "error", "IndexError: list index out of range", 3, 3),
        ("exits", "exit", "SystemExit: no more", 3, 0),
        ("exits_0", "exit", "SystemExit: 0", 3, 0),
        ("exits_hard", "kernel died", "the kernel died: exit code 0", 3, 0),
        ("quits", "exit", "quit or exit", 3, 0),
        ("leaves", "exit", "quit or exit", 3, 0),
        ("asks", "error", "StdinNotImplementedError", 3, 1),
        ("hangs", "timeout", "the stage took longer than its 4 s", 3, 0),
        ("writes_nothing", "output missing", "did not write the dataset 'of_writes_nothing'", 0, 0),
        ("syntax", "error", "SyntaxError: invalid syntax", 3, 1),
    ],
)
def test_cell_that_fails(
    failed: tuple[SmallProject, str, RunState], name: str, kind: str, message: str, cell: int, line: int
) -> None:
    project, printed, _ = failed
    stage = stage_of(failed, name)
    assert stage.status == "failed"
    failure = stage.failure
    assert failure is not None
    assert failure.kind == kind
    assert message in failure.message
    assert failure.cell == cell
    if line:
        assert failure.line == line
    assert "\x1b" not in failure.message + failure.traceback + failure.excerpt
    # What a person sees: stage, notebook, message, the command that opens the executed notebook.
    assert f"work.{name}" in printed
    assert message in printed
    assert f".nbtools/failed/work.{name}.ipynb" in printed
    if cell:
        assert f"{CELLS[name].splitlines()[line - 1]}" in printed
    # Nothing half-done is visible, and the notebook is as it was.
    assert not (project.root / f"out/{name}.txt").exists()
    assert [item["outputs"] for item in project.cells(f"{name}.ipynb")] == [[], [], [], []]
    # Cells after the guilty one are not said to be done.
    if cell:
        statuses = [item["metadata"]["papermill"]["status"] for item in project.cells(failure.notebook)]
        assert statuses[-2:] == ["failed", "pending"]


def test_cell_that_asks_is_told_to_become_a_param(failed: tuple[SmallProject, str, RunState]) -> None:
    failure = stage_of(failed, "asks").failure
    assert failure is not None
    assert "make what it asks for a param" in failure.fix
    assert failure.fix in failed[1]


def test_stages_that_do_not_depend_on_a_failed_one_go_on(failed: tuple[SmallProject, str, RunState]) -> None:
    assert stage_of(failed, "fine").status == "finished"
    assert failed[0].text("out/fine.txt") == "done"


def test_nothing_of_a_failed_run_is_left_running_or_half_done(
    failed: tuple[SmallProject, str, RunState],
) -> None:
    project, _, state = failed
    assert state.status == "failed"
    assert not list((project.root / ".nbtools/attempts").glob("*"))
    assert nbtools.api.status(project.root).running == ""
    (row,) = nbtools.api.history(project=project.root)
    assert row.status == "failed"


def test_next_run_starts_from_the_failed_stages(
    failed: tuple[SmallProject, str, RunState], tmp_path: Path
) -> None:
    # A copy: the tests above look at the project as the failed run left it.
    subprocess.run(["cp", "-a", f"{failed[0].root}/.", str(tmp_path)], check=True)
    project = SmallProject(tmp_path)
    actions = {**dict.fromkeys(CELLS, "run"), "fine": "up to date"}
    assert project.actions() == {f"work.{name}": action for name, action in actions.items()}
    for name in ("raises", "exits_hard", "hangs"):
        write_cell(project, name)
    state = project.run("raises", "exits_hard", "hangs", "fine")
    assert state.status == "passed"
    assert project.text("out/hangs.txt") == "done"
    assert not (tmp_path / ".nbtools/failed/work.hangs.ipynb").exists()
    assert (tmp_path / ".nbtools/failed/work.quits.ipynb").exists()


def test_cell_that_prints_50_megabytes_passes_and_is_kept_in_part(tmp_path: Path) -> None:
    project = one_stage(
        tmp_path, "print('first')\nfor _ in range(50):\n    print('x' * 1_000_000)\nprint('last')"
    )
    assert project.run().status == "passed"
    executed = tmp_path / ".nbtools/executed/work.only.ipynb"
    assert executed.stat().st_size < 3_000_000
    text = executed.read_text()
    assert "first" in text
    assert "last" in text
    assert "characters left out" in text


@pytest.mark.parametrize(
    "cell", ["raise ValueError('half \\ud800 a pair')", "display('half \\ud800 a pair')\n1 / 0"]
)
def test_half_of_a_surrogate_pair_leaves_a_notebook_that_can_be_read(tmp_path: Path, cell: str) -> None:
    project = one_stage(tmp_path, cell)
    failure = project.run().stages["work.only"].failure
    assert failure is not None
    document = nbformat.read(tmp_path / failure.notebook, as_version=4)
    assert "half \ud800 a pair" in str(document.cells[2].outputs[0]) or "\\ud800" in str(
        document.cells[2].outputs[0]
    )


# Places


def test_unicode_spaces_braces_and_quotes_in_every_path(tmp_path: Path) -> None:
    project = SmallProject(tmp_path / 'dä ta\'s "x" {y} {{ ☃ %s $HOME')
    project.root.mkdir()
    project.spec("""
        data:
          source: "dàta in/it's \\"quoted\\" ☃ %d.txt"
          result: "oüt put/re sult's $x.txt"
          folder: "oüt put/fol der's"
        pipelines:
          work:
            stages:
              erste_Stufe-é:
                notebook: "nöte books/ein \\"Zwei\\" {drei} it's.ipynb"
                inputs: [source]
                outputs: [result, folder]
                cwd: "wörk dir's {z}"
    """)
    project.write('dàta in/it\'s "quoted" ☃ %d.txt', "snow")
    (project.root / "wörk dir's {z}").mkdir()
    project.write("nöte books/my_module.py", "WORD = 'man'")
    project.notebook(
        'nöte books/ein "Zwei" {drei} it\'s.ipynb',
        "import os\nfrom pathlib import Path\nfrom my_module import WORD",
        "Path(result).write_text(Path(source).read_text() + WORD)",
        "Path(folder).mkdir(); Path(folder, 'ä {}').write_text(os.path.basename(os.getcwd()))",
        params="source = result = folder = ''",
    )
    done = project.command("run", "--no-tracking")
    assert done.returncode == 0, done.stdout + done.stderr
    assert project.text("oüt put/re sult's $x.txt") == "snowman"
    assert project.text("oüt put/fol der's/ä {}") == "wörk dir's {z}"
    assert project.actions() == {"work.erste_Stufe-é": "up to date"}
    (executed,) = (project.root / ".nbtools/executed").iterdir()
    assert "oüt put/re sult's $x.txt" in executed.read_text()
    project.write("oüt put/re sult's $x.txt", "x")
    assert project.command("run", "--no-tracking").returncode == 0
    assert project.text("oüt put/re sult's $x.txt") == "snowman"
    for words in (("status",), ("why", "erste_Stufe-é"), ("graph", "--format", "svg"), ("show",)):
        assert project.command(*words).returncode == 0


class Mounts:
    """A mount namespace of a test's own: what is mounted there nobody else sees, and it goes with its process."""

    def __init__(self, *commands: str) -> None:
        # An ordinary user may mount too, inside a user namespace.
        self._flags = ["--mount"] if os.geteuid() == 0 else ["--mount", "--user", "--map-root-user"]
        script = " && ".join([*commands, "echo ready", "exec sleep 600"])
        self._holder = subprocess.Popen(
            ["unshare", *self._flags, "sh", "-ec", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "ready\n":
            assert self._holder.stderr is not None
            said = self._holder.stderr.read()
            self.close()
            pytest.skip(f"this machine lets nobody mount: {said}")  # a failure in CI, see conftest.py

    def run(self, root: Path, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a program inside, in the folder ``root``."""
        flags = ["--preserve-credentials", "--user"] if "--user" in self._flags else []
        enter = ["nsenter", *flags, "--mount", "--target", str(self._holder.pid)]
        # The folder is entered by name: nsenter's own --wd would lead to what lies beneath the mount.
        inside = ["sh", "-c", 'cd "$0" && exec "$@"', str(root), *words]
        return subprocess.run(
            [*enter, *inside], env=environment(), capture_output=True, text=True, timeout=240, check=False
        )

    def nbtools(self, root: Path, *words: str) -> subprocess.CompletedProcess[str]:
        """Run nbtools inside."""
        return self.run(root, *NBTOOLS, *words)

    def close(self) -> None:
        """End the process that holds the namespace."""
        self._holder.kill()
        self._holder.communicate()


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[tuple[Mounts, SmallProject]]:
    """Return a project that ran once and now lies on a read-only file system."""
    project = two_stages(tmp_path)
    assert project.run().status == "passed"
    mounts = Mounts(f"mount --bind {tmp_path} {tmp_path}", f"mount -o remount,ro,bind {tmp_path}")
    yield mounts, project
    mounts.close()


def test_read_only_project_folder(read_only: tuple[Mounts, SmallProject]) -> None:
    mounts, project = read_only

    done = mounts.nbtools(project.root, "run", "--no-tracking", "-p", "factor=3")

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Read-only file system" in done.stderr
    assert "copy it to a place you may write to" in done.stderr
    # Looking needs no writing.
    for words in (["plan"], ["status"], ["history"], ["show"], ["graph"], ["why", "double"]):
        looked = mounts.nbtools(project.root, *words)
        assert (looked.returncode, looked.stderr) == (0, ""), words
    planned = mounts.nbtools(project.root, "plan", "--json")
    assert [step["action"] for step in json.loads(planned.stdout)] == ["up to date", "up to date"]
    mounts.close()
    assert project.text("data/total.txt") == "12"
    assert project.run(params={"factor": 3}).status == "passed"


def test_project_folder_that_is_read_only_from_the_beginning(tmp_path: Path) -> None:
    project = two_stages(tmp_path)
    mounts = Mounts(f"mount --bind {tmp_path} {tmp_path}", f"mount -o remount,ro,bind {tmp_path}")
    try:
        done = mounts.nbtools(tmp_path, "run", "--no-tracking")
        planned = mounts.nbtools(tmp_path, "plan", "--json")
    finally:
        mounts.close()
    assert done.returncode == 1
    assert "nbtools cannot write to the project: Read-only file system" in done.stderr
    assert [step["action"] for step in json.loads(planned.stdout)] == ["run", "run"]
    assert not (tmp_path / ".nbtools").exists()
    assert project.run().status == "passed"


#: Writes as many megabytes as its param says.
FILLS = "with open(result, 'wb') as stream:\n    stream.write(b'x' * int(megabytes * 1_000_000))"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Mounts, Path]]:
    """Return a project that ran once, on a disk of 8 MB of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    source = SmallProject(tmp_path / "source")
    source.spec("""
        params: {megabytes: 0.5}
        data: {result: result.bin}
        pipelines: {work: {stages: {only: {notebook: only.ipynb, outputs: [result]}}}}
    """)
    source.notebook("only.ipynb", FILLS, params="megabytes = 1.0\nresult = 'result.bin'")
    mounts = Mounts(f"mount -t tmpfs -o size=8m tmpfs {disk}", f"cp -a {source.root}/. {disk}/")
    first = mounts.nbtools(disk, "run", "--no-tracking")
    assert first.returncode == 0, first.stderr
    yield mounts, disk
    mounts.close()


@pytest.mark.parametrize(
    ("megabytes", "where"),
    [("20.0", "No space left on device"), ("4.0", "the disk is full")],
    ids=["in the cell", "in the commit"],
)
def test_disk_that_fills_up_while_a_stage_runs(
    small_disk: tuple[Mounts, Path], megabytes: str, where: str
) -> None:
    mounts, disk = small_disk

    done = mounts.nbtools(disk, "run", "--no-tracking", "-p", f"megabytes={megabytes}")

    assert done.returncode == 1
    assert where in done.stdout
    assert "Traceback (most recent call last)" not in done.stderr
    # The last good result is in place, what was half done is gone, and the next run works.
    assert mounts.run(disk, "stat", "-c", "%s", "result.bin").stdout.strip() == "500000"
    assert mounts.run(disk, "sh", "-c", "ls -A .nbtools/attempts").stdout == ""
    history = json.loads(mounts.nbtools(disk, "history", "--json").stdout)
    assert [row["status"] for row in history] == ["failed", "passed"]
    again = mounts.nbtools(disk, "run", "--no-tracking", "-p", "megabytes=1.0")
    assert again.returncode == 0, again.stdout + again.stderr
    assert mounts.run(disk, "stat", "-c", "%s", "result.bin").stdout.strip() == "1000000"


def test_disk_that_is_full_from_the_beginning(small_disk: tuple[Mounts, Path]) -> None:
    mounts, disk = small_disk
    filled = mounts.run(disk, "sh", "-c", "head -c 16000000 /dev/zero > filler")
    assert "No space left on device" in filled.stderr

    done = mounts.nbtools(disk, "run", "--no-tracking", "-p", "megabytes=1.0")

    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert "disk" in said
    assert "Traceback (most recent call last)" not in said
    assert mounts.nbtools(disk, "status").returncode == 0
    assert mounts.run(disk, "stat", "-c", "%s", "result.bin").stdout.strip() == "500000"
    mounts.run(disk, "rm", "filler")
    again = mounts.nbtools(disk, "run", "--no-tracking", "-p", "megabytes=1.0")
    assert again.returncode == 0, again.stdout + again.stderr
    assert (
        json.loads(mounts.nbtools(disk, "plan", "--json", "-p", "megabytes=0.5").stdout)[0]["action"]
        == "restore"
    )
