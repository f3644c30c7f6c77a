"""papermill's own tests, as it ships them, on our engine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.projects import environment

MODULES = (
    "test_engines",
    "test_execute",
    "test_autosave",
    "test_clientwrap",
    "test_parameterize",
    "test_cli",
)
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kernels", ["ordinary", "forked"])
def test_papermills_own_tests_pass_on_our_engine(tmp_path: Path, kernels: str) -> None:
    words = ["-q", "-p", "no:cacheprovider", "-p", "tests.papermill_plugin", "--pyargs"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, *(f"papermill.tests.{name}" for name in MODULES)],
        cwd=tmp_path,
        env={**environment(), "PYTHONPATH": str(ROOT), "NBTOOLS_TEST_KERNELS": kernels},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) > 130
