"""A zygote's process until it is told what to import.

One may be begun before anything is known of the project, when it is certain that something will run: Python and
IPython are there by the time that the project has been read.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nbtools.errors import UsageError
from nbtools.execution.kernels.processes import guarded
from nbtools.execution.kernels.seeding import with_hash_seed
from nbtools.execution.kernels.warm import zygote
from nbtools.project import open_project

#: What must hold while libraries are loaded: one thread, and no helpers of theirs in the background.
QUIET = {
    **dict.fromkeys(zygote.THREAD_VARIABLES, "1"),
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
_UNLESS_SET = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    # Idle threads of OpenBLAS spin for 2 ** 26 cycles by default, which would slow down what runs beside them.
    "OPENBLAS_THREAD_TIMEOUT": "20",
}
#: What an interpreter may need from its first moment on. Whatever else is set may be a secret of the project.
_FIRST = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LC_[A-Z]+|TZ|TMPDIR|LD_LIBRARY_PATH|LD_PRELOAD|XDG_(CONFIG|CACHE|DATA)_HOME|IPYTHONDIR"
    r"|PYTHON(HOME|HASHSEED|UTF8|IOENCODING|WARNINGS|DONTWRITEBYTECODE|PYCACHEPREFIX|NOUSERSITE|USERBASE|FAULTHANDLER)"
)
_MOST_CHARACTERS = 60_000
_NOTHING_RUNS = {"--cold", "-n", "--dry-run", "-h", "--help"}


@dataclass(frozen=True, slots=True)
class Begun:
    """A zygote's process that has been told of no modules yet.

    Parameters
    ----------
    environment
        What it was given.
    """

    guardian: subprocess.Popen[bytes]
    control: socket.socket
    environment: Mapping[str, str]


def begin(python: str, environment: Mapping[str, str]) -> Begun:
    """Start a zygote's process, and its guardians.

    Raises
    ------
    OSError
        If it cannot be started.
    """
    control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        guardian = subprocess.Popen(
            guarded([python, zygote.__file__, str(theirs.fileno())]),
            pass_fds=[theirs.fileno()],
            env={**_UNLESS_SET, **environment, **QUIET},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    return Begun(guardian, control, environment)


_early: list[Begun] = []


def begin_early(options: Sequence[str]) -> None:
    """Begin a zygote's process for a first run of the project that is here; do nothing in any other case.

    Parameters
    ----------
    options
        Words of the command line.
    """
    if sys.platform != "linux" or _NOTHING_RUNS & set(options):
        return
    try:
        if open_project(Path.cwd()).database.exists():
            return
    except (UsageError, OSError):
        return  # whoever opens it is told
    environment = with_hash_seed(
        {name: value for name, value in os.environ.items() if _FIRST.fullmatch(name)}
    )
    try:
        _early.append(begin(sys.executable, environment))
    except OSError:
        return  # whoever needs one is told
    atexit.register(drop)


def taken(python: str, environment: Mapping[str, str]) -> Begun | None:
    """Return the process that was begun, if it suits what is known now.

    Parameters
    ----------
    environment
        What imports may read.
    """
    suits = python == sys.executable and len(json.dumps(dict(environment))) < _MOST_CHARACTERS
    if not (_early and suits and _early[0].environment.items() <= environment.items()):
        return None
    return _early.pop()


def drop() -> None:
    """End the process that was begun if nobody has taken it."""
    while _early:
        begun = _early.pop()
        begun.control.close()
        begun.guardian.send_signal(signal.SIGTERM)
        begun.guardian.wait()
