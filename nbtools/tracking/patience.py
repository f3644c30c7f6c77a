"""Waiting for MLflow: not in silence, and not for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

#: How long nobody is told that something is waited for.
_SILENT_S = 2.0
#: How long nothing may come before it is given up.
STALLED_S = 60.0
_LOOK_S = 0.1


class GivenUp(Exception):
    """Nobody waits any more; ``args[0]`` says why."""


class Patience:
    """Waits for several results, one after the other.

    Parameters
    ----------
    given_up
        Whether nobody wants to wait any more.
    note
        Told what is waited for, once that takes long.
    """

    def __init__(self, given_up: Callable[[], bool], note: Callable[[], None] = lambda: None) -> None:
        self._given_up = given_up
        self._note = note
        self._since = self._last = time.monotonic()
        self._told = False
        self._over = ""

    def result(self, future: Future[Any]) -> Any:
        """Return a result, or raise what it failed with.

        Raises
        ------
        GivenUp
            If it does not come; what has come by then can still be had.
        """
        while not future.done() and not self._over:
            try:
                future.exception(timeout=_LOOK_S)
            except FutureTimeout:
                self._look()
        if not future.done():
            raise GivenUp(self._over)
        self._last = time.monotonic()
        return future.result()

    def _look(self) -> None:
        now = time.monotonic()
        if self._given_up():
            self._over = "it was not waited for"
        elif now - self._last > STALLED_S:
            self._over = "it takes too long to answer"
        elif not self._told and now - self._since > _SILENT_S:
            self._told = True
            self._note()
