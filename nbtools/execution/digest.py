"""Digests of files and folders, and a memo that saves reading what did not change."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Ends the digest of a folder; what stands before it is the digest of its listing.
TREE = ".tree"

#: A file written this recently may be written again within the same tick of the file system's clock.
_CLOCK_GRANULARITY_NS = 100_000_000


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in a folder: POSIX path within it, mode (``f`` or ``x``; ``d`` for an empty folder), size, digest."""

    path: str
    mode: str
    size_bytes: int
    digest: str


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
        """Yield what lies in ``folder``, at any depth; links are followed to files only."""
        for place, names, files in os.walk(folder):
            names.sort()
            base = Path(place)
            relative = base.relative_to(folder).as_posix()
            prefix = "" if relative == "." else relative + "/"
            if not names and not files and prefix:
                yield Entry(prefix.rstrip("/"), "d", 0, "")
            for name in sorted(files):
                path = base / name
                status = os.stat(path)
                mode = "x" if status.st_mode & stat.S_IXUSR else "f"
                yield Entry(prefix + name, mode, status.st_size, self.file(path, status))

    def file(self, path: Path, status: os.stat_result) -> str:
        """Return the digest of a file, reading it only if it may have changed."""
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
