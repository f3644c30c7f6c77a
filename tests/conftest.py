"""What holds for every test: in CI a skip is a failure, lest a missing component pass for a green run."""

from __future__ import annotations

import os
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
