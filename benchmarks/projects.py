"""Projects that are timed: notebooks and pipelines.yaml as a person would have them, and the same as scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BenchStage:
    """A stage whose notebook has the code cells ``params`` (tagged as such) and ``cells``.

    Parameters
    ----------
    params
        Default values that hold in the project's folder, paths of datasets among them.
    inputs, outputs
        Names of datasets, which are the notebook's variables too.
    """

    name: str
    params: str
    cells: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def received(self, params: Mapping[str, float]) -> dict[str, float]:
        """Return those of ``params`` that it has."""
        return {name: value for name, value in params.items() if f"{name} =" in self.params}

    def script(self, params: Mapping[str, float]) -> str:
        """Return the same code as a plain script, with values for those params that it has."""
        injected = [f"{name} = {value!r}" for name, value in self.received(params).items()]
        return "\n\n".join([self.params, *injected, *self.cells]) + "\n"


def path_of(dataset: str) -> str:
    """Return where a dataset lies in a project."""
    return f"data/{dataset}.parquet"


def write_notebooks(folder: Path, stages: Sequence[BenchStage]) -> None:
    """Write the notebooks of a new project."""
    (folder / "notebooks").mkdir(parents=True)
    for stage in stages:
        (folder / f"notebooks/{stage.name}.ipynb").write_text(
            json.dumps(_notebook(stage), indent=1), encoding="utf-8"
        )


def write_spec(folder: Path, stages: Sequence[BenchStage], params: Mapping[str, float]) -> None:
    """Write pipelines.yaml."""
    datasets = dict.fromkeys(name for stage in stages for name in (*stage.inputs, *stage.outputs))
    lines = ["version: 1", "project: bench", f"params: {json.dumps(dict(params))}", "data:"]
    lines += [f"  {name}: {path_of(name)}" for name in datasets]
    lines += ["pipelines:", "  bench:", "    stages:"]
    for stage in stages:
        lines += [
            f"      {stage.name}:",
            f"        notebook: notebooks/{stage.name}.ipynb",
            f"        inputs: [{', '.join(stage.inputs)}]",
            f"        outputs: [{', '.join(stage.outputs)}]",
        ]
    (folder / "pipelines.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _notebook(stage: BenchStage) -> dict[str, object]:
    cells: list[dict[str, object]] = [
        {
            "cell_type": "code",
            "id": f"c{number}",
            "metadata": {} if number else {"tags": ["parameters"]},
            "execution_count": None,
            "outputs": [],
            "source": source,
        }
        for number, source in enumerate([stage.params, *stage.cells])
    ]
    metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}
