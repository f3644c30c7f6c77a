"""Processes beside this one that do what needs heavy imports."""

from __future__ import annotations

import os
import sys
import threading
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_main() -> Iterator[None]:
    """Hide the program's own script from the process that is started within.

    A spawned process begins by running it once more, to find what it defines; a script that calls nbtools
    without ``if __name__ == "__main__"`` would begin another run there.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def end_with(parent: int) -> None:
    """Make this process end when its parent has gone: a killed parent cannot tell it to."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
