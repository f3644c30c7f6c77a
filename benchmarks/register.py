"""Logs and registers a small model in the project of the working directory and prints the seconds that it took.

``python -m benchmarks.register package|log-model|log-model-given``: with ``nbtools.package``, or with MLflow alone, which
finds out the requirements by itself or is given them. All give an example, from which the signature comes.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import mlflow
import mlflow.sklearn
import pandas as pd
from sklearn.linear_model import LinearRegression

import nbtools.registry.package
from nbtools.pipeline.spec import Tracking
from nbtools.tracking.address import resolve
from nbtools.tracking.template import ensure_store

_NAME = "small"


def main() -> None:
    """Register the model in the way that the command line names."""
    store = resolve(Path.cwd(), Tracking(), "bench", os.environ)
    assert store.database is not None
    ensure_store(store.database, lambda _: None)
    frame = pd.DataFrame({"x": range(100), "y": range(100)}, dtype=float)
    model = LinearRegression().fit(frame[["x"]], frame["y"])
    example = frame[["x"]].head()
    started = time.perf_counter()
    if sys.argv[1] == "package":
        nbtools.package(model, _NAME, example=example)
    else:
        given = [f"{name}=={version(name)}" for name in ("mlflow", "scikit-learn", "pandas", "cloudpickle")]
        _log_model(store.uri, model, example, given if sys.argv[1] == "log-model-given" else None)
    seconds = time.perf_counter() - started
    versions = mlflow.MlflowClient(store.uri, store.uri).search_model_versions(f"name='{_NAME}'")
    if len(versions) != 1:
        sys.exit("the model was not registered")
    print(seconds)


def _log_model(uri: str, model: LinearRegression, example: pd.DataFrame, given: list[str] | None) -> None:
    mlflow.set_tracking_uri(uri)
    with warnings.catch_warnings(), mlflow.start_run():
        warnings.simplefilter("ignore")
        mlflow.sklearn.log_model(
            model,
            name=_NAME,
            registered_model_name=_NAME,
            input_example=example,
            pip_requirements=given,
            # As nbtools writes it; MLflow's own default asks the loader to name every type that it trusts.
            serialization_format=mlflow.sklearn.SERIALIZATION_FORMAT_CLOUDPICKLE,
        )


if __name__ == "__main__":
    main()
