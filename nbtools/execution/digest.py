"""Digests of files and folders, and a memo that saves reading what did not change."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

#: Ends the digest of a folder; what stands before it is the digest of its listing.
TREE = ".tree"

#: A file written this recently may be written again within the same tick of the file system's clock.
_CLOCK_GRANULARITY_NS = 100_000_000


@dataclass(frozen=True, slots=True)
class Entry:
    """Something in a folder.

    Parameters
    ----------
    path
        POSIX path within the folder.
    mode
        ``f`` for a file, ``x`` for one that may be executed, ``d`` for an empty folder, ``l`` for a link.
    digest
        Of a file's bytes; of a link where it leads to.
    """

    path: str
    mode: str
    size_bytes: int
    digest: str

    @property
    def is_file(self) -> bool:
        """Whether it has bytes."""
        return self.mode in ("f", "x")


@dataclass(frozen=True, slots=True)
class Measured:
    """Digest and size of a file or folder."""

    digest: str
    size_bytes: int


def file_digest(path: Path | str) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def tree_listing(entries: list[Entry]) -> bytes:
    """Return the canonical listing of a folder, whose digest is the folder's."""
    rows = [[entry.path, entry.mode, entry.size_bytes, entry.digest] for entry in entries]
    return json.dumps(sorted(rows), ensure_ascii=True, separators=(",", ":")).encode()


def read_listing(listing: bytes) -> list[Entry]:
    """Return the entries of a listing."""
    return [Entry(*row) for row in json.loads(listing)]


def listed(folder: Path | str, prefix: str = "") -> Iterator[tuple[str, str, os.stat_result]]:
    """Yield path, mode and status of what lies in ``folder``, at any depth, as of ``Entry``.

    Links are links if they lead to folders, or stay in ``folder``; else they are the files that they lead to.

    Raises
    ------
    OSError
        If a folder cannot be read.
    """
    with os.scandir(folder) as found:
        items = sorted(found, key=lambda item: item.name)
    for item in items:
        path = prefix + item.name
        # Of a link that stays inside, what it leads to is listed anyway.
        if item.is_symlink() and (item.is_dir() or stays_inside(path, os.readlink(item.path))):
            yield path, "l", item.stat(follow_symlinks=False)
        elif item.is_dir():
            yield from listed(item.path, path + "/")
        else:
            status = item.stat()
            yield path, "x" if status.st_mode & stat.S_IXUSR else "f", status
    if not items and prefix:
        yield prefix.rstrip("/"), "d", os.stat(folder)


def stays_inside(path: str, target: str) -> bool:
    """Tell whether a link at ``path`` in a folder leads to somewhere in it, wherever the folder lies.

    ``..`` may only stand at the beginning: what stands before it later could be a link itself.

    >>> stays_inside("a/link", "../b/c"), stays_inside("link", "../b"), stays_inside("link", "/b")
    (True, False, False)
    """
    parts = PurePosixPath(target).parts
    up = len(list(itertools.takewhile("..".__eq__, parts)))
    inside = up < len(PurePosixPath(path).parts) and ".." not in parts[up:]
    return inside and not PurePosixPath(target).is_absolute()


class Memo:
    """Digests of the files of a workspace, remembered by size, times and inode.

    Parameters
    ----------
    known
        What an earlier process remembered: path to (size, mtime, ctime, inode, digest).
    """

    def __init__(self, known: dict[str, tuple[int, int, int, int, str]] | None = None) -> None:
        self._known = known or {}
        self.fresh: dict[str, tuple[int, int, int, int, str]] = {}

    def measure(self, path: Path) -> Measured | None:
        """Return digest and size of the file or folder at ``path``; None if there is neither.

        Raises
        ------
        OSError
            If it cannot be read.
        """
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat.S_ISDIR(status.st_mode):
            entries = list(self.entries(path))
            listing = tree_listing(entries)
            size = sum(entry.size_bytes for entry in entries)
            return Measured(hashlib.sha256(listing).hexdigest() + TREE, size)
        return Measured(self.file(path, status), status.st_size)

    def entries(self, folder: Path) -> Iterator[Entry]:
        """Yield what lies in ``folder``, at any depth."""
        for path, mode, status in listed(folder):
            place = folder / path
            if mode == "l":
                yield Entry(path, mode, 0, os.readlink(place))
            elif mode == "d":
                yield Entry(path, mode, 0, "")
            else:
                yield Entry(path, mode, status.st_size, self.file(place, status))

    def file(self, path: Path, status: os.stat_result) -> str:
        """Return the digest of a file, reading it only if it may have changed.

        Raises
        ------
        OSError
            If it cannot be read; opening what is no file of bytes could take for ever.
        """
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is neither a file nor a folder", str(path))
        key = str(path)
        signature = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        known = self.fresh.get(key) or self._known.get(key)
        if known and known[:4] == signature:
            return known[4]
        # Measured before reading: who writes while this reads may do so within the tick of the file's times.
        age = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns)
        found = file_digest(path)
        if age > _CLOCK_GRANULARITY_NS:
            self.fresh[key] = (*signature, found)
        return found
