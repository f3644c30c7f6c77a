"""A folder in which an earlier run is repeated: the commit, or what was kept of its files. It never outlives the command."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nbtools.errors import DataError, OperationError
from nbtools.project import Project

_GIT_S = 600


@dataclass(frozen=True, slots=True)
class Worktree:
    """Where the project lies in a temporary folder.

    Parameters
    ----------
    top
        The folder that a patch is applied in.
    root
        The project's folder.
    """

    top: Path
    root: Path

    def place(self, path: str) -> Path:
        """Return where a file of the project lies here; a folder that is a link out of this one becomes a folder.

        Raises
        ------
        DataError
            If the path itself leads out: records may have been changed, or come from somebody else.
        """
        written = PurePosixPath(path)
        if written.is_absolute() or ".." in written.parts or not written.parts:
            raise DataError.of("this path of the run's record leads out of the project", where=path)
        folder = self.root
        for part in written.parts[:-1]:
            folder /= part
            if folder.is_symlink() and not folder.resolve().is_relative_to(self.top.resolve()):
                folder.unlink()
        folder.mkdir(parents=True, exist_ok=True)
        return folder / written.name

    def apply(self, patch: Path) -> str:
        """Apply what had differed from the commit; return why that cannot be, or an empty string."""
        words = ("apply", "--binary", "--whitespace=nowarn", str(patch))
        return _git(self.top, *words).stderr.decode("utf-8", "replace").strip()


@contextmanager
def worktree(project: Project, commit: str) -> Iterator[Worktree]:
    """Yield a folder with the project at ``commit``; an empty one if that is empty, or gone.

    Nobody else may be doing that in the project; what a killed process has left is removed.

    Raises
    ------
    OperationError
        If git cannot check it out.
    """
    remove_leftovers(project)
    top = project.reproductions / "tree"
    try:
        if has_commit(project.root, commit):
            prefix = _git(project.root, "rev-parse", "--show-prefix").stdout.decode().strip()
            _check_out(project.root, top, commit)
            root = top / prefix
        else:
            root = top
        root.mkdir(parents=True, exist_ok=True)
        yield Worktree(top, root)
    finally:
        remove_leftovers(project)


def has_commit(root: Path, commit: str) -> bool:
    """Tell whether git knows the commit."""
    return bool(commit) and _git(root, "cat-file", "-e", f"{commit}^{{commit}}").returncode == 0


def remove_leftovers(project: Project) -> None:
    """Remove the folder, and what git knows of it."""
    if project.reproductions.exists():
        # No "prune": other worktrees of the user's may be away for a while.
        _git(project.root, "worktree", "remove", "--force", "--force", str(project.reproductions / "tree"))
        shutil.rmtree(project.reproductions, ignore_errors=True)


def tidy(project: Project) -> None:
    """Remove what a killed process has left, unless a run is being repeated at this moment."""
    if not project.reproductions.exists():
        return
    with open(lock_file(project), "ab") as stream:
        try:
            fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        remove_leftovers(project)


def lock_file(project: Project) -> Path:
    """Return the lock of whoever repeats a run."""
    return project.state / "reproduce.lock"


def _check_out(root: Path, top: Path, commit: str) -> None:
    top.parent.mkdir(parents=True, exist_ok=True)
    # Hooks are for people's own working trees.
    words = ("-c", "core.hooksPath=/dev/null", "worktree", "add", "--quiet", "--detach", "--force")
    done = _git(root, *words, str(top), commit)
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise OperationError.of(f"git cannot check out {commit[:12]}: {said}", where=str(top))


def _git(root: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    command = ["git", "-C", str(root), *words]
    try:
        return subprocess.run(command, capture_output=True, timeout=_GIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, b"", str(error).encode())
