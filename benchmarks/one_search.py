"""Searches the store of the project in the working directory once and prints the seconds that it took.

``python -m benchmarks.one_search mlflow|nbtools|sql LIMIT``: the runs with the largest ``r2``. MLflow is imported and the
store has been read from before.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from pathlib import Path

import mlflow
import pandas as pd
from mlflow import MlflowClient

import nbtools

_ORDER = "metrics.r2 desc"
_SQL = """
    SELECT run_uuid, value FROM runs LEFT JOIN latest_metrics USING (run_uuid)
    WHERE key = 'r2' AND experiment_id = 1 ORDER BY value DESC LIMIT ?
"""


def main() -> None:
    """Search in the way that the command line names."""
    way, limit = sys.argv[1], int(sys.argv[2])
    database = Path.cwd() / ".nbtools" / "mlflow.db"
    client = MlflowClient(f"sqlite:///{database}", f"sqlite:///{database}")
    client.get_experiment_by_name("bench")
    assert mlflow.__version__
    assert pd.__version__
    nbtools.runs(limit=1)
    started = time.perf_counter()
    if way == "mlflow":
        found = len(client.search_runs(["1"], order_by=[_ORDER], max_results=limit))
    elif way == "nbtools":
        found = len(nbtools.runs(sort=_ORDER, limit=limit))
    else:
        connection = sqlite3.connect(database)
        found = len(connection.execute(_SQL, (limit,)).fetchall())
    seconds = time.perf_counter() - started
    if not found:
        sys.exit("nothing was found")
    print(seconds)


if __name__ == "__main__":
    main()
