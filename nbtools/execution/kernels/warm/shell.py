"""An IPython kernel without sockets: it is told over a stream what to run, and answers there.

It is ipykernel's own kernel, so that what notebooks see and show is the same, driven directly: no event loop
between messages, no threads, no zmq. It runs in a forked process under any interpreter that has ipykernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import importlib
import logging
import os
import signal
import socket
import stat
import sys
import threading
import types
import weakref
from pathlib import Path
from typing import Any

# What ipykernel's debugger needs takes long to import, talks to the terminal, and is of no use here.
sys.modules["debugpy"] = None  # type: ignore[assignment]
try:
    import ipykernel.debugger  # noqa: F401 - before ipkernel imports it
finally:
    del sys.modules["debugpy"]

from ipykernel import jsonutil
from ipykernel.kernelapp import IPKernelApp
from jupyter_client.jsonutil import json_clean, json_default
from jupyter_client.session import Session
from traitlets import Any as AnyTrait

from . import wire, zygote
from .dormant import Dormant, forget_outputs, fork_on_request
from .line import CellStream, Line

# What a shell imports when it begins: better once, here, than in every fork.
for _name in ("completerlib", "debugger", "debugger_backport", "oinspect"):
    with contextlib.suppress(ImportError):
        importlib.import_module(f"IPython.core.{_name}")
with contextlib.suppress(ImportError):
    importlib.import_module("IPython.extensions.storemagic")
    importlib.import_module("sqlite3")

#: What all displays of a notebook may take together, in characters: nobody need take in a larger one.
_LARGEST_DISPLAY = 20_000_000


class LineSession(Session):
    """A Jupyter session whose messages go over the line, whatever socket they are meant for."""

    line = AnyTrait()

    def send(  # noqa: PLR0913, PLR0917 - as Session has it
        self,
        stream: Any,  # noqa: ARG002
        msg_or_type: Any,
        content: Any = None,
        parent: Any = None,
        ident: Any = None,  # noqa: ARG002
        buffers: Any = None,
        track: bool = False,  # noqa: ARG002
        header: Any = None,
        metadata: Any = None,
    ) -> Any:
        """Send a message."""
        message = msg_or_type
        if not isinstance(msg_or_type, dict):
            message = self.msg(msg_or_type, content=content, parent=parent, header=header, metadata=metadata)
        kind = message["header"]["msg_type"]
        shown = {
            "header": {"msg_type": kind},
            "msg_type": kind,
            "content": _without_what_no_notebook_takes(message["content"]),
            "metadata": message.get("metadata") or {},
            "parent_header": {"msg_id": (message.get("parent_header") or {}).get("msg_id", "")},
        }
        try:
            frame = wire.packed_message(shown, buffers or (), json_default)
        except ValueError:  # JSON knows no NaN; Jupyter's own session makes a text of it
            frame = wire.packed_message(json_clean(shown), buffers or (), json_default)
        self.line.send(frame)
        return message


def _without_what_no_notebook_takes(content: Any) -> Any:
    data = content.get("data")
    if not isinstance(data, dict):
        return content
    size = sum(len(value) for value in data.values() if isinstance(value, str | bytes))
    if size <= _LARGEST_DISPLAY:
        return content
    return {**content, "data": {}, "metadata": {}, "left_out": (list(data), size)}


class ShellApp(IPKernelApp):
    """ipykernel's application without sockets, threads and connection files."""

    line: Line

    def parse_command_line(self, argv: Any = None) -> None:
        """There are no arguments, and to find that out would take a quarter of the beginning."""

    def init_connection_file(self) -> None:
        """There is no connection."""

    def init_poller(self) -> None:
        """The operating system tells when the parent has gone."""

    def init_sockets(self) -> None:
        """There are no sockets."""
        self.iopub_socket = object()

    def init_heartbeat(self) -> None:
        """The line says whether the process lives."""

    def write_connection_file(self, **_: Any) -> None:
        """There is no connection."""

    def log_connection_info(self) -> None:
        """There is no connection."""
        self._ports = {}

    def init_crash_handler(self) -> None:
        """A crash ends the process, which is seen outside."""

    def init_io(self) -> None:
        """Send what cells print over the line."""
        sys.stdout = CellStream(self.line, wire.STDOUT, 1)
        sys.stderr = CellStream(self.line, wire.STDERR, 2)
        self.displayhook = types.SimpleNamespace()
        self.patch_io()  # type: ignore[no-untyped-call]

    def init_signal(self) -> None:
        """Between cells nobody is interrupted."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def init_path(self) -> None:
        """Leave to ``begin`` what is the notebook's or the user's own: its folder, and code that may compute."""

    def init_gui_pylab(self) -> None:
        """Leave it to ``begin``."""

    def init_extensions(self) -> None:
        """Leave them to ``begin``."""

    def init_code(self) -> None:
        """Leave it to ``begin``."""

    def begin(self) -> None:
        """Be in the present folder, load the extensions and run the startup files of the user's profile."""
        shell: Any = self.shell
        shell.starting_dir = os.getcwd()
        shell.history_manager.dir_hist[:] = [Path.cwd()]
        super().init_path()  # type: ignore[no-untyped-call]
        super().init_gui_pylab()  # type: ignore[no-untyped-call]
        super().init_extensions()  # type: ignore[no-untyped-call]
        super().init_code()  # type: ignore[no-untyped-call]
        sys.stdout.flush()
        sys.stderr.flush()

    def init_kernel(self) -> None:
        """Create the kernel."""
        here = types.SimpleNamespace(parent_thread=threading.main_thread(), manager=None)
        kind: Any = self.kernel_class
        self.kernel = kind.instance(
            parent=self,
            session=self.session,
            shell_channel_thread=here,
            iopub_socket=self.iopub_socket,
            log=self.log,
            profile_dir=self.profile_dir,
            user_ns=self.user_ns,
        )

    def close(self) -> None:
        """There is nothing to close."""


