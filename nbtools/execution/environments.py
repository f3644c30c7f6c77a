"""Python environments as they were: compared with what is there now, and built anew by uv."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from nbtools.errors import OperationError
from nbtools.project import Project

#: The tool itself is that of today.
_OWN = "nbtools"
_BUILD_S = 3600
_COMPLETE = "complete.json"
_TAIL = 1_500


def differences(
    python: str, packages: Mapping[str, str], now_python: str, now: Mapping[str, str]
) -> tuple[str, ...]:
    """Return how an environment differs from what it was, in words; nothing if it is the same.

    >>> differences("CPython 3.11.7", {"numpy": "2.0"}, "CPython 3.11.7", {"numpy": "2.1", "nbtools": "1"})
    ('numpy 2.1, then 2.0',)
    """
    found = [f"{now_python}, then {python}"] if python != now_python else []
    for name in sorted({*packages, *now} - {_OWN}):
        then, present = packages.get(name), now.get(name)
        if then == present:
            continue
        if then is None:
            found.append(f"{name} {present}, then not installed")
        elif present is None:
            found.append(f"{name} is not installed, then {then}")
        else:
            found.append(f"{name} {present}, then {then}")
    return tuple(found)


def find_uv() -> str:
    """Return the path of uv; an empty text if it is not there."""
    return shutil.which("uv") or ""


def build(
    project: Project,
    python: str,
    packages: Mapping[str, str],
    origins: Mapping[str, str],
    note: Callable[[str], None],
) -> str:
    """Return the interpreter of an environment with exactly these packages; it is built unless it is there already.

    Parameters
    ----------
    python
        Such as ``CPython 3.11.7``.
    origins
        Where packages are from that are from no index: these cannot be installed by version.

    Raises
    ------
    OperationError
        If uv cannot build it.
    """
    wanted = json.dumps(
        {"python": python, "packages": dict(packages), "origins": dict(origins)}, sort_keys=True
    )
    folder = project.environments / hashlib.sha256(wanted.encode()).hexdigest()[:16]
    interpreter = folder / "bin" / "python"
    if (folder / _COMPLETE).exists():
        return str(interpreter)
    elsewhere = sorted(set(origins) - {_OWN})
    if elsewhere:
        message = f"the environment cannot be built from versions alone: {elsewhere[0]} was installed from {origins[elsewhere[0]]}"
        raise OperationError.of(message, fix="--environment current takes what is installed now")
    note(f"building the environment of the run, {python} with {len(packages)} packages, in {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    _uv("venv", "--quiet", "--no-project", "--python", python.rpartition(" ")[2], str(folder))
    pins = [f"{name}=={version}" for name, version in sorted(packages.items()) if name not in origins]
    listed = folder / "requirements.txt"
    listed.write_text("\n".join(pins) + "\n", encoding="utf-8")
    _uv("pip", "install", "--quiet", "--no-deps", "--python", str(interpreter), "--requirement", str(listed))
    _link_own(folder, origins.get(_OWN, ""))
    # Without it, what a killed process has left is built again.
    (folder / _COMPLETE).write_text(wanted, encoding="utf-8")
    return str(interpreter)


def _link_own(folder: Path, origin: str) -> None:
    """Let notebooks import the nbtools that was installed from a folder."""
    place = unquote(urlsplit(origin).path) if origin.startswith("file://") else ""
    for packages in (folder / "lib").glob("python*/site-packages") if place else ():
        (packages / "nbtools-folder.pth").write_text(f"{place}\n", encoding="utf-8")


def _uv(*words: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    try:
        done = subprocess.run(
            [find_uv() or "uv", *words],
            capture_output=True,
            timeout=_BUILD_S,
            check=False,
            stdin=subprocess.DEVNULL,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OperationError.of(f"uv cannot build the environment: {error}") from error
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip()[-_TAIL:]
        fix = "--environment current takes what is installed now"
        raise OperationError.of(f"uv cannot build the environment: {said}", fix=fix)
