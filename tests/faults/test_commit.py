"""A run is killed at every point of its commits, one after the other, as SQLite's own tests do.

After each kill nothing half-written may be there, the next run must finish with the results of an undisturbed
one, and nothing that was committed may run again.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.faults.conftest import (
    Driver,
    committed,
    copied,
    disturbed_project,
    expected,
    nobody_is_left,
    nothing_is_half_written,
    results,
)
from tests.projects import SmallProject

#: In CI every single point; elsewhere every third, beginning anywhere.
EVERY = 1 if os.environ.get("CI") else 3
KILLS = 100 if os.environ.get("CI") else 20


def _survives(
    driver: Driver,
    project: SmallProject,
    before: Mapping[str, str],
    factor: int,
    *,
    already: Mapping[str, int],
) -> None:
    """Check what is there after a kill, run again, and check what is there then."""
    nobody_is_left(project)
    nothing_is_half_written(project, before, expected(factor))
    done = {stage for stage, count in committed(project).items() if count > already.get(stage, 0)}

    again = driver.run(project, params={"factor": factor})

    assert again["exit"] == 0
    assert again["status"] == "passed", again
    assert set(again["started"]).isdisjoint(done), "what was committed ran again"
    assert results(project) == expected(factor)
    assert all(count <= already.get(stage, 0) + 1 for stage, count in committed(project).items())
    assert set(project.actions(params={"factor": factor}).values()) == {"up to date"}
    assert not list((project.root / ".nbtools/attempts").glob("*/*"))


def _points(driver: Driver, template: SmallProject, where: Path, factor: int) -> int:
    found = driver.run(copied(template, where), params={"factor": factor})
    assert found["status"] == "passed"
    assert sum("sync_folder" in point for point in found["points"]) or found["started"] == []
    return int(found["count"])


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> SmallProject:
    """Return a project that never ran."""
    return disturbed_project(tmp_path_factory.mktemp("fresh"))


@pytest.fixture(scope="module")
def used(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> SmallProject:
    """Return a project that holds results of factors 3 and 2; those of 2 are in use."""
    project = disturbed_project(tmp_path_factory.mktemp("used"))
    for factor in (3, 2):
        assert driver.run(project, params={"factor": factor})["status"] == "passed"
    return project


def _sweep(driver: Driver, template: SmallProject, where: Path, factor: int) -> None:
    """Kill a run at each of its points; how many there are varies a little from run to run."""
    count = _points(driver, template, where, factor)
    before, already = results(template), committed(template)
    killed = 0
    for point in range(1 + random.randrange(EVERY), count + 1, EVERY):
        project = copied(template, where)
        ended = driver.run(project, params={"factor": factor}, kill_at=point)
        killed += ended["exit"] == -9
        try:
            _survives(driver, project, before, factor, already=already)
        except AssertionError as error:
            raise AssertionError(f"killed at point {point} of {count}: {error}") from error
    assert killed >= 0.8 * (count // EVERY)


def test_first_run_is_killed_at_each_point(driver: Driver, fresh: SmallProject, short_tmp: Path) -> None:
    _sweep(driver, fresh, short_tmp / "p", 2)


def test_run_that_replaces_results_is_killed_at_each_point(
    driver: Driver, used: SmallProject, short_tmp: Path
) -> None:
    _sweep(driver, used, short_tmp / "p", 5)


def test_run_that_restores_results_is_killed_at_each_point(
    driver: Driver, used: SmallProject, short_tmp: Path
) -> None:
    _sweep(driver, used, short_tmp / "p", 3)


def test_runs_are_killed_at_any_moment_again_and_again(
    driver: Driver, fresh: SmallProject, short_tmp: Path
) -> None:
    project = copied(fresh, short_tmp / "p")
    for number in range(KILLS):
        factor = number % 4 + 2
        before, already = results(project), committed(project)
        driver.run(project, params={"factor": factor}, kill_after_s=random.uniform(0.02, 0.9))
        nobody_is_left(project)
        nothing_is_half_written(project, before, expected(factor))
        done = {stage for stage, count in committed(project).items() if count > already.get(stage, 0)}
        again = driver.run(project, params={"factor": factor})
        assert again["status"] == "passed", again
        assert set(again["started"]).isdisjoint(done)
        assert results(project) == expected(factor)