def _pass_over(*_: Any, **__: Any) -> None:
    """Go on: as in an ordinary kernel that no debugger is attached to, nobody is there to ask."""


class Shell:
    """A kernel and the line over which it is driven, once it has ``begun``."""

    def __init__(self) -> None:
        unconnected = socket.socket(socket.AF_UNIX)
        unconnected.close()
        self.line = Line(unconnected)
        self.control: list[socket.socket] = []
        self.dormant: Dormant | None = None
        self.forking = False
        self.session = LineSession(line=self.line, key=b"")
        ShellApp.line = self.line
        self.app = ShellApp.instance(session=self.session, log_level=logging.CRITICAL)
        self.app.config.HistoryManager.hist_file = ":memory:"  # as nbclient asks of ordinary kernels
        self.app.initialize([])  # type: ignore[no-untyped-call]
        self.kernel = self.app.kernel
        sys.breakpointhook = _pass_over

    def begin(self, connection: socket.socket, control: list[socket.socket]) -> None:
        """Serve ``connection`` in this process, which may be a fork of the one that has made this."""
        self.line.reopen(connection)
        self.control = control
        self.context = contextvars.copy_context()
        sys.modules["__main__"] = self.kernel.shell.user_module
        settle_matplotlib()
        self.app.begin()

    def serve(self) -> dict[str, Any]:
        """Do what is asked until the other side has gone, or this is to become something else; return what."""
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self._own = zygote.descriptors()
        self._known = set(sys.modules)
        self._finalizers = len(_finalizers())
        while True:
            request = self.loop.run_until_complete(self._task())
            if request["do"] == "checkpoint":
                request = self._checkpoint()
            if request:
                return request

    def _task(self) -> asyncio.Task[dict[str, Any]]:
        """Return what serves; context variables that cells set outlive it."""
        if sys.version_info < (3, 11):  # noqa: UP036 - a kernel may run on an older Python than nbtools
            return self.loop.create_task(self._serve())
        return self.loop.create_task(self._serve(), context=self.context)

    def _checkpoint(self) -> dict[str, Any]:
        """Leave a dormant fork behind, in place of the one before; what it is woken for is returned there."""
        if self.dormant:
            self.dormant.end()
        self.dormant = None
        if self._why_not_forked():
            return {}
        mine, its = socket.socketpair()
        self.forking = True
        kernel = os.getpid()
        between = os.fork()
        if between == 0 and os.fork():
            os._exit(0)  # it becomes the zygote's child: a cell that waits for its own must not wait for it
        self.forking = False
        if between:
            os.waitpid(between, 0)
            its.close()
            self.dormant = Dormant(int(mine.recv(32)), mine)
            return {}
        mine.close()
        its.sendall(str(os.getpid()).encode())
        place = its.recv(4096).decode()  # nothing once the kernel has ended
        if not place:
            os._exit(0)
        self.line.connection.close()
        file = fork_on_request(place, its, kernel)
        asyncio.set_event_loop(asyncio.new_event_loop())  # the other one's is the other one's
        return {"do": "keep", "connection_file": file}

    async def _serve(self) -> dict[str, Any]:
        while True:
            request = await self.line.next(self.loop)
            if request is None:
                return {"do": "stop"}
            if request["do"] == "execute":
                await self._execute(request)
            elif request["do"] == "comm":
                self._tell_widget(request)
            elif request["do"] == "branch":
                why = self._why_not_shared()
                self.session.send(None, "branch_reply", {"refused": why})
                if not why:
                    return dict(request)
            elif request["do"] in ("stop", "keep", "checkpoint"):
                return dict(request)

    def _why_not_forked(self) -> str:
        """Return what this process holds that a fork of it would not have, or would share."""
        if why := zygote.why_not_forked():
            return why
        if asyncio.all_tasks(self.loop) - {asyncio.current_task(self.loop)}:
            return "it holds tasks that have not ended"
        if any(map(_is_shared, zygote.descriptors() - self._own)):
            return "it holds open files or connections"
        return ""

    def _why_not_shared(self) -> str:
        """Return why several forks cannot go on from here, each as if it were alone."""
        if len(_finalizers()) > self._finalizers:
            return "it holds what is removed at the end, such as a temporary folder"
        return self._why_not_forked()

    def _tell_widget(self, request: dict[str, Any]) -> None:
        message = {"header": {"msg_id": "", "msg_type": request["kind"]}, "metadata": {}, "buffers": []}
        handler = getattr(self.kernel.comm_manager, request["kind"])
        handler(None, [], {**message, "content": request["content"]})

    async def _execute(self, request: dict[str, Any]) -> None:
        parent = {
            "header": {"msg_id": request["id"], "msg_type": "execute_request", "session": "", "username": ""},
            "metadata": {"cellId": request.get("cell", "")},
            "content": {"code": request["code"]},
        }
        self.kernel.set_parent([], parent)
        self.kernel.shell.set_parent(parent)
        reply: dict[str, Any]
        self.kernel.pre_handler_hook()
        try:
            reply = await self.kernel.do_execute(
                request["code"], False, store_history=True, allow_stdin=False, cell_id=request.get("cell")
            )
        except BaseException as error:  # noqa: BLE001 - an interrupt between the cell's last line and here
            reply = {"status": "error", "ename": type(error).__name__, "evalue": str(error), "traceback": []}
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        if not self.line.own():
            os._exit(
                int(reply["status"] != "ok")
            )  # a fork that the cell made must not serve beside its parent
        sys.stdout.flush()
        sys.stderr.flush()
        if modules := self._imported():
            self.session.send(None, "imported", {"modules": modules})
        self.session.send(None, "execute_reply", _clean(reply), parent=parent)

    def _imported(self) -> list[str]:
        """Return what the last cell has imported of packages that this process had from the beginning."""
        if len(sys.modules) == len(self._known):
            return []
        packages = {name.partition(".")[0] for name in self._known}
        new = [name for name in list(sys.modules) if name not in self._known]  # a thread may import meanwhile
        self._known.update(new)
        return [name for name in new if name.partition(".")[0] in packages and _is_installed(name)]


