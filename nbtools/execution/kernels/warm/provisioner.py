"""Warm kernels for everything that starts kernels with jupyter_client: JupyterLab, nbclient, nbconvert, papermill.

A kernelspec asks for them in its metadata, ``{"kernel_provisioner": {"provisioner_name": "nbtools-warm"}}``, or the
variable ``JUPYTER_DEFAULT_PROVISIONER_NAME=nbtools-warm`` does so for all. What is imported ahead stands in
``c.WarmProvisioner.modules`` of Jupyter's configuration, or in a variable. What is forked is ipykernel, reached
over its sockets as ever. Whatever cannot be forked, or not safely, is started as an ordinary kernel: in a run as a
guarded one, elsewhere as jupyter_client does it.
"""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets import List, Unicode, default

from nbtools.execution.kernels import launch
from nbtools.execution.kernels.guarded import GuardedProvisioner
from nbtools.execution.kernels.interpreter import UnusablePython, describe, key_of
from nbtools.execution.kernels.processes import send_signal
from nbtools.execution.kernels.warm.forked import ForkedProcess
from nbtools.execution.kernels.warm.forker import Cold, ForkJob
from nbtools.execution.kernels.warm.imports import MODULES_VARIABLE, shadows, worth_importing
from nbtools.execution.kernels.warm.nursery import Zygote

#: Variables that differ from kernel to kernel, and that no import reads.
_OF_ONE_KERNEL = re.compile(r"JPY_|MLFLOW_|NBTOOLS_|PAPERMILL_|PYTHONPATH$|PWD$|OLDPWD$|_$")
#: What the command of a kernel is, after its interpreter, if it can be forked.
_PROGRAMS = (["-m", "ipykernel_launcher"], ["-m", "ipykernel"], [str(Path(launch.__file__))])
_HARMLESS = ["-Xfrozen_modules=off"]


