"""Start ipykernel as nbtools wants it: nothing that it prints is lost, and what it logs is its stage's.

This file runs as a script under interpreters that know nothing of nbtools: standard library only.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable
from typing import Any


def launch(ready: Callable[[], None], **options: Any) -> None:
    """Start ipykernel; output that the other side takes in too slowly waits instead of being dropped.

    Parameters
    ----------
    ready
        Called before the first cell: until then, IPython draws random numbers for tips of the day.
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

        def init_shell(self) -> None:
            super().init_shell()  # type: ignore[no-untyped-call]

            shell: Any = self.shell

            def once(*_: Any) -> None:
                shell.events.unregister("pre_execute", once)
                ready()

            shell.events.register("pre_execute", once)

    Lossless.launch_instance(**options)


if __name__ == "__main__":
    importlib.import_module("mlflow_run").install()
    seeding = importlib.import_module("seeding")
    seeding.install()
    # A notebook finds neither these nor this file's folder.
    del sys.modules["mlflow_run"], sys.modules["seeding"], sys.path[0]
    launch(seeding.seed)
