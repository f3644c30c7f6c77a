"""Searching 10,000 runs in an SQLite store, ordered by a metric: MLflow's client, nbtools, and the bare SQL.

- *In a process that has imported MLflow and opened the store*: the 100 best runs, and all of them as a DataFrame.
  MLflow's ``search_runs`` gives whole runs with tags and inputs; ``nbtools.runs`` gives the columns that are shown. SQL
  alone reads no more than ids and values, which is the least that a search can take.
- *The whole command*: ``nbtools runs search`` against a script that does the same with ``mlflow.search_runs``. Both
  import MLflow, which takes most of the time.

The store is filled by plain SQL: 10 metrics, 8 params and 12 tags a run, as a stage of nbtools has.
"""

from __future__ import annotations

import random
import sqlite3
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import (
    PYTHON,
    Contender,
    Sample,
    Settings,
    in_turns,
    nbtools,
    printed,
    reported,
    times,
)

_ROUNDS = 5
_RUNS = 10_000
_SMALL = 30
_WAYS = {"MLflow's search_runs": "mlflow", "nbtools.runs": "nbtools", "SQL alone": "sql"}
_METRICS = ["r2", "rmse", *(f"metric_{number}" for number in range(8))]
_PARAMS = ["alpha", "l1_ratio", *(f"param_{number}" for number in range(6))]
_TAGS = [
    "mlflow.user",
    "mlflow.source.name",
    "mlflow.source.git.commit",
    "mlflow.runName",
    "mlflow.parentRunId",
    "nbtools.run",
    "nbtools.fingerprint",
    "nbtools.params",
    "nbtools.notebook",
    "nbtools.input.train_set",
    "nbtools.output.model",
]
_SCRIPT = (
    "import sys, mlflow; mlflow.set_tracking_uri('sqlite:///.nbtools/mlflow.db'); "
    "print(len(mlflow.search_runs(experiment_names=['bench'], order_by=['metrics.r2 desc'], max_results=100)))"
)


def benchmark(settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield the tables."""
    count = _SMALL if settings.small else _RUNS
    folder = settings.folder / "search"
    make_project(folder, count, settings)
    rounds = settings.rounds(_ROUNDS)
    for limit, what in ((100, "the 100 best"), (count, "all")):
        contenders = [
            Contender(name, partial(_search, way, limit, folder, settings)) for name, way in _WAYS.items()
        ]
        yield in_turns(f"{what} of {count:,} runs, ordered by a metric", contenders, rounds)
    command = nbtools("runs", "search", "--sort", "metrics.r2 desc", "--limit", "100")
    contenders = [
        Contender(
            "a script with mlflow.search_runs", lambda _: times([PYTHON, "-c", _SCRIPT], settings, folder)
        ),
        Contender("nbtools runs search", lambda _: times(command, settings, folder)),
    ]
    yield in_turns(f"the 100 best of {count:,} runs, the whole command", contenders, rounds)


def _search(way: str, limit: int, folder: Path, settings: Settings, _: int) -> Sample:
    return reported("one_search", [way, str(limit)], settings, folder)


def make_project(folder: Path, count: int, settings: Settings) -> None:
    """Make a project whose store holds so many runs of a stage."""
    (folder / ".nbtools").mkdir(parents=True)
    spec = "version: 1\nproject: bench\npipelines: {train: {stages: {fit: {notebook: fit.ipynb}}}}\n"
    (folder / "pipelines.yaml").write_text(spec, encoding="utf-8")
    template = printed([PYTHON, "-m", "nbtools.tracking.template"], settings, settings.folder).strip()
    database = folder / ".nbtools" / "mlflow.db"
    database.write_bytes(Path(template).read_bytes())
    connection = sqlite3.connect(database)
    with connection:
        _fill(connection, count)
    connection.close()


def _fill(connection: sqlite3.Connection, count: int) -> None:
    chance = random.Random(13)
    ids = [uuid.UUID(int=chance.getrandbits(128)).hex for _ in range(count)]
    start = 1_700_000_000_000
    connection.execute("INSERT INTO experiments VALUES (1, 'bench', 'nowhere', 'active', 0, 0, 'default')")
    connection.executemany(
        "INSERT INTO runs (run_uuid, name, source_type, user_id, status, start_time, end_time, lifecycle_stage, "
        "artifact_uri, experiment_id) VALUES (?, 'fit', 'UNKNOWN', 'me', 'FINISHED', ?, ?, 'active', 'nowhere', 1)",
        [(run, start + 1000 * number, start + 1000 * number + 500) for number, run in enumerate(ids)],
    )
    connection.executemany(
        "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, ?, 0, 0, ?)",
        [(name, chance.random(), start, run) for run in ids for name in _METRICS],
    )
    connection.executemany(
        "INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?)",
        [(name, str(chance.choice([0, 0.2, 0.5])), run) for run in ids for name in _PARAMS],
    )
    connection.executemany(
        "INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?)",
        [(name, "0123456789abcdef" * 4, run) for run in ids for name in _TAGS],
    )
    connection.executemany(
        "INSERT INTO tags (key, value, run_uuid) VALUES ('nbtools.stage', 'train.fit', ?)",
        [(run,) for run in ids],
    )
