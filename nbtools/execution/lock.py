"""One run at a time in a project; the lock goes with its owner, however that ends."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nbtools.execution.files import explained

_POLL_S = 0.1
_TRIES_UNTOLD = 3


@contextmanager
def exclusive(path: Path, owner: dict[str, Any], note: Callable[[str], None]) -> Iterator[None]:
    """Hold the project's lock for the block; wait for another holder and tell for whom.

    Parameters
    ----------
    owner
        What others are told: ``run`` and ``command``.

    Raises
    ------
    OperationError
        If the lock's file cannot be written.
    """
    with explained("nbtools cannot write to the project"):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: on a full disk nothing must be left to write when it is closed.
        stream = open(path, "a+b", buffering=0)  # noqa: SIM115 - closed below
    with stream:
        tries = 0
        while not _try(stream.fileno()):
            tries += 1
            if tries == _TRIES_UNTOLD:  # whoever only looks who holds the lock has it for an instant
                note(f"waiting for {describe(holder(path))}")
            time.sleep(_POLL_S)
        with explained("nbtools cannot write to the project"):
            stream.truncate(0)
            stream.write(json.dumps({**owner, "pid": os.getpid(), "since": time.time()}).encode())
        try:
            yield
        finally:
            stream.truncate(0)


def holder(path: Path) -> dict[str, Any] | None:
    """Return what the present holder of the lock wrote; None if nobody holds it."""
    try:
        stream = open(path, encoding="utf-8")  # noqa: SIM115 - closed below
    except OSError:
        return None
    with stream:
        if _try(stream.fileno(), shared=True):
            return None
        try:
            found = json.load(stream)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def describe(found: dict[str, Any] | None) -> str:
    """Return who holds the lock, for people."""
    if not found:
        return "another run of this project"
    since = time.strftime("%H:%M", time.localtime(found.get("since", 0)))
    who = f"run {found['run']}" if "run" in found else found.get("command", "?")
    return f"{who} (process {found.get('pid', '?')}, since {since})"


def _try(handle: int, *, shared: bool = False) -> bool:
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
