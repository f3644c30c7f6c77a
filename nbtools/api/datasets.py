"""Looking at datasets: where they stand, what they once were, how two runs differ in them; and bringing them back."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbtools.api.opening import Opened, find, open_for, running_id
from nbtools.errors import DataError, Problem, UsageError, suggest
from nbtools.execution.digest import Memo
from nbtools.execution.events import Artifact
from nbtools.execution.lock import exclusive
from nbtools.execution.store import Store
from nbtools.project import Project
from nbtools.tracking.datasets import KINDS, DatasetVersion, datasets_of, versions
from nbtools.tracking.history import show

if TYPE_CHECKING:
    from nbtools.pipeline.spec import Dataset
    from nbtools.tracking.drift import ColumnChange


@dataclass(frozen=True, slots=True)
class DatasetStatus:
    """A dataset and where it stands.

    Parameters
    ----------
    made_by
        Stages that write it; none if it is external.
    used_by
        Stages that read it.
    state
        ``present``; ``missing``, if there is nothing; ``changed``, if it is not what its stage wrote, or not the
        expected external data; ``not made yet``.
    digest, size_bytes
        Of what lies there now; of several paths, no digest and the size of all.
    expected
        The digest that external data must have, if any.
    rows, columns
        What it holds now; None and nothing if it is no table.
    """

    name: str
    path: str
    made_by: tuple[str, ...]
    used_by: tuple[str, ...]
    state: str
    digest: str = ""
    size_bytes: int = 0
    rows: int | None = None
    columns: Mapping[str, str] | None = None
    schema: str = ""
    expected: str = ""
    description: str = ""
    owner: str = ""
    where: str = ""

    @property
    def is_external(self) -> bool:
        """Whether no stage makes it."""
        return not self.made_by


@dataclass(frozen=True, slots=True)
class DatasetDetails:
    """A dataset, and what it was in earlier runs, the latest first."""

    status: DatasetStatus
    versions: tuple[DatasetVersion, ...]


@dataclass(frozen=True, slots=True)
class DatasetChange:
    """A dataset in two runs.

    Parameters
    ----------
    kind
        ``same`` bytes, ``changed``, ``added``, ``removed``.
    note
        Why there is no closer look, in words.
    """

    dataset: str
    path: str
    kind: str
    before: Artifact | None = None
    after: Artifact | None = None
    rows_before: int | None = None
    rows_after: int | None = None
    columns: tuple[ColumnChange, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class DataComparison:
    """The datasets of two runs."""

    before: str
    after: str
    datasets: tuple[DatasetChange, ...]


@dataclass(frozen=True, slots=True)
class Restored:
    """A dataset that was brought back: ``how`` is ``restored`` or ``present`` (nothing was to be done)."""

    dataset: str
    path: str
    digest: str
    how: str


def data(*, project: Path | str | None = None) -> tuple[DatasetStatus, ...]:
    """Return every dataset of the project with who makes and who uses it, and where it stands.

    Raises
    ------
    NbtoolsError
        For mistakes in pipelines.yaml or notebooks.
    """
    with open_for(project) as opened:
        return tuple(_status(opened, dataset) for dataset in opened.spec.datasets.values())


def data_show(name: str, *, project: Path | str | None = None) -> DatasetDetails:
    """Return a dataset: its contract, what it holds, and what it was in earlier runs.

    Raises
    ------
    UsageError
        If there is no such dataset.
    """
    with open_for(project) as opened:
        dataset = _named(opened, [name])[0]
        found = versions(opened.database.events(kinds=KINDS), name)
        known = [_looked_into(opened.project, version) for version in found]
        return DatasetDetails(_status(opened, dataset), tuple(known))


def data_diff(
    before: str, after: str, name: str = "", *, project: Path | str | None = None
) -> DataComparison:
    """Return how the datasets of two runs differ: in schema, rows and the distribution of each column.

    Parameters
    ----------
    before, after
        Runs, as of ``show``.
    name
        Only this dataset.

    Raises
    ------
    UsageError
        If there is no such run, or neither has such a dataset.
    """
    with open_for(project) as opened:
        first, old = _of_run(opened, before)
        second, new = _of_run(opened, after)
        keys = [key for key in dict.fromkeys([*old, *new]) if not name or key[0] == name]
        if not keys:
            fix = suggest(name, [dataset for dataset, _ in {**old, **new}], "dataset")
            raise UsageError.of(f"neither run has a dataset {name!r}", fix=fix)
        with tempfile.TemporaryDirectory(prefix="nbtools-") as folder:
            bytes_of = _Bytes(opened.project, Path(folder))
            changes = tuple(_change(key, old.get(key), new.get(key), bytes_of) for key in keys)
        return DataComparison(first, second, changes)


def data_restore(
    run: str,
    names: Sequence[str] = (),
    *,
    to: Path | str | None = None,
    project: Path | str | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> tuple[Restored, ...]:
    """Bring back the bytes that datasets had in an earlier run, and return which.

    In the project, what lies at a dataset's path and is stored nowhere is kept aside in ``.nbtools/replaced``.

    Parameters
    ----------
    names
        Datasets; none means all of the run whose bytes are stored.
    to
        Folder to put them in, under the paths that they have in the project; what is there is never replaced.

    Raises
    ------
    NbtoolsError
        If there is no such run or dataset, bytes are no longer stored, or something is in the way.
    """
    home = find(project)
    with (
        exclusive(home.state / "run.lock", {"command": "nbtools data restore"}, note),
        open_for(home.root, writable=True) as opened,
    ):
        found_run, datasets = _of_run(opened, run)
        known = sorted({dataset for dataset, _ in datasets})
        for name in names:
            if name not in known:
                fix = suggest(name, known, "dataset")
                raise UsageError.of(f"run {found_run} has no dataset {name!r}", fix=fix)
        wanted = [item for item in datasets.values() if not names or item.dataset in names]
        stored = [item for item in wanted if _store_of(home, item.digest)]
        _check_stored(opened, [item for item in wanted if item not in stored], named=bool(names), note=note)
        if to is not None:
            return tuple(_restore_to(home, item, Path(to)) for item in stored)
        restored = tuple(_restore_here(opened, found_run, item, note) for item in stored)
        opened.workspace.remember()
        return restored


def _check_stored(
    opened: Opened, gone: Sequence[Artifact], *, named: bool, note: Callable[[str], None]
) -> None:
    problems = []
    for item in gone:
        lies_there = opened.workspace.digest_of(item.path) == item.digest
        if lies_there and not named:
            continue
        where = f"data {item.dataset} ({item.path})"
        message = f"its bytes of that run ({item.digest[:12]}) are not stored"
        fix = "run what makes it again; of external data the bytes are kept if they are small, or with keep: true"
        problems.append(Problem(message, where, fix=fix))
    if named and problems:
        raise DataError(*problems)
    for problem in problems:
        note(f"{problem.where}: {problem.message}")


def _restore_to(home: Project, item: Artifact, folder: Path) -> Restored:
    if ".." in Path(item.path).parts or Path(item.path).is_absolute():
        raise DataError.of("this path of the run's record leads out of the project", where=item.path)
    target = folder / item.path
    if os.path.lexists(target):
        measured = Memo().measure(target)
        if measured and measured.digest == item.digest:
            return Restored(item.dataset, str(target), item.digest, "present")
        fix = "remove it, or name another folder"
        raise UsageError.of("something else is there already", where=str(target), fix=fix)
    store = _store_of(home, item.digest)
    assert store is not None
    target.parent.mkdir(parents=True, exist_ok=True)
    # Whoever looks sees all of it or nothing.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".nbtools-") as private:
        store.extract(item.digest, Path(private) / "data")
        os.replace(Path(private) / "data", target)
    return Restored(item.dataset, str(target), item.digest, "restored")


def _restore_here(opened: Opened, run: str, item: Artifact, note: Callable[[str], None]) -> Restored:
    from nbtools.execution.placing import place

    home = opened.project
    if opened.workspace.digest_of(item.path) == item.digest:
        return Restored(item.dataset, item.path, item.digest, "present")
    store = _store_of(home, item.digest)
    assert store is not None
    folder = home.attempts / f"restore-{run}"
    try:
        store.extract(item.digest, folder / "data")
        place(folder / "data", item.path, opened.workspace, run, note)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Restored(item.dataset, item.path, item.digest, "restored")


# Of one project


def _named(opened: Opened, names: Sequence[str]) -> list[Dataset]:
    datasets = opened.spec.datasets
    for name in names:
        if name not in datasets:
            raise UsageError.of(f"there is no dataset {name!r}", fix=suggest(name, datasets, "dataset"))
    return [datasets[name] for name in names]


def _status(opened: Opened, dataset: Dataset) -> DatasetStatus:
    from nbtools.execution.tables import describe

    stages = list(opened.spec.stages())
    made_by = [stage.key for stage in stages if any(dataset.name == out.dataset for out in stage.outputs)]
    used_by = [stage.key for stage in stages if any(dataset.name == item.dataset for item in stage.inputs)]
    state, paths = _state(opened, dataset)
    measured = [found for path in paths if (found := opened.workspace.measure(path))]
    alone = measured[0] if len(paths) == 1 and measured else None
    held = describe(opened.project.root / paths[0]) if alone else None
    return DatasetStatus(
        name=dataset.name,
        path=dataset.path,
        made_by=tuple(made_by),
        used_by=tuple(used_by),
        state=state,
        digest=alone.digest if alone else "",
        size_bytes=sum(item.size_bytes for item in measured),
        rows=held.rows if held else None,
        columns=held.columns if held else None,
        schema=str(dataset.schema or ""),
        expected=dataset.digest,
        description=dataset.description,
        owner=dataset.owner,
        where=str(dataset.location),
    )


def _state(opened: Opened, dataset: Dataset) -> tuple[str, list[str]]:
    """Return where a dataset stands, and its paths."""
    wanted: dict[str, str | None] = {}
    for variant in opened.dag.variants.values():
        for output in variant.outputs:
            if output.dataset == dataset.name:
                completion = opened.database.in_use(variant.key)
                wanted[output.path] = completion.outputs.get(output.variable) if completion else None
    if not wanted:
        wanted = {dataset.path: dataset.digest}
        made = False
    else:
        made = True
    present = {path: opened.workspace.digest_of(path) for path in wanted}
    if made and not any(wanted.values()) and not any(present.values()):
        return "not made yet", list(wanted)
    missing = sum(1 for digest in present.values() if digest is None)
    if missing:
        return ("missing" if len(wanted) == 1 else f"{missing} of {len(wanted)} missing"), list(wanted)
    changed = any(digest and present[path] != digest for path, digest in wanted.items())
    return "changed" if changed else "present", list(wanted)


# Of runs


def _of_run(opened: Opened, run: str) -> tuple[str, dict[tuple[str, str], Artifact]]:
    """Return a run's id, and what it read and made."""
    state = show(opened.database, run, running_id(opened.project))
    completions, _ = opened.database.completions()

    def inputs_of(fingerprint: str) -> Sequence[Artifact]:
        completion = completions.get(fingerprint)
        recorded = completion.extra.get("inputs", ()) if completion else ()
        return [Artifact(**item) for item in recorded]

    return state.run, datasets_of(state, inputs_of)


