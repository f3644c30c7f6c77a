"""Small projects that tests run for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbtools.api
from nbtools.execution.events import Event
from nbtools.execution.state import RunState


def notebook(
    *cells: str, params: str | None = "", metadata: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return a notebook as JSON values: a cell tagged ``parameters`` (none if ``params`` is None), then ``cells``."""
    sources = [] if params is None else [(params, ["parameters"])]
    sources += [(cell, []) for cell in cells]
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
        if metadata is None
        else metadata,
        "cells": [
            {
                "cell_type": "code",
                "id": f"c{number}",
                "metadata": {"tags": tags} if tags else {},
                "execution_count": None,
                "outputs": [],
                "source": textwrap.dedent(source),
            }
            for number, (source, tags) in enumerate(sources)
        ],
    }


@dataclass
class SmallProject:
    """A project in a folder of its own; tracking goes nowhere unless a test asks for it."""

    root: Path

    def write(self, path: str, content: str | bytes) -> Path:
        """Write a file, making its folder."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            target.write_bytes(content)
        else:
            target.write_text(textwrap.dedent(content), encoding="utf-8")
        return target

    def notebook(self, path: str, *cells: str, **options: Any) -> Path:
        """Write a notebook."""
        return self.write(path, json.dumps(notebook(*cells, **options)))

    def spec(self, text: str) -> None:
        """Write pipelines.yaml; version and project are added."""
        self.write("pipelines.yaml", "version: 1\nproject: small\n" + textwrap.dedent(text))

    def run(self, *targets: str, **options: Any) -> RunState:
        """Run and return how it ended."""
        return nbtools.api.run(targets, project=self.root, **{"track": False, **options})

    def events(self, *targets: str, **options: Any) -> list[Event]:
        """Run and return everything that happened."""
        seen: list[Event] = []
        self.run(*targets, listeners=[seen.append], **options)
        return seen

    def actions(self, *targets: str, **options: Any) -> dict[str, str]:
        """Return what the plan says of each stage."""
        plan = nbtools.api.plan(targets, project=self.root, **options)
        return {step.key: step.action.value for step in plan.steps}

    def text(self, path: str) -> str:
        """Return a file's text."""
        return (self.root / path).read_text(encoding="utf-8")

    def statuses(self, state: RunState) -> dict[str, str]:
        """Return the status of each stage."""
        return {key: stage.status for key, stage in state.stages.items()}

    def cells(self, path: str) -> list[dict[str, Any]]:
        """Return the cells of the notebook at ``path``."""
        return json.loads(self.text(path))["cells"]

    def command(
        self, *words: str, env: Mapping[str, str] | None = None, folder: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run ``nbtools`` with ``words`` in a process of its own, and wait for its end."""
        return subprocess.run(
            [*NBTOOLS, *words],
            cwd=self.root / folder,
            env=environment(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=240,
            check=False,
        )

    def start(self, *words: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start ``nbtools`` with ``words`` in a process of its own."""
        return subprocess.Popen(
            [*NBTOOLS, *words],
            cwd=self.root,
            env=environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,
        )


#: The command, on the interpreter that runs the tests.
NBTOOLS = (sys.executable, "-m", "nbtools")


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a command: no colours, UTF-8, and ``more``."""
    return {**os.environ, "NO_COLOR": "1", "PYTHONUTF8": "1", **(more or {})}


def wait_until(holds: Callable[[], object], within_s: float = 60) -> None:
    """Wait until ``holds`` returns something true; fail after ``within_s`` seconds."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


TWO_STAGES = """
    params: {factor: 2}
    data: {numbers: data/numbers.txt, doubled: data/doubled.txt, total: data/total.txt}
    pipelines:
      data:
        stages:
          double: {notebook: notebooks/double.ipynb, inputs: [numbers], outputs: [doubled]}
          total: {notebook: notebooks/total.ipynb, inputs: [doubled], outputs: [total]}
"""


def two_stages(root: Path) -> SmallProject:
    """Return a project that multiplies the numbers of a file (by ``factor``), then adds them up."""
    project = SmallProject(root)
    project.spec(TWO_STAGES)
    project.write("data/numbers.txt", "1\n2\n3\n")
    project.notebook(
        "notebooks/double.ipynb",
        "from pathlib import Path",
        """
        values = [int(line) * factor for line in Path(numbers).read_text().split()]
        Path(doubled).write_text("\\n".join(map(str, values)))
        """,
        params='factor = 1\nnumbers = "../data/numbers.txt"\ndoubled = "../data/doubled.txt"',
    )
    project.notebook(
        "notebooks/total.ipynb",
        """
        from pathlib import Path
        Path(total).write_text(str(sum(map(int, Path(doubled).read_text().split()))))
        """,
        params='doubled = "../data/doubled.txt"\ntotal = "../data/total.txt"',
    )
    return project


WRITE = "from pathlib import Path\nPath(result).write_text('done')"


def one_stage(root: Path, *cells: str, params: str = "", options: str = "") -> SmallProject:
    """Return a project with the stage ``work.only``, which runs ``cells`` and then writes ``result.txt``.

    Parameters
    ----------
    params
        What its parameters cell sets beside ``result``.
    options
        More keys of the stage, such as ``timeout: 2s``.
    """
    project = SmallProject(root)
    more = f", {options}" if options else ""
    project.spec(f"""
        data: {{result: result.txt}}
        pipelines:
          work:
            stages:
              only: {{notebook: only.ipynb, outputs: [result]{more}}}
    """)
    project.notebook("only.ipynb", *cells, WRITE, params=f'{textwrap.dedent(params)}\nresult = "result.txt"')
    return project


def stage_names(events: Sequence[Event], kind: type) -> list[str]:
    """Return the stages of the events of one kind, in order."""
    return [event.stage for event in events if isinstance(event, kind) and hasattr(event, "stage")]
