"""Where a project keeps its things."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nbtools.errors import UsageError

FILE_NAME = "pipelines.yaml"


@dataclass(frozen=True, slots=True)
class Project:
    """A folder with ``pipelines.yaml``; ``.nbtools`` in it holds what can be thrown away."""

    root: Path

    @property
    def file(self) -> Path:
        """The project's pipelines.yaml."""
        return self.root / FILE_NAME

    @property
    def state(self) -> Path:
        """Folder of everything that nbtools keeps."""
        return self.root / ".nbtools"

    @property
    def database(self) -> Path:
        """Completion records, the event journal and memos."""
        return self.state / "state.db"

    @property
    def store(self) -> Path:
        """Content-addressed outputs and notebooks."""
        return self.state / "store"

    @property
    def lineage(self) -> Path:
        """Manifests of runs, and what the code that they ran can be restored from; never freed."""
        return self.state / "lineage"

    @property
    def reproductions(self) -> Path:
        """Folders that earlier runs are repeated in; nothing in them outlives the command."""
        return self.state / "reproduce"

    @property
    def environments(self) -> Path:
        """Python environments that were built to repeat earlier runs."""
        return self.state / "environments"

    @property
    def attempts(self) -> Path:
        """Private folders of stages that are running."""
        return self.state / "attempts"

    @property
    def executed(self) -> Path:
        """The last good executed notebook of each stage."""
        return self.state / "executed"

    @property
    def failed(self) -> Path:
        """The partially executed notebook of each stage whose last attempt failed."""
        return self.state / "failed"

    @property
    def replaced(self) -> Path:
        """Files that a person changed and a run had to replace."""
        return self.state / "replaced"

    @property
    def sweeps(self) -> Path:
        """What variants of a sweep have made, and the studies of samplers."""
        return self.state / "sweeps"

    def relative(self, path: Path) -> str:
        """Return ``path`` as a POSIX path relative to the project."""
        return path.relative_to(self.root).as_posix()


def find_root(start: Path) -> Path | None:
    """Return the nearest folder with a pipelines.yaml, from ``start`` upwards; None if there is none."""
    folder = start.resolve()
    return next((place for place in (folder, *folder.parents) if (place / FILE_NAME).exists()), None)


def open_project(start: Path) -> Project:
    """Return the project that ``start`` lies in.

    Raises
    ------
    UsageError
        If there is none.
    """
    root = find_root(start)
    if root is None:
        fix = f"go to the folder with your {FILE_NAME}, or name it: nbtools --project FOLDER"
        raise UsageError.of(f"there is no {FILE_NAME} here or in a folder above", where=str(start), fix=fix)
    return Project(root)
