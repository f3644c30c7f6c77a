"""The content-addressed store: bytes go in by digest and come out only if they still have it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from nbtools.errors import DataError
from nbtools.execution.digest import (
    TREE,
    Entry,
    Measured,
    Memo,
    file_digest,
    listed,
    read_listing,
    stays_inside,
    tree_listing,
)
from nbtools.execution.files import make_folder, sync_folder, write_atomically

_CHUNK_BYTES = 1 << 20
#: ioctl(2) request that makes a file share another's blocks until one of them is written to.
_FICLONE = 0x40049409
_NAME = re.compile(rf"[0-9a-f]{{62}}({re.escape(TREE)})?")


class Store:
    """Objects under ``folder``, each a file named after its SHA-256.

    A folder is stored as its listing (named ``….tree``) and the files it lists. Workspace files are
    never hard-linked to objects: whoever edits one must not change the other.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, digest: str) -> Path:
        """Return where the object of ``digest`` lies."""
        return self.folder / digest[:2] / digest[2:]

    def holds(self, digest: str) -> bool:
        """Tell whether the object, and everything that it lists, is there; bytes are not read."""
        if not digest.endswith(TREE):
            return self.path(digest).is_file()
        try:
            entries = read_listing(self.path(digest).read_bytes())
        except (OSError, ValueError):
            return False
        return all(self.path(entry.digest).is_file() for entry in entries if entry.is_file)

    def add(self, source: Path) -> Measured:
        """Copy a file or folder into the store and return its digest and size.

        Raises
        ------
        OSError
            If it cannot be read or written.
        DataError
            If it holds a link to a folder elsewhere.
        """
        if not source.is_dir():
            digest = self._add_file(source)
            return Measured(digest, source.stat().st_size)
        entries = []
        for path, mode, status in listed(source):
            if mode == "l":
                entries.append(Entry(path, mode, 0, _kept_inside(path, os.readlink(source / path))))
            elif mode == "d":
                entries.append(Entry(path, mode, 0, ""))
            else:
                entries.append(Entry(path, mode, status.st_size, self._add_file(source / path)))
        listing = tree_listing(entries)
        digest = hashlib.sha256(listing).hexdigest() + TREE
        self._put(digest, listing)
        return Measured(digest, sum(entry.size_bytes for entry in entries))

    def add_bytes(self, content: bytes) -> str:
        """Put ``content`` into the store and return its digest."""
        digest = hashlib.sha256(content).hexdigest()
        self._put(digest, content)
        return digest

    def objects(self) -> Iterator[str]:
        """Yield the digest of every object; what was set aside is none."""
        for folder in sorted(self.folder.glob("[0-9a-f][0-9a-f]")):
            for path in sorted(folder.iterdir()):
                if _NAME.fullmatch(path.name):
                    yield folder.name + path.name

    def size(self, digest: str) -> int:
        """Return the size of an object in bytes."""
        return self.path(digest).stat().st_size

    def is_sound(self, digest: str) -> bool:
        """Tell whether an object's bytes are those of its name; all of them are read."""
        try:
            return file_digest(self.path(digest)) == digest.removesuffix(TREE)
        except OSError:  # a disk that cannot read it back
            return False

    def parts(self, digest: str) -> Iterator[str]:
        """Yield the object itself and everything that it lists.

        Raises
        ------
        DataError
            If it is a listing that is gone or damaged.
        """
        yield digest
        if digest.endswith(TREE):
            for entry in read_listing(self.read(digest)):
                if entry.is_file:
                    yield entry.digest

    def set_aside(self, digest: str) -> None:
        """Move an object to where nobody takes it for sound."""
        place = self.folder / "damaged" / digest
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self.path(digest), place)

    def recover(self, digest: str, source: Path) -> bool:
        """Take an object's bytes from a file or folder that holds them, if it does; tell whether it did."""
        measured = Memo().measure(source)
        if measured is None:
            return False
        if not source.is_dir():
            return measured.digest == digest and self._add_file(source) == digest
        entries = list(Memo().entries(source))
        if measured.digest == digest:
            write_atomically(self.path(digest), tree_listing(entries))
            return True
        return any(
            entry.digest == digest and self._add_file(source / entry.path) == digest for entry in entries
        )

    def remove(self, digest: str) -> None:
        """Remove an object."""
        self.path(digest).unlink(missing_ok=True)

    def remove_leftovers(self) -> None:
        """Remove what processes that were killed have left half written; nobody may be writing now."""
        for path in self.folder.glob("**/.*.tmp"):
            path.unlink(missing_ok=True)

    def read(self, digest: str) -> bytes:
        """Return the bytes of an object.

        Raises
        ------
        DataError
            If it is gone or damaged.
        """
        try:
            content = self.path(digest).read_bytes()
        except FileNotFoundError as error:
            raise DataError.of("a stored object is gone", where=digest[:12]) from error
        if hashlib.sha256(content).hexdigest() != digest.removesuffix(TREE):
            raise self._damaged(digest)
        return content

    def extract(self, digest: str, destination: Path) -> None:
        """Write what ``digest`` names to ``destination``, which must not exist yet.

        Raises
        ------
        DataError
            If the object is gone, or its bytes have another digest; such an object is set aside.
        OSError
            If it cannot be written.
        """
        destination.parent.mkdir(parents=True, exist_ok=True)
        if not digest.endswith(TREE):
            self._extract_file(digest, destination)
            return
        destination.mkdir()
        entries = read_listing(self.read(digest))
        links = [entry for entry in entries if entry.mode == "l"]
        for entry in entries:
            path = _inside(destination, entry.path)
            if entry.mode == "d":
                path.mkdir(parents=True, exist_ok=True)
            elif entry.is_file:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._extract_file(entry.digest, path)
            if entry.mode == "x":
                path.chmod(path.stat().st_mode | 0o111)
        # Links come last, the deepest first: nothing is made through one.
        for entry in sorted(links, key=lambda link: link.path, reverse=True):
            path = _inside(destination, entry.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(_kept_inside(entry.path, entry.digest))

    def _put(self, digest: str, content: bytes) -> None:
        """Write an object, unless it holds these bytes already."""
        with suppress(OSError):  # it is not there, or a disk cannot read it back
            if self.path(digest).read_bytes() == content:
                return
        write_atomically(self.path(digest), content)

    def _add_file(self, source: Path) -> str:
        """Copy a file into the store and return its digest.

        It has to be read for that, and is written meanwhile; so the object is always this copy, whose bytes were
        seen and synced, in place of one that was there: that may have been damaged since.
        """
        make_folder(self.folder)
        handle, name = tempfile.mkstemp(dir=self.folder, prefix=".", suffix=".tmp")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as target:
                digest = _copy(source, target.fileno())
                os.fsync(target.fileno())
            place = self.path(digest)
            make_folder(place.parent)
            temporary.chmod(0o444)
            os.replace(temporary, place)
            sync_folder(place.parent)
            return digest
        finally:
            temporary.unlink(missing_ok=True)

    def _extract_file(self, digest: str, destination: Path) -> None:
        source = self.path(digest)
        if not source.exists():
            raise DataError.of(
                "a stored object is gone", where=digest[:12], fix="run the stage again with --force"
            )
        handle = os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            found = _copy(source, handle)
        finally:
            os.close(handle)
        if found != digest:
            destination.unlink()
            raise self._damaged(digest)

    def _damaged(self, digest: str) -> DataError:
        self.set_aside(digest)
        fix = "it was set aside; run again and the stage that made it will rebuild it"
        return DataError.of("a stored object is damaged", where=str(self.path(digest)), fix=fix)


def _copy(source: Path, target: int) -> str:
    """Copy a file's bytes to an open file and return the digest of what was copied."""
    hasher = hashlib.sha256()
    with open(source, "rb") as stream:
        try:
            fcntl.ioctl(target, _FICLONE, stream.fileno())
            shared = True
        except OSError:
            shared = False
        while chunk := stream.read(_CHUNK_BYTES):
            hasher.update(chunk)
            if not shared:
                _write_all(target, chunk)
    return hasher.hexdigest()


def _write_all(target: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(target, view) :]


def _inside(folder: Path, relative: str) -> Path:
    path = folder / relative
    if ".." in Path(relative).parts or Path(relative).is_absolute():
        raise DataError.of(f"a stored folder lists {relative!r}, which leads out of it")
    return path


def _kept_inside(path: str, target: str) -> str:
    """Return where a link leads to.

    Raises
    ------
    DataError
        If that is not in the folder that the link is in.
    """
    if not stays_inside(path, target):
        raise DataError.of(f"the link {path!r} in a folder leads out of it", where=target)
    return target
