"""The Python that a stage's kernel runs on: found and checked before anything runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbtools.errors import Problem
from nbtools.execution.kernels import probe as probing
from nbtools.execution.kernels.probe import probe

_PROBE_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python and what is installed in it.

    Parameters
    ----------
    path
        Absolute path of the executable, links not followed: a virtual environment is known by it.
    version
        Such as ``CPython 3.11.7``.
    packages
        Import name to name and version of the distribution that it comes from.
    distributions
        Version of everything that is installed, by name.
    origins
        Where distributions that are from no index were installed from.
    """

    path: str
    version: str
    packages: Mapping[str, tuple[str, str]]
    standard: frozenset[str]
    distributions: Mapping[str, str] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)

    def problem(self) -> Problem | None:
        """Return why kernels cannot run on it."""
        if "ipykernel" in self.packages:
            return None
        fix = f"install it there: {self.path} -m pip install ipykernel"
        return Problem("this Python has no ipykernel, so it cannot run notebooks", self.path, fix=fix)


class UnusablePython(Exception):
    """There is no such interpreter, or it does not answer; ``args[0]`` says which and why."""


def locate(python: str, root: Path) -> str:
    """Return the absolute path of the interpreter that ``python`` means; empty means this one.

    Raises
    ------
    UnusablePython
        If there is no such program.
    """
    if not python:
        return sys.executable
    written = Path(python).expanduser()
    if "/" in python or os.sep in python:
        path = written if written.is_absolute() else root / written
        if path.is_file() and os.access(path, os.X_OK):
            return os.path.abspath(path)
        raise UnusablePython(f"there is no Python at {python!r}")
    found = shutil.which(python)
    if found is None:
        raise UnusablePython(f"there is no program {python!r} on PATH")
    return os.path.abspath(found)


def describe(path: str, facts: Mapping[str, str]) -> tuple[Interpreter, dict[str, str]]:
    """Return the interpreter at ``path``, and what to remember of it.

    Parameters
    ----------
    facts
        What earlier calls asked to be remembered. It is believed while the interpreter and the
        folders of its packages have not changed.

    Raises
    ------
    UnusablePython
        If it does not run.
    """
    key = key_of(path)
    known = json.loads(facts[key]) if key in facts else None
    if known and known["signature"] == _signature(path, known["folders"]):
        return _interpreter(path, known), {}
    found = probe() if path == sys.executable else _ask(path)
    found["signature"] = _signature(path, found["folders"])
    return _interpreter(path, found), {key: json.dumps(found)}


def key_of(path: str) -> str:
    """Return by what the interpreter at ``path`` is remembered; the number grows with what is asked of it."""
    return f"python 2 {path}"


def _interpreter(path: str, found: Mapping[str, Any]) -> Interpreter:
    packages = {name: (item[0], item[1]) for name, item in found["packages"].items()}
    standard = frozenset(found["standard"])
    return Interpreter(path, found["python"], packages, standard, found["distributions"], found["origins"])


def _signature(path: str, folders: list[str]) -> list[Any]:
    searched = [folder for folder in sys.path if folder.endswith("-packages")]
    signature: list[Any] = [searched if path == sys.executable else None]
    for place in (path, *folders):
        try:
            status = os.stat(place)
        except OSError:
            signature.append(None)
        else:
            signature.append([status.st_mtime_ns, status.st_ino])
    return signature


def _ask(path: str) -> dict[str, Any]:
    command = [path, str(Path(probing.__file__))]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONHOME"}
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_PROBE_TIMEOUT_S, check=False, env=environment
        )
        found: dict[str, Any] = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise UnusablePython(f"{path} does not run as a Python 3.10 or newer") from error
    return found
