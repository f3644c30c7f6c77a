"""Writing that is never half done."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nbtools.errors import OperationError
from nbtools.execution.digest import stays_inside

_KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}


def write_atomically(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write ``content`` to ``path`` so that a reader sees all of it or what was there before."""
    if durable:
        make_folder(path.parent)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        Path(name).chmod(0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder, and those that it lies in, so that their names survive a power cut."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def unfit(path: Path) -> str:
    """Return what at ``path``, or below it, could not be brought back from its bytes, in words; else an empty text."""
    places = [path]
    if path.is_dir() and not path.is_symlink():
        for folder, names, files in os.walk(path):
            places += [Path(folder, name) for name in (*names, *files)]
    for place in places:
        mode = place.lstat().st_mode
        if stat.S_ISLNK(mode):
            target = os.readlink(place)
            if place == path or not stays_inside(place.relative_to(path).as_posix(), target):
                return f"a link to {target}"
        elif not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            return f"{_KINDS.get(stat.S_IFMT(mode), 'a device')} ({place.name})"
    return ""


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn an OSError of the block into an error that says what to do.

    Raises
    ------
    OperationError
        Instead of the OSError.
    """
    try:
        yield
    except OSError as error:
        raise operation_error(what, error) from error


def operation_error(what: str, error: OSError) -> OperationError:
    """Return the error for a failed file operation, in words."""
    fixes = {
        errno.ENOSPC: "the disk is full: free some space and run again; nothing is lost",
        errno.EDQUOT: "your quota is used up: free some space and run again; nothing is lost",
        errno.EROFS: "the project lies on a read-only file system: copy it to a place you may write to",
        errno.EACCES: "you may not write there: check the owner and the permissions",
        errno.EPERM: "you may not write there: check the owner and the permissions",
    }
    reason = error.strerror or str(error)
    # Of two files, the second is the one that was to be written.
    where = str(error.filename2 or error.filename or "")
    return OperationError.of(f"{what}: {reason}", where=where, fix=fixes.get(error.errno or 0, ""))


def _umask() -> int:
    # There is no way to read the umask of a process without setting it, except from Linux's /proc.
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0o022
    for line in status.splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o022
