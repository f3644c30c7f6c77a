"""What import contracts cannot see: what is loaded when nbtools is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = [
    "dask",
    "matplotlib",
    "mlflow",
    "nbclient",
    "nbdime",
    "nbformat",
    "optuna",
    "pandas",
    "papermill",
    "pyarrow",
    "sklearn",
    "sqlalchemy",
]


@pytest.mark.parametrize("module", ["nbtools", "nbtools.cli"])
def test_import_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set(sys.modules) & set({HEAVY})))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.split() == []