class LateEnvironment:
    """Variables that come when they are needed: those of the stage's MLflow run.

    The run is made beside the first cells, because that takes longer than many of them do. A kernel asks for
    it when a cell imports MLflow or starts a program that may; at once, if MLflow has been imported already.
    """

    _PROGRAMS = frozenset(
        ["subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty"]
    )

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._asking = threading.Lock()
        sys.addaudithook(self._hook)

    def begin(self) -> None:
        """Ask from now on when it is needed."""
        self._asking = threading.Lock()
        if "mlflow" in sys.modules and self._asking.acquire():
            self._ask()

    def end(self) -> None:
        """Ask no more."""
        self._asking.acquire(blocking=False)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        needed = event in self._PROGRAMS or (
            event == "import" and str(arguments[0]).partition(".")[0] == "mlflow"
        )
        if self._shell.forking:
            return  # its own fork is no program
        if needed and self._shell.line.own() and self._asking.acquire(blocking=False):
            self._ask()  # the lock is never given back: once is enough

    def _ask(self) -> None:
        self._shell.session.send(None, "environment_request", {})
        answer = self._shell.line.answer()
        os.environ.update((answer or {}).get("variables", {}))


def _clean(reply: dict[str, Any]) -> Any:
    clean: Any = jsonutil.json_clean
    return clean(reply)


