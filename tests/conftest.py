"""What holds for every test: in CI a skip is a failure, lest a missing component pass for a green run."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator

import pytest

#: What a skip's reason may begin with in CI: no installation would make the test run there.
ALLOWED_SKIPS = ("not on this platform",)


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not os.environ.get("CI") or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if not reason.startswith(ALLOWED_SKIPS):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, where nothing may be missing: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that skips itself, in its set-up or in its body."""
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fail a module that skips itself, as ``pytest.importorskip`` does."""
    report = yield
    _refuse_skip(report)
    return report


@pytest.fixture(autouse=True, scope="module")
def _mlflow_forgets() -> Generator[None]:
    """Undo what a module told MLflow: ``set_tracking_uri`` also sets a variable that every later run obeys."""
    before = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
    yield
    for name in [name for name in os.environ if name.startswith("MLFLOW_") and name not in before]:
        del os.environ[name]
    os.environ.update(before)
    if tracking := sys.modules.get("mlflow"):
        tracking.set_tracking_uri(before.get("MLFLOW_TRACKING_URI"))
        if "MLFLOW_TRACKING_URI" not in before:
            os.environ.pop("MLFLOW_TRACKING_URI", None)
