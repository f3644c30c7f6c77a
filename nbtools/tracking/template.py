"""A migrated, empty MLflow database, made once for each MLflow version and copied into new projects.

MLflow migrates a fresh SQLite store through every revision it ever had, which takes seconds; a copy takes
milliseconds. ``python -m nbtools.tracking.template`` makes the template ahead of time.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from nbtools.errors import OperationError
from nbtools.tracking.address import artifacts_beside

_TIMEOUT_S = 600
#: MLflow writes where the database was made into the default experiment; the copy gets its own place.
_DEFAULT_ARTIFACTS = "UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0"
_REVISION = re.compile(r"^(revision|down_revision)\b[^=\n]*=(.*)$", re.MULTILINE)


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
    database.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=database.parent, prefix=".mlflow-") as folder:
        fresh = Path(folder) / database.name
        template = _template(note)
        if template is None:  # no cache folder that can be written to: made for this project alone
            _make(fresh, note)
        else:
            shutil.copyfile(template, fresh)
        connection = sqlite3.connect(fresh)
        with connection:
            connection.execute(_DEFAULT_ARTIFACTS, (f"{artifacts_beside(database)}/0",))
        connection.close()
        _appear(fresh, database)


def cache_folder() -> Path:
    """Return the folder for what can be made again."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "nbtools"


def template_path() -> Path:
    """Return where the template for the installed MLflow lies, or will lie."""
    return cache_folder() / f"mlflow-{metadata.version('mlflow')}.db"


def _appear(fresh: Path, database: Path) -> None:
    try:
        os.link(fresh, database)  # unlike a rename, this never replaces a store that came meanwhile
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        if not database.exists():
            os.replace(fresh, database)


def _template(note: Callable[[str], None]) -> Path | None:
    """Return the template, made if need be; None if there is nowhere to keep it."""
    path = template_path()
    if _sound(path):  # before the lock: a cache that cannot be written to may hold one
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open(path.with_suffix(".lock"), "w", encoding="utf-8")  # noqa: SIM115 - closed below
    except OSError:
        return None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _sound(path):
            _make(path, note)
    return path


def _sound(path: Path) -> bool:
    """Return whether the database at ``path`` is whole and as the installed MLflow wants it."""
    if not path.is_file():
        return False
    try:
        # Nobody changes a template in place; and WAL's side files could not be made in a read-only folder.
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)
        try:
            revisions = {row[0] for row in connection.execute("SELECT version_num FROM alembic_version")}
            whole = connection.execute("PRAGMA quick_check").fetchone()[0] == "ok"
        finally:
            connection.close()
    except sqlite3.Error:
        return False
    return whole and bool(revisions) and revisions == (_newest() or revisions)


def _newest() -> set[str]:
    """Return the last schema revision of the installed MLflow, read from its migrations without importing it."""
    found = importlib.util.find_spec("mlflow")
    known: dict[str, set[str]] = {"revision": set(), "down_revision": set()}
    for home in (found.submodule_search_locations if found else None) or ():
        for file in (Path(home) / "store" / "db_migrations" / "versions").glob("*.py"):
            for name, value in _REVISION.findall(file.read_text(encoding="utf-8")):
                known[name].update(re.findall(r"['\"](\w+)['\"]", value))
    return known["revision"] - known["down_revision"]


def _make(path: Path, note: Callable[[str], None]) -> None:
    note("preparing MLflow's database; this takes some seconds, once for each MLflow version")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".mlflow-") as folder:
        made = Path(folder) / "mlflow.db"
        _migrate(made)
        connection = sqlite3.connect(made)
        # Kernels and tracking write at the same time; readers must not wait for writers.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.close()
        os.replace(made, path)


def _migrate(path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment["MLFLOW_DISABLE_TELEMETRY"] = "true"
    # A relative address: whatever characters the folder's path has, no part of MLflow decodes them.
    script = f"import mlflow; mlflow.MlflowClient('sqlite:///{path.name}').search_experiments()"
    try:
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
            env=environment,
            cwd=path.parent,
        )
    except subprocess.TimeoutExpired as error:
        raise OperationError.of(f"MLflow did not make its database within {_TIMEOUT_S} s") from error
    if done.returncode != 0 or not _sound(path):
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise OperationError.of(f"MLflow cannot make its database: {' '.join(last)}")


def main() -> None:
    """Make the template, and say where it lies."""
    path = _template(lambda text: print(text, file=sys.stderr))  # noqa: T201 - this is a program
    if path is None:
        sys.exit(f"there is no writing to {cache_folder()}")
    print(path)  # noqa: T201


if __name__ == "__main__":
    main()