def settle_matplotlib() -> None:
    """Have figures shown at the end of a cell: modules that were imported without a shell did not arrange it."""
    if "matplotlib_inline.backend_inline" in sys.modules:
        sys.modules["matplotlib_inline.backend_inline"]._enable_matplotlib_integration()
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].install_repl_displayhook()


def _is_shared(descriptor: int) -> bool:
    """Tell whether a fork would share more than memory with this process: a connection, or a place in a file."""
    try:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        return False
    if regular:
        # Of a file that is mapped into memory nobody minds the place.
        return path not in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    return path.startswith(("socket:", "pipe:"))


def _is_installed(name: str) -> bool:
    with contextlib.suppress(Exception):  # whatever lies there, it need be no module
        return "-packages" in str(vars(sys.modules[name])["__spec__"].origin)
    return False


def _finalizers() -> dict[Any, Any]:
    registry: dict[Any, Any] = weakref.finalize._registry  # type: ignore[attr-defined]
    return registry


#: A shell that was made before this process was forked, if there is one.
_ready: list[Shell] = []


def make_ready() -> None:
    """Make a shell, so that no fork of this process needs to; from now on all are to be driven over a line."""
    if not _ready:
        _ready.append(Shell())


def main(connection: socket.socket, control: list[socket.socket]) -> None:
    """Serve until the other side has gone; asked to, become what others are forked from, state and all.

    Parameters
    ----------
    control
        Where forks may be asked for; empty if nobody will.
    """
    shell = _ready.pop() if _ready else Shell()
    shell.begin(connection, control)
    late = LateEnvironment(shell)
    _begin(shell, late)
    request = shell.serve()
    if request["do"] == "keep":
        late.end()
        shell.context.run(be_kept, shell, request["connection_file"], request.get("before", ""))
    if request["do"] != "branch":
        return

    def branch(descriptors: list[int], job: dict[str, Any]) -> int:
        line, stdout, stderr = descriptors
        zygote.take_over(stdout, stderr, job["environment"])
        zygote.settle_threads(job)
        shell.line.reopen(socket.socket(fileno=line))
        _begin(shell, late)
        shell.serve()
        zygote.finish()
        return 0

    late.end()
    zygote.Zygote(control[0], branch, zygote.why_not_forked).run()


def be_kept(shell: Shell, connection_file: str, before: str) -> None:
    """Become an ordinary kernel with the variables of this one, until somebody shuts it down.

    Parameters
    ----------
    before
        Where forks with the state from before the last cell are asked for, if there is such a state.
    """
    forget_outputs()
    dormant = 0
    if shell.dormant and before and shell.dormant.wake(before):
        dormant = shell.dormant.pid
    session, interactive = shell.session, shell.kernel.shell
    type(shell.kernel).clear_instance()
    ShellApp.clear_instance()
    app: Any = IPKernelApp.instance(
        connection_file=connection_file, transport="ipc", log_level=logging.CRITICAL
    )
    app.log.handlers.clear()  # one of them writes to a stream of the other kernel's
    app.initialize([])
    # It found the shell that was there, which must ask the new kernel for input from now on.
    interactive.parent = interactive.kernel = app.kernel
    sys.breakpointhook = sys.__breakpointhook__
    session.send(None, "keep_reply", {"before": dormant})
    shell.line.connection.close()
    app.start()


def _begin(shell: Shell, late: LateEnvironment) -> None:
    late.begin()
    shell.session.send(None, "ready", {"language_info": shell.kernel.language_info})
