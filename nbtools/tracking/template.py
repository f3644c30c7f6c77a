"""A migrated, empty MLflow database, made once for each MLflow version and copied into new projects.

MLflow migrates a fresh SQLite store through every revision it ever had, which takes seconds; a copy takes
milliseconds. ``python -m nbtools.tracking.template`` makes the template ahead of time.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from nbtools.errors import OperationError

_TIMEOUT_S = 600
#: MLflow writes where the database was made into the default experiment; the copy gets its own place.
_DEFAULT_ARTIFACTS = "UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0"


def ensure_store(database: Path, note: Callable[[str], None]) -> None:
    """Make ``database`` an empty MLflow store unless it exists.

    Parameters
    ----------
    note
        Told when it takes a while.

    Raises
    ------
    OperationError
        If MLflow cannot make one.
    OSError
        If it cannot be written.
    """
    if database.exists():
        return
    template = _template(note)
    database.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=database.parent, prefix=".mlflow", suffix=".tmp")
    os.close(handle)
    try:
        shutil.copyfile(template, name)
        connection = sqlite3.connect(name)
        with connection:
            connection.execute(_DEFAULT_ARTIFACTS, (str(database.parent / "artifacts" / "0"),))
        connection.close()
        os.link(name, database)  # unlike a rename, this never replaces a store that came meanwhile
    except FileExistsError:
        pass
    finally:
        Path(name).unlink(missing_ok=True)


def cache_folder() -> Path:
    """Return the folder for what can be made again."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "nbtools"


def template_path() -> Path:
    """Return where the template for the installed MLflow lies, or will lie."""
    return cache_folder() / f"mlflow-{metadata.version('mlflow')}.db"


def _template(note: Callable[[str], None]) -> Path:
    path = template_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path.with_suffix(".lock"), "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _sound(path):
                _make(path, note)
        return path
    except OSError:
        # No cache folder that can be written to: make it for this project alone.
        folder = Path(tempfile.mkdtemp(prefix="nbtools-"))
        _make(folder / path.name, note)
        return folder / path.name


def _sound(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
        try:
            complete = connection.execute("SELECT count(*) FROM alembic_version").fetchone()[0] == 1
            return bool(complete and connection.execute("PRAGMA quick_check").fetchone()[0] == "ok")
        finally:
            connection.close()
    except sqlite3.Error:
        return False


def _make(path: Path, note: Callable[[str], None]) -> None:
    note("preparing MLflow's database; this takes some seconds, once for each MLflow version")
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".mlflow", suffix=".tmp")
    os.close(handle)
    Path(name).unlink()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment["MLFLOW_DISABLE_TELEMETRY"] = "true"
    script = f"import mlflow; mlflow.MlflowClient({f'sqlite:///{name}'!r}).search_experiments()"
    command = [sys.executable, "-c", script]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_TIMEOUT_S, check=False, env=environment, cwd=path.parent
        )
        if done.returncode != 0 or not _sound(Path(name)):
            last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
            raise OperationError.of(f"MLflow cannot make its database: {' '.join(last)}")
        connection = sqlite3.connect(name)
        # Kernels and tracking write at the same time; readers must not wait for writers.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.close()
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


if __name__ == "__main__":
    _template(lambda text: print(text, file=sys.stderr))  # noqa: T201 - this is a program
