"""Other tools on the very same notebooks: DVC with papermill, and Snakemake's ``notebook:`` directive.

They live in an environment of their own, ``.venv-peers`` (``make peers``), at the versions in peers.lock; pandas,
scikit-learn, ipykernel and papermill are those of nbtools' environment.

- DVC calls papermill for each stage, one after the other: ``dvc repro`` knows no other way.
- Snakemake runs a notebook with papermill where that is installed. Inputs and params reach it as ``snakemake.input``
  and ``snakemake.params``: one more cell, where papermill injects its own, takes them from there.
- Neither sends its usage data, and neither uses git.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import distributions
from pathlib import Path

from benchmarks.harness import Sample, Settings, times
from benchmarks.projects import BenchStage, path_of, write_notebooks

#: Where ``make peers`` puts them.
PROGRAMS = Path(__file__).parents[1] / ".venv-peers/bin"


@dataclass(frozen=True)
class Peer:
    """A tool that brings a project up to date.

    Parameters
    ----------
    run
        The command that runs what is not up to date.
    accept
        The command that takes the outputs that are there for those of a run.
    write
        Writes what it needs besides the notebooks into a project's folder, which has no stages' outputs yet.
    write_params
        Writes the params, which a person would edit.
    """

    name: str
    run: tuple[str, ...]
    accept: tuple[str, ...]
    write: Callable[[Path, Sequence[BenchStage], Mapping[str, float]], None]
    write_params: Callable[[Path, Mapping[str, float]], None]

    def prepare(
        self, folder: Path, stages: Sequence[BenchStage], params: Mapping[str, float], settings: Settings
    ) -> None:
        """Make a folder with notebooks a project of this tool."""
        (folder / "executed").mkdir(exist_ok=True)
        self.write(folder, stages, params)
        self.write_params(folder, params)
        if self is DVC:
            _initialize_dvc(folder, settings)

    def times(self, settings: Settings, folder: Path) -> Sample:
        """Bring the project up to date and return what it took."""
        return _times(self.run, settings, folder)

    def accepts(self, settings: Settings, folder: Path) -> None:
        """Have the outputs that are there taken for those of a run."""
        _times(self.accept, settings, folder)


def versions(programs: Path) -> dict[str, str]:
    """Return the versions of the tools beside ``programs``."""
    folders = [str(path) for path in programs.parent.glob("lib/python*/site-packages")]
    names = ("dvc", "snakemake", "ploomber-engine")
    return {item.name: item.version for name in names for item in distributions(name=name, path=folders)}


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment of their commands."""
    assert settings.peers is not None
    cache = settings.folder / "cache"
    return {
        **settings.environment(),
        "PATH": f"{settings.peers}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(cache / "dvc"),
        "PLOOMBER_STATS_ENABLED": "false",
    }


def ran(folder: Path, since: Mapping[str, int]) -> str:
    """Return how many of the notebooks ran since ``executed`` was called, in words."""
    now = executed(folder)
    many = sum(since.get(name) != when for name, when in now.items())
    return f"{many} of {len(now)} stages ran"


def executed(folder: Path) -> dict[str, int]:
    """Return when each executed notebook was written."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "executed").glob("*.ipynb")}


def _times(command: Sequence[str], settings: Settings, folder: Path) -> Sample:
    assert settings.peers is not None
    program, *words = command
    return times([str(settings.peers / program), *words], settings, folder, environment(settings))


def _initialize_dvc(folder: Path, settings: Settings) -> None:
    """Copy what ``dvc init`` leaves, which takes a second."""
    template = settings.folder / "dvc-template"
    if not template.exists():
        template.mkdir()
        assert settings.peers is not None
        command = [str(settings.peers / "dvc"), "init", "--no-scm", "--quiet"]
        subprocess.run(command, cwd=template, env=environment(settings), check=True)
        (template / ".dvc/config").write_text("[core]\n    no_scm = True\n    check_update = False\n")
    shutil.copytree(template / ".dvc", folder / ".dvc")


def _write_dvc(folder: Path, stages: Sequence[BenchStage], params: Mapping[str, float]) -> None:
    """Write dvc.yaml, as JSON, which is YAML."""
    entries = {}
    for stage in stages:
        received = stage.received(params)
        passed = "".join(f" -p {name} ${{{name}}}" for name in received)
        notebook = f"notebooks/{stage.name}.ipynb"
        entries[stage.name] = {
            "cmd": f"papermill --no-progress-bar {notebook} executed/{stage.name}.ipynb{passed}",
            "deps": [notebook, *map(path_of, stage.inputs)],
            "params": list(received),
            "outs": [path_of(name) for name in stage.outputs],
        }
    (folder / "dvc.yaml").write_text(json.dumps({"stages": entries}, indent=1), encoding="utf-8")


def _write_snakefile(folder: Path, stages: Sequence[BenchStage], params: Mapping[str, float]) -> None:
    """Write the Snakefile, and the notebooks again, with the cell that takes the values."""
    read = {name for stage in stages for name in stage.inputs}
    last = [path_of(name) for stage in stages for name in stage.outputs if name not in read]
    lines = ['configfile: "params.json"', "rule all:", f"    input: {json.dumps(last)}"]
    for stage in stages:
        lines += [
            f"rule {stage.name}:",
            f"    input: {_named(stage.inputs)}",
            f"    output: {_named(stage.outputs)}",
            f"    params: {', '.join(f'{name}=config[{name!r}]' for name in stage.received(params))}",
            f"    log: notebook='executed/{stage.name}.ipynb'",
            f"    notebook: 'notebooks/{stage.name}.ipynb'",
        ]
    (folder / "Snakefile").write_text("\n".join(lines) + "\n", encoding="utf-8")
    shutil.rmtree(folder / "notebooks")
    write_notebooks(folder, [_with_values(stage, params) for stage in stages])


def _named(datasets: Sequence[str]) -> str:
    return ", ".join(f"{name}={path_of(name)!r}" for name in datasets)


def _with_values(stage: BenchStage, params: Mapping[str, float]) -> BenchStage:
    places = {"input": stage.inputs, "output": stage.outputs, "params": stage.received(params)}
    taken = [f"{name} = snakemake.{place}.{name}" for place, names in places.items() for name in names]
    return replace(stage, cells=("\n".join(taken), *stage.cells))


def _write_json(name: str) -> Callable[[Path, Mapping[str, float]], None]:
    def write(folder: Path, params: Mapping[str, float]) -> None:
        (folder / name).write_text(json.dumps(dict(params)), encoding="utf-8")

    return write


DVC = Peer(
    "DVC",
    ("dvc", "repro", "--quiet"),
    ("dvc", "commit", "--force", "--quiet"),
    _write_dvc,
    _write_json("params.yaml"),
)
SNAKEMAKE = Peer(
    "Snakemake",
    ("snakemake", "--cores", "2", "--quiet", "all"),
    ("snakemake", "--cores", "16", "--quiet", "all", "--touch", "--forceall"),
    _write_snakefile,
    _write_json("params.json"),
)
PEERS = (DVC, SNAKEMAKE)