def _looked_into(project: Project, version: DatasetVersion) -> DatasetVersion:
    """Return a version with whether it is stored, and what its run's manifest says that it holds."""
    from nbtools.tracking.recording import manifest_file

    version = replace(version, is_stored=_store_of(project, version.digest) is not None)
    try:
        manifest = json.loads(manifest_file(project, version.run).read_bytes())
    except (OSError, ValueError):
        return version
    for stage in manifest.get("stages", {}).values():
        for item in (*stage.get("inputs", {}).values(), *stage.get("outputs", {}).values()):
            if item["digest"] == version.digest and ("rows" in item or "columns" in item):
                return replace(version, rows=item.get("rows"), columns=item.get("columns"))
    return version


def _store_of(project: Project, digest: str) -> Store | None:
    """Return the store that holds an object; None if none does."""
    from nbtools.tracking.capturing import lineage_store

    stores = (Store(project.store), lineage_store(project))
    return next((store for store in stores if store.holds(digest)), None)


class _Bytes:
    """The bytes of datasets as files, wherever they are found."""

    def __init__(self, project: Project, folder: Path) -> None:
        self._project = project
        self._folder = folder

    @contextmanager
    def of(self, item: Artifact) -> Iterator[Path | None]:
        """Yield a file or folder with them; None if they are nowhere."""
        here = self._project.root / item.path
        store = _store_of(self._project, item.digest)
        if store is None:
            measured = Memo().measure(here)
            yield here if measured and measured.digest == item.digest else None
            return
        if not item.digest.endswith(".tree"):
            yield store.path(item.digest)
            return
        target = self._folder / item.digest
        if not target.exists():
            store.extract(item.digest, target)
        yield target


def _change(
    key: tuple[str, str], before: Artifact | None, after: Artifact | None, bytes_of: _Bytes
) -> DatasetChange:
    change = DatasetChange(*key, "same", before, after)
    if before is None or after is None:
        return replace(change, kind="added" if before is None else "removed")
    if before.digest == after.digest:
        return change
    change = replace(change, kind="changed")
    with bytes_of.of(before) as old, bytes_of.of(after) as new:
        if old is None or new is None:
            gone = before if old is None else after
            return replace(change, note=f"the bytes {gone.digest[:12]} are not stored any more")
        return _looked_at(change, old, new)


def _looked_at(change: DatasetChange, old: Path, new: Path) -> DatasetChange:
    from nbtools.tracking.contents import Unreadable, first_difference, read_table

    try:
        tables: list[Any] = [read_table(old, change.path), read_table(new, change.path)]
    except Unreadable:
        return replace(change, note=first_difference(old, new, change.path, 0.0))
    from nbtools.tracking.drift import compare

    return replace(
        change, rows_before=len(tables[0]), rows_after=len(tables[1]), columns=compare(tables[0], tables[1])
    )