class WarmProvisioner(GuardedProvisioner):
    """Forks a kernel from a process that has imported what notebooks need, or starts an ordinary one."""

    modules = List(
        Unicode(),
        help=f"""Modules to import ahead, in this order; default: those that the variable {MODULES_VARIABLE} names,
        between commas. Those that do not survive a fork are passed over.""",
    ).tag(config=True)

    @default("modules")
    def _modules_default(self) -> list[str]:
        return [name for name in os.environ.get(MODULES_VARIABLE, "").split(",") if name]

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start the kernel that ``cmd`` describes."""
        try:
            process: Any = await asyncio.to_thread(self._fork, cmd, kwargs)
        except (Cold, UnusablePython) as reason:
            self.log.debug("an ordinary kernel is started: %s", reason)
            in_a_run = hasattr(self.parent, "start_warm")
            ordinary = GuardedProvisioner if in_a_run else LocalProvisioner
            return await ordinary.launch_kernel(self, cmd, **kwargs)
        self.process = process
        self.pid = self.pgid = process.pid
        self.cwd = kwargs.get("cwd") or Path.cwd()
        return self.connection_info

    def _fork(self, cmd: Sequence[str], kwargs: Mapping[str, Any]) -> Child:
        python, arguments = _split(cmd)
        if kwargs.get("independent"):
            raise Cold("it is to outlive whoever starts it")
        environment = {**kwargs["env"], "JPY_PARENT_PID": str(os.getpid())}
        cwd = os.path.abspath(kwargs.get("cwd") or os.curdir)
        path = tuple(filter(None, environment.get("PYTHONPATH", "").split(os.pathsep)))
        job = ForkJob((), environment, cwd, path, arguments=arguments)
        start = getattr(self.parent, "start_warm", None) or self._zygote(python, job).start
        out, err = (_descriptor(kwargs.get(name), usual) for name, usual in (("stdout", 1), ("stderr", 2)))
        return Child(start(job, out, err))

    def _zygote(self, python: str, job: ForkJob) -> Zygote:
        zygote = shared_zygotes().zygote(python, self.modules, job.environment)
        shadowed = shadows([Path(folder) for folder in (job.cwd, *job.path)])
        if own := [name for name in zygote.modules if shadowed(name.partition(".")[0])]:
            raise Cold(f"{own[0]} is another module in {job.cwd} or on PYTHONPATH")
        return zygote


class Child:
    """A forked kernel with as much of ``subprocess.Popen`` as jupyter_client asks of it."""

    stdin = stdout = stderr = None

    def __init__(self, process: ForkedProcess) -> None:
        self.pid = process.pid
        self._process = process

    def poll(self) -> int | None:
        """Return the exit code; None while it runs."""
        if self._process.running():
            return None
        code = self._process.exit_code()
        return -signal.SIGKILL if code is None else code  # nobody knows it if the zygote ended first

    def wait(self) -> int:
        """Wait until it has ended and return the exit code."""
        self._process.await_end()
        code = self.poll()
        assert code is not None
        self._process.close()
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal to it and everything that it has started."""
        if self._process.running():
            send_signal(self.pid, number)

    def kill(self) -> None:
        """Kill it and everything that it has started."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)


class SharedZygotes:
    """The zygotes of this process: one for all that depends on the same things."""

    def __init__(self) -> None:
        self._zygotes: dict[str, Zygote] = {}
        self._facts: dict[str, str] = {}
        self._changing = threading.Lock()

    def zygote(self, python: str, modules: Sequence[str], environment: Mapping[str, str]) -> Zygote:
        """Return a zygote that has imported, or imports, what can be imported ahead of ``modules``.

        It is a new one if the interpreter, a package that is installed there, or a variable that imports may read
        has changed since.

        Raises
        ------
        Cold
            If there can be none on this system.
        UnusablePython
            If the interpreter does not run.
        """
        if sys.platform != "linux":
            raise Cold("kernels are forked on Linux only")
        with self._changing:
            interpreter, learnt = describe(python, self._facts)
            self._facts.update(learnt)
            wanted = worth_importing(modules, interpreter.packages, lambda _: False)
            read = {name: value for name, value in environment.items() if not _OF_ONE_KERNEL.match(name)}
            depends_on = [python, self._facts[key_of(python)], wanted, sorted(read.items())]
            key = hashlib.sha256(json.dumps(depends_on).encode()).hexdigest()
            found = self._zygotes.get(key)
            if found is None or found.lost:
                self._retire()
                try:
                    found = Zygote(python, wanted, read)
                except OSError as error:
                    raise Cold(f"no zygote can be started: {error}") from error
                self._zygotes[key] = found
            return found

    def _retire(self) -> None:
        """End the zygotes that no kernel depends on: what they have imported is out of date, or was for others."""
        for key in [key for key, item in self._zygotes.items() if item.lost or item.is_idle()]:
            self._zygotes.pop(key).close()

    def close(self) -> None:
        """End all zygotes, and with them their kernels."""
        with self._changing:
            for item in self._zygotes.values():
                item.close()
            self._zygotes.clear()


@cache
def shared_zygotes() -> SharedZygotes:
    """Return the zygotes of this process."""
    shared = SharedZygotes()
    atexit.register(shared.close)
    return shared


def _split(cmd: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Return the interpreter and the arguments of a command that starts ipykernel.

    Raises
    ------
    Cold
        If it starts something else.
    """
    python, *words = cmd
    while words[:1] == _HARMLESS:
        words = words[1:]
    for program in _PROGRAMS:
        if words[: len(program)] == program:
            return os.path.abspath(os.path.expanduser(python)), tuple(words[len(program) :])
    raise Cold("it is no ipykernel")


def _descriptor(given: Any, usual: int) -> int:
    """Return the descriptor that ``Popen`` would take for an argument of its."""
    if given is None:
        return usual
    if isinstance(given, int):
        if given < 0:
            raise Cold("its output is to go through a pipe")
        return given
    return int(given.fileno())
