"""Keeps what a run's code can be restored from: done once, beside the stages, when the first of them runs."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from nbtools.errors import DataError
from nbtools.execution.events import Revision
from nbtools.execution.files import write_atomically
from nbtools.execution.kernels.interpreter import Interpreter
from nbtools.execution.masking import Masking
from nbtools.execution.revision import is_secret, uncommitted, why_not_kept
from nbtools.execution.store import Store
from nbtools.project import Project
from nbtools.tracking.lineage import Capture, Environment


@dataclass(frozen=True, slots=True)
class Code:
    """What a run is made from, as planning found it.

    Parameters
    ----------
    files
        Digest of every file of the project that is code, by path.
    inputs
        Digests of the external data whose bytes are kept, by path.
    outputs
        Paths that stages write.
    interpreters
        By what pipelines.yaml calls them.
    """

    files: Mapping[str, str]
    inputs: Mapping[str, str]
    outputs: tuple[str, ...]
    interpreters: Mapping[str, Interpreter]
    revision: Revision
    masking: Masking


def capture(project: Project, run: str, code: Code) -> Capture:
    """Keep the files, what differs from the commit, and what is installed; return what was kept.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    store = lineage_store(project)
    left_out: list[str] = []
    for path, digest in code.files.items():
        if reason := _keep(project.root, path, digest, store, code.masking):
            left_out.append(f"{path}: {reason}")
    for path, digest in code.inputs.items():
        if reason := _keep_data(project.root, path, digest, store, code.masking):
            left_out.append(f"{path}: {reason}")
    patch = ""
    if code.revision.dirty:
        found = uncommitted(project.root, code.outputs, code.masking)
        left_out += found.left_out
        patch = store.add_bytes(found.patch) if found.patch else ""
    kept = Capture(
        files=dict(code.files),
        patch=patch,
        left_out=tuple(left_out),
        environments={
            item.path: Environment(item.version, dict(sorted(item.distributions.items())), dict(item.origins))
            for item in code.interpreters.values()
        },
        interpreters={name: item.path for name, item in code.interpreters.items()},
        platform=platform.platform(),
        nbtools=metadata.version("nbtools"),
    )
    _write(project, run, kept, store)
    return kept


def captured(project: Project, run: str) -> Capture:
    """Return what was kept of a run; nothing for one that executed no notebook, or is older than that."""
    try:
        record = json.loads(_place(project, run).read_bytes())
        store = lineage_store(project)
        environments = {}
        for path, digest in record["environments"].items():
            with suppress(DataError):  # it is gone: what was installed is not known
                environments[path] = Environment(**json.loads(store.read(digest)))
        left_out = tuple(record["left_out"])
        return Capture(**{**record, "environments": environments, "left_out": left_out})
    except (OSError, ValueError, TypeError, KeyError):
        return Capture()


def lineage_store(project: Project) -> Store:
    """Return where the code of runs is kept, by digest."""
    return Store(project.lineage / "objects")


def _keep(root: Path, path: str, digest: str, store: Store, masking: Masking) -> str:
    """Keep a file unless that is done already; return why it is not kept, or an empty string."""
    if store.holds(digest):
        return ""
    if reason := why_not_kept(root, path, masking):
        return reason
    try:
        content = (root / path).read_bytes()
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if hashlib.sha256(content).hexdigest() != digest:
        return "it changed while the run began"
    store.add_bytes(content)
    return ""


def _keep_data(root: Path, path: str, digest: str, store: Store, masking: Masking) -> str:
    """Keep external data unless that is done already; return why they are not kept, or an empty string."""
    if store.holds(digest):
        return ""
    if is_secret(root, path, masking):
        return "it holds a secret"
    try:
        return "" if store.add(root / path).digest == digest else "it changed while the run began"
    except DataError as error:
        return error.problems[0].message


def _write(project: Project, run: str, kept: Capture, store: Store) -> None:
    # What is installed is the same for most runs: it is kept once.
    environments = {
        path: store.add_bytes(json.dumps(asdict(item)).encode()) for path, item in kept.environments.items()
    }
    record = {**asdict(kept), "environments": environments}
    write_atomically(_place(project, run), json.dumps(record).encode())


def _place(project: Project, run: str) -> Path:
    return project.lineage / f"{run}.code.json"
