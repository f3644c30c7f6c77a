from __future__ import annotations

import os

import pytest

from nbtools.execution.resources import machine, room_for
from nbtools.pipeline.spec import Resources

GIB = 2**30
MACHINE = Resources(2, 4 * GIB)


@pytest.mark.parametrize(
    ("wanted", "running", "fits"),
    [
        (Resources(1), [Resources(1)], True),
        (Resources(2), [Resources(1)], False),
        (Resources(1, 3 * GIB), [Resources(1, 2 * GIB)], False),
        (Resources(1, 2 * GIB), [Resources(1, 2 * GIB)], True),
        (Resources(0.2), [Resources(0.3)] * 6, True),
        (Resources(), [Resources(2, 4 * GIB)], True),
        (Resources(1), [Resources(2)], False),
    ],
)
def test_a_stage_starts_where_what_it_declares_is_free(
    wanted: Resources, running: list[Resources], fits: bool
) -> None:
    assert room_for(wanted, running, MACHINE) is fits


def test_a_stage_that_wants_more_than_there_is_runs_alone() -> None:
    assert room_for(Resources(64, 900 * GIB), [], MACHINE)
    assert not room_for(Resources(64, 900 * GIB), [Resources()], MACHINE)


def test_what_the_machine_does_not_say_is_not_counted() -> None:
    assert room_for(Resources(1, 900 * GIB), [Resources(1)], Resources(2, 0))


def test_the_machine_has_what_this_process_may_use() -> None:
    found = machine()
    assert found.cpu == len(os.sched_getaffinity(0))
    assert 0 < found.memory_bytes <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
