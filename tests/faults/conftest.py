"""What the fault tests share: the driver, a project worth disturbing, and what must hold after every fault."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.projects import SmallProject, environment, wait_until

ROOT = Path(__file__).parents[2]
#: As the project promises; see tests/integration/test_interrupt.py for the slack.
GONE_S = 15

SPEC = """
    params: {factor: 2}
    data:
      numbers: data/numbers.txt
      doubled: data/doubled.txt
      folder: data/folder
      total: data/total.txt
    pipelines:
      work:
        stages:
          double: {notebook: double.ipynb, inputs: [numbers], outputs: [doubled, folder]}
          total: {notebook: total.ipynb, inputs: [doubled, folder], outputs: [total]}
"""


def disturbed_project(root: Path) -> SmallProject:
    """Return a project whose first stage writes a file and a folder, which its second one reads."""
    project = SmallProject(root)
    project.spec(SPEC)
    project.write("data/numbers.txt", "1\n2\n3\n")
    project.notebook(
        "double.ipynb",
        """
        from pathlib import Path
        values = [str(int(line) * factor) for line in Path(numbers).read_text().split()]
        Path(doubled).write_text(" ".join(values))
        Path(folder).mkdir()
        for number, value in enumerate(values):
            Path(folder, f"{number}.txt").write_text(value)
        """,
        params="factor = 1\nnumbers = 'data/numbers.txt'\ndoubled = 'data/doubled.txt'\nfolder = 'data/folder'",
    )
    project.notebook(
        "total.ipynb",
        """
        from pathlib import Path
        values = sorted(path.read_text() for path in Path(folder).iterdir())
        assert values == sorted(Path(doubled).read_text().split())
        Path(total).write_text(str(sum(map(int, values))))
        """,
        params="doubled = 'data/doubled.txt'\nfolder = 'data/folder'\ntotal = 'data/total.txt'",
    )
    return project


def results(project: SmallProject) -> dict[str, str]:
    """Return what lies in the project's data folder, by path."""
    base = project.root / "data"
    return {
        path.relative_to(base).as_posix(): path.read_text()
        for path in sorted(base.rglob("*"))
        if path.is_file()
    }


def expected(factor: int) -> dict[str, str]:
    """Return what an undisturbed run leaves there."""
    values = [factor, 2 * factor, 3 * factor]
    return {
        "numbers.txt": "1\n2\n3\n",
        "doubled.txt": " ".join(map(str, values)),
        "total.txt": str(sum(values)),
        **{f"folder/{number}.txt": str(value) for number, value in enumerate(values)},
    }


class Driver:
    """Runs projects in forks of a process that has imported everything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "driver.log"
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.driver"],
                cwd=ROOT,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                encoding="utf-8",
            )

    def run(self, project: SmallProject, **order: Any) -> dict[str, Any]:
        """Run the project and return how that ended; see the driver."""
        order = {"project": str(project.root), "report": str(self.folder / "report.json"), **order}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, self.log.read_text()
        found: dict[str, Any] = json.loads(answer)
        assert found["exit"] in (0, -9), self.log.read_text()
        return found

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """Return a driver for the tests of a module."""
    driver = Driver(tmp_path_factory.mktemp("driver"))
    yield driver
    driver.close()


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """Return a folder with a short path."""
    with tempfile.TemporaryDirectory(prefix="fault-") as name:
        yield Path(name).resolve()


def copied(template: SmallProject, to: Path) -> SmallProject:
    """Return a copy of a project with all its state."""
    if to.exists():
        shutil.rmtree(to)
    shutil.copytree(template.root, to, symlinks=True)
    return SmallProject(to)


def committed(project: SmallProject) -> dict[str, int]:
    """Return how many completion records each stage has."""
    path = project.root / ".nbtools/state.db"
    if not path.exists():
        return {}
    connection = sqlite3.connect(path)
    try:
        return dict(connection.execute("SELECT stage, count(*) FROM completion GROUP BY stage").fetchall())
    except sqlite3.OperationalError:
        return {}  # it was killed before there was a table
    finally:
        connection.close()


def processes_of(project: SmallProject) -> set[int]:
    """Return the processes that work in the project's folder, or were told of it."""
    found = set()
    mark = str(project.root).encode()
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            folder = os.readlink(f"/proc/{name}/cwd")
            told = Path(f"/proc/{name}/environ").read_bytes() + Path(f"/proc/{name}/cmdline").read_bytes()
        except OSError:
            continue
        if (folder == str(project.root) or mark in told) and int(name) != os.getpid():
            found.add(int(name))
    return found


def nobody_is_left(project: SmallProject) -> None:
    """Wait until no process of a run is left."""
    wait_until(lambda: not processes_of(project), GONE_S)


def nothing_is_half_written(
    project: SmallProject, before: Mapping[str, str], after: Mapping[str, str]
) -> None:
    """Check that each dataset is what it was, what it will be, or not there, and whole."""
    now = results(project)
    for path in ("doubled.txt", "total.txt"):
        assert now.get(path) in (None, before.get(path), after[path])
    folder = {path: text for path, text in now.items() if path.startswith("folder/")}
    wholes = [
        {path: text for path, text in side.items() if path.startswith("folder/")} for side in (before, after)
    ]
    assert folder in ({}, *wholes)
