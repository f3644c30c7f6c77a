"""Puts results into the workspace without ever losing what a person wrote there."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from nbtools.execution.files import write_atomically
from nbtools.execution.workspace import Workspace
from nbtools.pipeline.plan import Step


def place(source: Path, path: str, workspace: Workspace, run: str, note: Callable[[str], None]) -> None:
    """Move ``source`` to the project's ``path``; bytes that the store does not know are kept aside.

    Parameters
    ----------
    source
        A file or folder on the project's file system.
    note
        Told where something was kept.
    """
    target = workspace.project.root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    workspace.forget(path)
    present = workspace.digest_of(path)
    if present is not None and not workspace.store.holds(present):
        kept = _free(workspace.project.replaced / run / path)
        kept.parent.mkdir(parents=True, exist_ok=True)
        os.replace(target, kept)
        note(
            f"{path} had been changed by hand; the changed version is now {workspace.project.relative(kept)}"
        )
    if os.path.lexists(target) and (source.is_dir() or (target.is_dir() and not target.is_symlink())):
        # A folder cannot be replaced in one step. Whoever is killed in between finds it restored next time.
        old = _free(workspace.project.attempts / run / "replaced" / path)
        old.parent.mkdir(parents=True, exist_ok=True)
        os.replace(target, old)
        os.replace(source, target)
        _remove(old)
    else:
        os.replace(source, target)
    workspace.forget(path)


def restore(step: Step, workspace: Workspace, run: str, note: Callable[[str], None]) -> None:
    """Bring the outputs and the executed notebook of a known result back into the workspace.

    Raises
    ------
    DataError
        If the store's copy is gone or damaged.
    OSError
        If it cannot be written.
    """
    assert step.completion is not None
    folder = workspace.project.attempts / run / f"{file_name(step.key)}.restore"
    try:
        for output in step.variant.outputs:
            digest = step.completion.outputs[output.variable]
            if workspace.digest_of(output.path) == digest:
                continue
            staged = folder / output.variable
            staged.parent.mkdir(parents=True, exist_ok=True)
            workspace.store.extract(digest, staged)
            place(staged, output.path, workspace, run, note)
        if step.completion.executed:
            executed = workspace.store.read(step.completion.executed)
            path = executed_notebook(step, workspace)
            write_atomically(path, executed, durable=False)
            for name, digest in step.completion.streams.items():
                workspace.store.extract(digest, folder / "printed" / name)
            replace_printed(sorted((folder / "printed").glob("*.gz")), path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def executed_notebook(step: Step, workspace: Workspace) -> Path:
    """Return where the last good executed notebook of a step lies."""
    return workspace.project.executed / f"{file_name(step.key)}.ipynb"


def forget_failure(step: Step, workspace: Workspace) -> None:
    """Remove the notebook of a failed attempt: the stage has a result now."""
    path = workspace.project.failed / f"{file_name(step.key)}.ipynb"
    path.unlink(missing_ok=True)
    replace_printed((), path)


def replace_printed(files: Sequence[Path], notebook: Path) -> None:
    """Move what cells printed beyond what their notebook keeps to where it says that they are."""
    folder = notebook.with_suffix(".printed")
    if folder.exists():
        shutil.rmtree(folder)
    for file in files:
        folder.mkdir(parents=True, exist_ok=True)
        os.replace(file, folder / file.name)


def file_name(key: str) -> str:
    """Return a file name for a variant: readable, and different for different keys."""
    kept = "".join(char if char.isalnum() or char in "._+=-[]," else "_" for char in key)
    if kept == key and len(key.encode()) < 150:
        return key
    return f"{kept[:60]}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def _remove(path: Path) -> None:
    """Remove a file, link or folder as far as that is possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _free(path: Path) -> Path:
    candidate, number = path, 1
    while os.path.lexists(candidate):
        number += 1
        candidate = path.with_name(f"{path.name}.{number}")
    return candidate
