"""Start ipykernel so that it ends with whoever started it, even in the middle of a long computation.

ipykernel's own watch for its parent is a thread of Python's, which waits while a cell computes in C.
This file runs as a script under interpreters that know nothing of nbtools: standard library only.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Have Linux kill this process when the thread that started it ends; elsewhere ipykernel's watch must do."""
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.environ.get("JPY_PARENT_PID", str(os.getppid())) != str(os.getppid()):
        sys.exit("whoever started this kernel has gone")


def launch(**options: Any) -> None:
    """Start ipykernel; output that the other side takes in too slowly waits instead of being dropped.

    Parameters
    ----------
    options
        Of ``IPKernelApp``.
    """
    import zmq
    from ipykernel.kernelapp import IPKernelApp

    class Lossless(IPKernelApp):
        def init_iopub(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
            super().init_iopub(context)  # type: ignore[no-untyped-call]
            thread = self.iopub_thread
            with contextlib.suppress(AttributeError):  # of an ipykernel that is built otherwise
                thread.schedule(lambda: thread.socket.setsockopt(zmq.XPUB_NODROP, 1))

    Lossless.launch_instance(**options)


if __name__ == "__main__":
    end_with_parent()
    importlib.import_module("mlflow_run").install()
    del sys.modules["mlflow_run"], sys.path[0]  # a notebook finds neither it nor this file's folder
    launch()
