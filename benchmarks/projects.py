"""Projects that are timed: notebooks and pipelines.yaml as a person would have them, and the same as scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_TRIVIAL = ("text = str(seed)", "print(text, file=open({result}, 'w'))")


@dataclass(frozen=True)
class BenchStage:
    """A stage whose notebook has the code cells ``prefix``, ``params`` (tagged as such) and ``cells``.

    Parameters
    ----------
    params
        Default values that hold in the project's folder, paths of datasets among them.
    inputs, outputs
        Names of datasets, which are the notebook's variables too.
    prefix
        Cells above the parameters cell.
    options
        More keys of the stage in pipelines.yaml.
    """

    name: str
    params: str
    cells: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    prefix: tuple[str, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)

    def received(self, params: Mapping[str, float]) -> dict[str, float]:
        """Return those of ``params`` that it has."""
        return {name: value for name, value in params.items() if f"{name} =" in self.params}

    def script(self, params: Mapping[str, float]) -> str:
        """Return the same code as a plain script, with values for those params that it has."""
        injected = [f"{name} = {value!r}" for name, value in self.received(params).items()]
        return "\n\n".join([*self.prefix, self.params, *injected, *self.cells]) + "\n"


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


def write_project(folder: Path, stages: Sequence[BenchStage], params: Mapping[str, float]) -> None:
    """Write a new project, with empty folders for data and executed notebooks."""
    write_notebooks(folder, stages)
    write_spec(folder, stages, params)
    (folder / "data").mkdir(exist_ok=True)
    (folder / "executed").mkdir(exist_ok=True)


def independent_stages(count: int, cells: Sequence[str] = _TRIVIAL) -> list[BenchStage]:
    """Return stages that all do the same and do not depend on each other.

    Parameters
    ----------
    cells
        Code that has ``seed`` and writes to the path in ``{result}``, which is another variable in each notebook.
    """
    return [_independent(f"d{number}", cells) for number in range(count)]


def _independent(output: str, cells: Sequence[str]) -> BenchStage:
    return BenchStage(
        name=f"make_{output}",
        params=f"seed = 1\n{output} = {path_of(output)!r}",
        cells=tuple(cell.replace("{result}", output) for cell in cells),
        inputs=(),
        outputs=(output,),
    )


def write_spec(
    folder: Path,
    stages: Sequence[BenchStage],
    params: Mapping[str, float],
    paths: Mapping[str, str] | None = None,
) -> None:
    """Write pipelines.yaml; ``paths`` are those of datasets that do not lie where ``path_of`` says."""
    datasets = dict.fromkeys(name for stage in stages for name in (*stage.inputs, *stage.outputs))
    lines = ["version: 1", "project: bench", f"params: {json.dumps(dict(params))}", "data:"]
    lines += [f"  {name}: {(paths or {}).get(name, path_of(name))}" for name in datasets]
    lines += ["pipelines:", "  bench:", "    stages:"]
    for stage in stages:
        lines += [
            f"      {stage.name}:",
            f"        notebook: notebooks/{stage.name}.ipynb",
            f"        inputs: [{', '.join(stage.inputs)}]",
            f"        outputs: [{', '.join(stage.outputs)}]",
            *(f"        {key}: {json.dumps(value)}" for key, value in stage.options.items()),
        ]
    (folder / "pipelines.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _notebook(stage: BenchStage) -> dict[str, object]:
    cells: list[dict[str, object]] = [
        {
            "cell_type": "code",
            "id": f"c{number}",
            "metadata": {"tags": ["parameters"]} if number == len(stage.prefix) else {},
            "execution_count": None,
            "outputs": [],
            "source": source,
        }
        for number, source in enumerate([*stage.prefix, stage.params, *stage.cells])
    ]
    metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}
