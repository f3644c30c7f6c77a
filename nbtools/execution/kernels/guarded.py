"""Ordinary kernels whose programs end with them: guardians stand between them and this process (see ``guardian``)."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.launcher import launch_kernel
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from nbtools.execution.kernels.processes import guarded, send_signal

#: As which jupyter_client knows the provisioner.
GUARDED = "nbtools-guarded"


class GuardedProvisioner(LocalProvisioner):
    """Starts kernels as jupyter_client does, on Linux below guardians."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start the kernel that ``cmd`` describes."""
        program = os.path.expanduser(cmd[0])
        found = shutil.which(program, path=kwargs.get("env", os.environ).get("PATH"))
        if sys.platform != "linux" or kwargs.get("independent") or found is None:
            return await super().launch_kernel(
                cmd, **kwargs
            )  # which says what is wrong with a missing program
        options = self._scrub_kwargs(kwargs)
        process: Any = await asyncio.to_thread(GuardedProcess, [program, *cmd[1:]], options)
        self.process = process
        self.pid = self.pgid = process.pid
        self.cwd = kwargs.get("cwd") or Path.cwd()
        return self.connection_info


class GuardedProcess:
    """A guarded kernel with as much of ``subprocess.Popen`` as is asked of it.

    Its process id is the kernel's own. It has ended when everything that it had started has ended, too.

    Parameters
    ----------
    options
        As jupyter_client gives them to ``launch_kernel``.
    """

    stdin = stdout = stderr = None

    def __init__(self, command: Sequence[str], options: Mapping[str, Any]) -> None:
        told, reports = os.pipe()
        self._reports = os.fdopen(told, encoding="ascii")
        try:
            self._guardian = launch_kernel(guarded(command, reports), pass_fds=[reports], **options)
        finally:
            os.close(reports)
        self._code: int | None = None
        self._looking = threading.Lock()  # several threads ask whether it runs
        line = self._reports.readline()
        if not line:
            raise OSError("the process that starts kernels and ends their programs has ended")
        self.pid = int(line)

    def poll(self) -> int | None:
        """Return the exit code; None while it runs."""
        if self._guardian.poll() is None:
            return None
        with self._looking:
            if self._code is None:
                with self._reports as reports:
                    self._code = int(reports.readline() or -signal.SIGKILL)  # its guardian was killed, and it
            return self._code

    def wait(self) -> int:
        """Wait until it has ended and return the exit code."""
        self._guardian.wait()
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal to it and everything in its process group."""
        if self.poll() is None:
            send_signal(self.pid, number)

    def kill(self) -> None:
        """Kill it and everything that it has started."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)
