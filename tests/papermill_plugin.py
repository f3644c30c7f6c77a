"""A pytest plugin that has papermill's own tests run on our engine: ``-p tests.papermill_plugin``.

The variable NBTOOLS_TEST_KERNELS says on which kernels: ``ordinary`` or ``forked``.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest
from papermill.engines import papermill_engines

from nbtools.execution.kernels.engine import NbtoolsEngine
from nbtools.execution.kernels.warm.forker import ForkJob
from nbtools.execution.kernels.warm.nursery import Nursery

#: What does not hold here, and why.
PASSED_OVER = {
    "test_nb_convert_engine": "counts calls of papermill's own client",
    "test_default_start_timeout": "counts calls of papermill's own client",
    "test_start_timeout": "counts calls of papermill's own client",
    "test_nb_convert_engine_execute": "counts how often papermill's own record is saved",
    "test_end2end_autosave_slow_notebook": "counts calls of papermill's own writer; test_engine.py looks at the file",
    "test_sys_exit": "takes a notebook whose cell has ended it for complete",
    "test_sys_exit0": "takes a notebook whose cell has ended it for complete",
    "test_system_exit": "takes a notebook whose cell has ended it for complete",
    "TestBrokenNotebook2": "fails on papermill's own engine too, with current IPython",
}
_nursery = Nursery()


class _OnForks(NbtoolsEngine):
    @classmethod
    def execute_managed_notebook(  # type: ignore[override]
        cls, nb_man: Any, kernel_name: str, session: Any = None, **options: Any
    ) -> None:
        job = ForkJob((), {**os.environ}, os.getcwd(), ())
        session.fork = lambda: _nursery.fork(sys.executable, job)
        super().execute_managed_notebook(nb_man, kernel_name, session=session, **options)


def pytest_configure() -> None:
    """Make our engine papermill's default."""
    papermill_engines.register(None, _engine())


def _engine() -> type[NbtoolsEngine]:
    if os.environ["NBTOOLS_TEST_KERNELS"] == "ordinary":
        return NbtoolsEngine
    _nursery.prepare(sys.executable, [], {**os.environ})
    return _OnForks


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Test our engine where papermill's own is named, and leave out what does not hold here."""
    sys.modules["papermill.tests.test_engines"].NBClientEngine = papermill_engines.get_engine(None)  # type: ignore[attr-defined]
    left_out = [item for item in items if PASSED_OVER.keys() & {item.name, *item.nodeid.split("::")}]
    missing = PASSED_OVER.keys() - {name for item in left_out for name in item.nodeid.split("::")}
    assert not missing, f"papermill has no such tests any more: {missing}"
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def pytest_unconfigure() -> None:
    """End the zygote."""
    _nursery.close()
