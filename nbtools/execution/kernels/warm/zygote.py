"""A process that imports and forks, and never computes.

It imports packages from site-packages, one after the other, and forks a kernel whenever it is asked and
what the kernel needs is there. Rules, each learnt from an experiment: only imports before the fork (one fit
with two OpenMP threads makes every child hang); no project code, which may change; one thread; nothing of
zmq's open. Standard library only until the imports begin.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import gc
import importlib
import json
import os
import random
import re
import select
import signal
import socket
import sys
import time
import types
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LARGEST_REQUEST = 1 << 17
_KEEPING_S = 0.5
_TRIAL_S = 60
#: Packages that do not survive a fork, or hold threads and devices after their import.
NEVER_FORKED = frozenset(
    [
        "cupy",
        "dask",
        "distributed",
        "grpc",
        "jax",
        "jaxlib",
        "keras",
        "lightning",
        "numba",
        "pyspark",
        "polars",
        "ray",
        "tensorflow",
        "torch",
    ]
)
#: Read when libraries are loaded; a kernel gets its own numbers after the fork.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


class Zygote:
    """Imports what it is told to, forks when asked, and tells how its children end.

    Parameters
    ----------
    live
        What a fork does with its life, given its descriptors and what it was told of itself.
    why_not
        Returns why this process must not be forked, or nothing.
    make_ready
        Prepares for kernels that are driven directly, once there has been one.
    """

    def __init__(
        self,
        control: socket.socket,
        live: Callable[[list[int], dict[str, Any]], int],
        why_not: Callable[[], str],
        make_ready: Callable[[], None] = lambda: None,
    ) -> None:
        self.why_not = why_not
        self.make_ready = make_ready
        self.is_direct = self.is_ready = False
        self.control = control
        self.modules: list[str] = []  # to be imported before there are forks that need them
        self.live = live
        self.children: dict[int, int] = {}
        self.requests: list[tuple[dict[str, Any], list[int]]] = []
        self.asked: list[str] = []  # what kernels have come to import: tried out first
        self.trial = 0
        self.tried: list[str] = []
        self.harmless: list[str] = []
        self.kept: dict[int, float] = {}  # until when a kernel may outlive whoever started this
        self.wakeup, waker = os.pipe()
        os.set_blocking(waker, False)
        os.set_blocking(self.wakeup, False)
        self.waker = waker

    def run(self) -> None:
        """Serve until whoever started this has gone."""
        gc.disable()  # what is imported stays; a collection before a fork would only touch the shared pages
        signal.set_wakeup_fd(self.waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self.leave())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        while True:
            busy = self.requests or self.modules or self.harmless or (self.is_direct and not self.is_ready)
            self.serve(0 if busy else None)
            if self.modules:
                self.bring(self.modules[0])
                self.modules.pop(0)
            elif self.harmless:
                self.bring(self.harmless.pop())
            elif self.is_direct and not self.is_ready:
                self.is_ready = True
                with contextlib.suppress(BaseException):  # every fork will try it anew, and tell
                    self.make_ready()
            elif self.asked and not self.trial:
                self.try_out()

    def bring(self, name: str) -> None:
        """Import a module; one that cannot be imported is the notebook's own affair."""
        started = time.monotonic()
        with contextlib.suppress(BaseException):
            importlib.import_module(name)
        self.tell(
            {"event": "imported", "module": name, "s": time.monotonic() - started, "threads": threads()}
        )

    def serve(self, timeout: float | None) -> None:
        """Take in what has arrived, and fork those whose modules are there."""
        ready, _, _ = select.select([self.control.fileno(), self.wakeup], [], [], timeout)
        if self.wakeup in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self.wakeup, 4096)
            self.reap()
        if self.control.fileno() in ready:
            request, descriptors = self.receive()
            if "keep" in request:
                self.kept[request["keep"]] = time.monotonic() + request["seconds"]
            elif "modules" in request:
                os.environ.update(request["environment"])
                _given.update(os.environ)
                self.modules += request["modules"]
            elif "import" in request:
                self.asked += [name for name in request["import"] if name not in sys.modules]
            else:
                self.requests.append((request, descriptors))
        waiting = []
        for request, descriptors in self.requests:
            if not set(request["needs"]) & set(self.modules):
                self.fork(request, descriptors)
            else:
                waiting.append((request, descriptors))
        self.requests = waiting

    def receive(self) -> tuple[dict[str, Any], list[int]]:
        """Return the next request and the descriptors that came with it."""
        descriptors = array.array("i")
        data, extra, _, _ = self.control.recvmsg(
            _LARGEST_REQUEST, socket.CMSG_SPACE(8 * descriptors.itemsize)
        )
        if not data:
            self.leave()
        for level, kind, payload in extra:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
        return json.loads(data), list(descriptors)

    def tell(self, event: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
        """Send an event."""
        rights = (
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        )
        try:
            self.control.sendmsg([json.dumps(event).encode()], rights)
        except OSError:
            self.leave()

    def leave(self) -> NoReturn:
        """End, but not before the kernels that are kept; the guardians end everything that kernels have started."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with contextlib.suppress(OSError):
            self.control.close()
        while self.kept:
            spared = set(self.kept).union(*map(_descendants, self.kept))
            for pid in _descendants(os.getpid()) - spared:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                while pid := os.waitpid(-1, os.WNOHANG)[0]:
                    self.kept.pop(pid, None)
            now = time.monotonic()
            self.kept = {pid: until for pid, until in self.kept.items() if until > now}
            time.sleep(_KEEPING_S)
        os._exit(0)

    def reap(self) -> None:
        """Tell how children have ended; what a kernel left behind is a child here, too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.kept.pop(pid, None)
            if pid == self.trial:
                self.trial = 0
                self.harmless = self.tried[::-1] if status == 0 else []
            number = self.children.pop(pid, None)
            if number is not None:
                self.tell({"event": "exited", "id": number, "code": os.waitstatus_to_exitcode(status)})

    def try_out(self) -> None:
        """Import in a fork what kernels have come to import: the fork passes if it could still be forked."""
        self.tried, self.asked = self.asked, []
        parent = os.getpid()
        with contextlib.suppress(OSError):  # there is no room for a fork now
            self.trial = os.fork()
        if os.getpid() == parent:
            return
        end_with_parent(parent)
        signal.set_wakeup_fd(-1)
        signal.alarm(_TRIAL_S)  # ends it, unless an import is in the way: then it is nobody's loss
        before = _what_forks_share()
        for name in self.tried:
            with contextlib.suppress(BaseException):
                importlib.import_module(name)
        harmful = self.why_not() or NEVER_FORKED & sys.modules.keys() or _what_forks_share() != before
        os._exit(int(bool(harmful)))

    def fork(self, request: dict[str, Any], descriptors: list[int]) -> None:
        """Fork a kernel and tell its process id."""
        why = self.why_not()
        if self.is_ready and not request["direct"]:
            why = "it is prepared for kernels that are driven directly"
        if why:
            self.tell({"event": "refused", "id": request["id"], "why": why})
            _close(descriptors)
            return
        _thread_pools()
        gc.freeze()
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self.tell(
                {"event": "refused", "id": request["id"], "why": os.strerror(error.errno or errno.EAGAIN)}
            )
            _close(descriptors)
            return
        if pid == 0:
            self.become_kernel(descriptors, parent)
        self.children[pid] = request["id"]
        self.is_direct = request["direct"]
        watched = os.pidfd_open(pid)
        self.tell({"event": "forked", "id": request["id"], "pid": pid}, (watched,))
        _close([*descriptors, watched])

    def become_kernel(self, descriptors: list[int], parent: int) -> None:
        """Turn this fork into a kernel; never returns."""
        code = 1
        try:
            end_with_parent(parent)
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self.control.close()
            _close(
                [
                    self.wakeup,
                    self.waker,
                    *(item for _, others in self.requests for item in others if item not in descriptors),
                ]
            )
            gc.enable()
            code = self.live(descriptors, _job(descriptors[0]))
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except BaseException:  # noqa: BLE001 - whatever it was, it goes to the kernel's log
            sys.__excepthook__(*sys.exc_info())
        finally:
            with contextlib.suppress(BaseException):
                sys.stderr.flush()
            os._exit(code)


def _job(line: int) -> dict[str, Any]:
    """Return the first message on a line: what the fork is to be."""
    from . import wire

    frames = wire.Frames()
    # Byte by byte, so that nothing is taken that the kernel should read.
    while data := os.read(line, 1):
        for _, payload in frames.add(data):
            job: dict[str, Any] = wire.unpacked_message(payload)[0]
            return job
    return sys.exit(0)


#: The environment as this process, or the one that it was forked from, was given it.
_given: dict[str, str] = {}


def take_over(stdout: int, stderr: int, environment: dict[str, str]) -> None:
    """Print to the given pipes, read nothing, and have the given environment."""
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    _close([stdout, stderr])
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    # What imports, and cells that are shared, have set themselves stays set.
    own = {name: value for name, value in os.environ.items() if _given.get(name) != value}
    os.environ.clear()
    os.environ.update({**environment, **own})
    _given.clear()
    _given.update(environment)


def _live(descriptors: list[int], job: dict[str, Any]) -> int:
    """Become the kernel that ``job`` describes, and serve until it is told to stop."""
    line, stdout, stderr, *control = descriptors
    connection = socket.socket(fileno=line)
    take_over(stdout, stderr, job["environment"])
    os.chdir(job["cwd"])
    sys.dont_write_bytecode = bool(job["environment"].get("PYTHONDONTWRITEBYTECODE"))
    sys.path[:] = [*job["path"], *sys.path]
    importlib.invalidate_caches()
    _settle(job)
    if job["mode"] == "kernel":
        connection.close()
        sys.argv = ["ipykernel_launcher", *job["arguments"]]
        _with_debugger()
        # 1 stands for "no terminal, and nobody to watch": Linux tells when the parent has gone.
        seed = importlib.import_module("_nbtools_warm.seeding").seed
        importlib.import_module("_nbtools_warm.launch").launch(seed, parent_handle=1)
        finish()
        return 0
    from . import shell

    sys.argv = ["ipykernel_launcher"]
    shell.main(connection, [socket.socket(fileno=item) for item in control])
    finish()
    return 0


def _with_debugger() -> None:
    """Give ipykernel back what ``shell`` has spared it: JupyterLab's debugger works in this kernel."""
    import ipykernel.debugger
    import ipykernel.ipkernel

    debugger: Any = importlib.reload(ipykernel.debugger)
    users: Any = ipykernel.ipkernel  # before version 7, it keeps names of its own
    users.Debugger = debugger.Debugger
    users._is_debugpy_available = debugger._is_debugpy_available


def _settle(job: dict[str, Any]) -> None:
    """Give the fork the random numbers of its stage, and threads of its own."""
    importlib.import_module("_nbtools_warm.seeding").seed()
    sys.modules["__main__"] = types.ModuleType("__main__")
    if job["to_be_forked"]:
        # Threads of OpenMP are lost in a fork, and it waits for them there. Libraries that come later read this.
        _given["OMP_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
    settle_threads(job)


def settle_threads(job: dict[str, Any]) -> None:
    """Give libraries as many threads as the environment says, or there are processors."""
    for library in _thread_pools():
        names = {"openmp": THREAD_VARIABLES[:1], "blas": THREAD_VARIABLES[:4]}[library.user_api]
        wanted = next((os.environ[name] for name in names if os.environ.get(name, "").isdigit()), "")
        library.set_num_threads(int(wanted or job["processors"]))


def why_not_forked() -> str:
    """Return what this process holds that would be missing in a fork of it, or hang there; nothing if it may be forked."""
    if sys.modules["threading"].active_count() > 1:
        return "it holds threads"
    if found := sorted(NEVER_FORKED & sys.modules.keys()):
        return f"it has imported {found[0]}"
    arrow: Any = sys.modules.get("pyarrow")
    # Arrow starts its threads anew in a fork. OpenMP does not, and nobody can tell its threads from Arrow's.
    known = arrow.cpu_count() + arrow.io_thread_count() if arrow and not _may_use_openmp() else 0
    return "it holds threads" if threads() - 1 > known else ""


def _may_use_openmp() -> bool:
    """Tell whether there may be threads of OpenMP: there are none of scikit-learn's where it may have just one."""
    alone = {item.filepath for item in _thread_pools() if item.num_threads == 1}
    maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    loaded = set(re.findall(r"/\S*/lib(?:gomp|omp|iomp5)\b\S*", maps))
    return any("scikit_learn" not in path or path not in alone for path in loaded)


def _why_threads() -> str:
    return "the process has threads" if threads() > 1 else ""


_found_pools: dict[int, list[Any]] = {}


def _thread_pools() -> list[Any]:
    """Return the libraries that have been loaded and use threads; looked for once for all forks."""
    if "threadpoolctl" not in sys.modules:
        return []
    if len(sys.modules) not in _found_pools:
        _found_pools.clear()
        _found_pools[len(sys.modules)] = sys.modules["threadpoolctl"].ThreadpoolController().lib_controllers
    return _found_pools[len(sys.modules)]


def finish() -> None:
    """End as an interpreter does: threads are waited for, exit handlers run, streams are flushed."""
    import atexit
    import threading

    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()


def descriptors() -> set[int]:
    """Return what this process has open."""
    listed = {int(name) for name in os.listdir("/proc/self/fd")}
    return {descriptor for descriptor in listed if _is_open(descriptor)}  # but for that of the list


def _what_forks_share() -> list[Any]:
    """Return what an import may change for every later kernel, whether that imports the module or not."""
    umask = os.umask(0o077)
    os.umask(umask)
    numpy: Any = sys.modules.get("numpy.random")
    return [
        descriptors(),
        dict(os.environ),
        os.getcwd(),
        umask,
        [signal.getsignal(number) for number in sorted(signal.valid_signals())],
        sys.getrecursionlimit(),
        list(sys.path),
        random.getstate(),
        repr(numpy.get_state()) if numpy else "",
        len(weakref.finalize._registry),  # type: ignore[attr-defined]
        _children(),
    ]


def _children() -> str:
    try:
        return Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
    except OSError:
        return ""


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def threads() -> int:
    """Return how many threads this process has."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 0


def end_with_parent(parent: int) -> None:
    """Have Linux kill this process when ``parent``, which forked it, ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _descendants(pid: int) -> set[int]:
    """Return the processes below ``pid``."""
    parent_of = importlib.import_module("_nbtools_warm.guardian").parent_of
    below: dict[int, list[int]] = {}
    for other in map(int, filter(str.isdigit, os.listdir("/proc"))):
        below.setdefault(parent_of(other), []).append(other)
    found: set[int] = set()
    pending = [pid]
    while pending:
        children = below.get(pending.pop(), [])
        found.update(children)
        pending += children
    return found


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def main(arguments: list[str]) -> None:
    """Begin: the control socket's descriptor. What to import is told over it."""
    (control,) = arguments
    _given.update(os.environ)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if not hasattr(os, "pidfd_open"):
        sys.exit("this Python knows no pidfd")
    for hook in ("mlflow_run", "seeding"):
        importlib.import_module(f"_nbtools_warm.{hook}").install()
    from . import shell

    control_socket = socket.socket(fileno=int(control))
    Zygote(control_socket, _live, _why_threads, shell.make_ready).run()


if __name__ == "__main__":
    # Under a name of its own, so that a notebook's `import wire` never finds ours.
    here = Path(__file__).parent
    package = types.ModuleType("_nbtools_warm")
    package.__path__ = [str(here), str(here.parent)]
    sys.modules["_nbtools_warm"] = package
    sys.path[:] = [folder for folder in sys.path if folder and Path(folder) != here]
    importlib.import_module("_nbtools_warm.zygote").main(sys.argv[1:])
