"""Start ipykernel as nbtools wants it: nothing that it prints is lost, and what it logs is its stage's.

This file runs as a script under interpreters that know nothing of nbtools: standard library only.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import Any


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
    importlib.import_module("mlflow_run").install()
    del sys.modules["mlflow_run"], sys.path[0]  # a notebook finds neither it nor this file's folder
    launch()
