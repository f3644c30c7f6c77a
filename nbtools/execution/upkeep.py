"""Keeping the store sound and small: damage is found and mended, and what nobody needs is freed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nbtools.errors import DataError
from nbtools.execution.database import Database
from nbtools.execution.placing import file_name
from nbtools.execution.store import Store
from nbtools.pipeline.dag import Variant, variant_folder
from nbtools.pipeline.plan import Completion
from nbtools.pipeline.retention import objects_of, worth_keeping
from nbtools.project import Project


@dataclass(frozen=True, slots=True)
class Finding:
    """An object of the store, or a record of a result, that is not what it should be.

    Parameters
    ----------
    digest
        Names the object; empty for a record.
    state
        ``damaged``: its bytes are not those of its name; it was set aside. ``missing``: a result that is in
        use names it. ``unreadable``: it is a record that was damaged; it was removed.
    mended
        Where the right bytes were found, relative to the project; empty if nowhere.
    needed_by
        What it belongs to, such as ``train.fit: model``.
    rebuilt_by
        Stages of pipelines.yaml that can make it again.
    """

    digest: str
    state: str
    mended: str = ""
    needed_by: tuple[str, ...] = ()
    rebuilt_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoreReport:
    """What a check of the whole store found."""

    objects: int
    size_bytes: int
    findings: tuple[Finding, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether everything is there, or was mended."""
        return all(finding.mended for finding in self.findings)


@dataclass(frozen=True, slots=True)
class Freed:
    """What was removed from the store, or would be, and what stays."""

    objects: int
    size_bytes: int
    kept_objects: int
    kept_bytes: int
    results: int


def check(project: Project, database: Database, variants: Mapping[str, Variant]) -> StoreReport:
    """Read every object of the store, set aside what is damaged, and mend what can be mended.

    Parameters
    ----------
    variants
        Those of pipelines.yaml, by key.
    """
    store = Store(project.store)
    records = _damaged_records(database, variants)
    results = database.results()
    in_use = database.numbers_in_use()
    states: dict[str, str] = {}
    objects, size_bytes = 0, 0
    for digest in list(store.objects()):
        objects += 1
        size_bytes += store.size(digest)
        if not store.is_sound(digest):
            store.set_aside(digest)
            states[digest] = "damaged"
    # Folders whose listing is damaged cannot say what they need; it is missing with them.
    for digest in _needed(store, [results[number] for number in in_use if number in results]):
        if not store.path(digest).is_file():
            states.setdefault(digest, "missing")
    users = _users(store, results)
    findings = []
    for digest, state in states.items():
        needing = users.get(digest, [])
        makers = tuple(dict.fromkeys(result.stage for result, _ in needing if result.stage in variants))
        findings.append(
            Finding(
                digest,
                state,
                _mend(store, digest, project, [variants[stage] for stage in makers]),
                tuple(dict.fromkeys(f"{result.stage}: {what}" for result, what in needing)),
                makers,
            )
        )
    return StoreReport(objects, size_bytes, (*records, *findings))


def free(project: Project, database: Database, since: float, *, dry_run: bool) -> Freed:
    """Remove what belongs to no result that is in use, or was made or reused after ``since``.

    Raises
    ------
    DataError
        If a listing of what is kept is damaged: what it lists could not be told from rubbish.
    """
    store = Store(project.store)
    results = database.results()
    swept = {number: folder for number, item in results.items() if (folder := _swept(project, item.stage))}
    # What variants of the command line have made, no stage of the file uses.
    in_use = database.numbers_in_use() - swept.keys()
    kept = worth_keeping(results, in_use, database.last_uses(), since)
    needed = _needed(store, [results[number] for number in kept], strict=True)
    objects = set(store.objects())
    rubbish = objects - needed
    sizes = {digest: store.size(digest) for digest in objects}
    if not dry_run:
        for digest in rubbish:
            store.remove(digest)
        store.remove_leftovers()
        for folder in {*swept.values()} - {swept[number] for number in kept if number in swept}:
            shutil.rmtree(folder, ignore_errors=True)
    return Freed(
        objects=len(rubbish),
        size_bytes=sum(sizes[digest] for digest in rubbish),
        kept_objects=len(objects - rubbish),
        kept_bytes=sum(sizes[digest] for digest in objects - rubbish),
        results=len(results) - len(kept),
    )


def _swept(project: Project, variant: str) -> Path | None:
    """Return the folder of what a variant of a sweep from the command line has made; None if it is none."""
    stage, _, inside = variant.partition("[")
    if "=" not in inside or "/" in stage:
        return None
    folder = project.sweeps / stage / variant_folder(inside.removesuffix("]"))
    return folder if folder.is_dir() else None


def _damaged_records(database: Database, variants: Mapping[str, Variant]) -> list[Finding]:
    return [
        Finding(
            "",
            "unreadable",
            needed_by=(f"{stage}: record of a result",),
            rebuilt_by=(stage,) if stage in variants else (),
        )
        for stage in database.forget_damaged()
    ]


def _needed(store: Store, results: list[Completion], *, strict: bool = False) -> set[str]:
    needed: set[str] = set()
    for digest in objects_of(results):
        try:
            needed.update(store.parts(digest))
        except DataError:
            if strict and store.path(digest).exists():
                raise
            needed.add(digest)
    return needed


def _users(store: Store, results: Mapping[int, Completion]) -> dict[str, list[tuple[Completion, str]]]:
    """Return what each object belongs to: results, newest first, and what of them it is."""
    found: dict[str, list[tuple[Completion, str]]] = {}
    for number in sorted(results, reverse=True):
        result = results[number]
        for digest, what in _named(result):
            parts = [digest]
            with suppress(DataError):
                parts = list(store.parts(digest))
            for part in parts:
                found.setdefault(part, []).append((result, what))
    return found


def _named(result: Completion) -> Iterator[tuple[str, str]]:
    for name, digest in {**result.outputs, **result.streams}.items():
        yield digest, name
    for digest, name in ((result.executed, "executed notebook"), (result.source, "source notebook")):
        if digest:
            yield digest, name


def _mend(store: Store, digest: str, project: Project, makers: list[Variant]) -> str:
    """Put an object back from a place of the workspace that has its bytes; return that place."""
    for variant in makers:
        for path in _copies(project, variant):
            with suppress(OSError):
                if store.recover(digest, path):
                    return project.relative(path)
    return ""


def _copies(project: Project, variant: Variant) -> Iterator[Path]:
    """Yield where the bytes of a stage's results may lie."""
    for output in variant.outputs:
        yield project.root / output.path
    yield project.executed / f"{file_name(variant.key)}.ipynb"
    yield project.root / variant.stage.notebook
