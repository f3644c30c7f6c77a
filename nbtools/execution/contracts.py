"""Checks datasets against their pandera schemas, in a process of its own: pandas stays out of this one."""

from __future__ import annotations

import hashlib
import importlib
import json
import multiprocessing
import os
import threading
from collections.abc import Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from nbtools.errors import DataError, OperationError, Problem, SpecError
from nbtools.execution.child_process import end_with, without_main
from nbtools.execution.workspace import Workspace
from nbtools.pipeline.dag import Variant
from nbtools.pipeline.spec import SchemaReference


class Contracts:
    """Validates datasets; the process behind it starts with the first one.

    Parameters
    ----------
    root
        The project's folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None

    def violations(self, path: Path, schema: SchemaReference) -> str:
        """Return how the data at ``path`` break ``schema``, for people; an empty string if they do not.

        Raises
        ------
        SpecError
            If the schema cannot be loaded.
        OperationError
            If the process that checks died.
        """
        try:
            said, kind = self._submit(path, schema).result()
            if kind == "schema":
                fix = f"mend {schema.file}, or the name in pipelines.yaml"
                raise SpecError.of(f"the schema {schema} cannot be loaded: {said}", fix=fix)
            return said
        except BrokenProcessPool as error:
            fix = "the data may need more memory than there is"
            raise OperationError.of(f"checking {path.name} against {schema} died", fix=fix) from error

    def close(self) -> None:
        """End the process."""
        with self._lock:
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)
                self._pool = None

    def _submit(self, path: Path, schema: SchemaReference) -> Future[tuple[str, str]]:
        with self._lock:
            if self._pool is None:
                context = multiprocessing.get_context("spawn")
                self._pool = ProcessPoolExecutor(
                    1, mp_context=context, initializer=end_with, initargs=(os.getpid(),)
                )
            with without_main():
                return self._pool.submit(
                    _check, str(path), str(self._root / schema.file), schema.name, str(self._root)
                )


def _check(path: str, file: str, name: str, root: str) -> tuple[str, str]:
    """Return what is wrong, and whether with the data or the schema."""
    # By name, so that the parent process never imports pandas.
    checker = importlib.import_module("nbtools.execution.contract_check")
    try:
        return checker.violations(path, file, name, root), "data"
    except checker.UnusableSchema as error:
        return str(error), "schema"


def check_external(workspace: Workspace, variants: Iterable[Variant], contracts: Contracts) -> None:
    """Check the external data that ``variants`` read against their schemas, once for each content.

    Raises
    ------
    DataError
        With all that break theirs.
    SpecError
        If a schema cannot be loaded.
    """
    problems = []
    external = {item.dataset for variant in variants for item in variant.inputs if not item.producers}
    for name in sorted(external):
        dataset = workspace.spec.datasets[name]
        digest = workspace.digest_of(dataset.path)
        if dataset.schema is None or digest is None:
            continue
        files = json.dumps(workspace.schema_files(name), sort_keys=True)
        fact = f"contract {digest} {dataset.schema.name} {hashlib.sha256(files.encode()).hexdigest()}"
        if workspace.knows(fact):
            continue
        if found := contracts.violations(workspace.project.root / dataset.path, dataset.schema):
            message = f"the dataset {name!r} ({dataset.path}) breaks its schema {dataset.schema}"
            lines = "\n".join(f"  {line}" for line in found.splitlines())
            where, path = str(dataset.location), f"data.{name}.schema"
            problems.append(Problem(f"{message}\n{lines}", where, path, "mend the data or the schema"))
        else:
            workspace.learn(fact)
    if problems:
        raise DataError(*problems)
