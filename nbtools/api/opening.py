"""A project as the verbs find it: its spec, state, workspace, DAG and plan."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbtools.errors import DataError, NbtoolsError, Problem, UsageError
from nbtools.execution.database import Database
from nbtools.execution.lock import holder
from nbtools.execution.workspace import Workspace, taking_part
from nbtools.pipeline import dag as dags
from nbtools.pipeline.dag import Dag
from nbtools.pipeline.load import load
from nbtools.pipeline.marked_yaml import parse
from nbtools.pipeline.params import Overrides, check_overrides
from nbtools.pipeline.plan import Plan, Surroundings
from nbtools.pipeline.plan import plan as make_plan
from nbtools.pipeline.spec import Spec
from nbtools.project import Project, open_project
from nbtools.tracking.address import StoreAddress, resolve


@dataclass(frozen=True, slots=True)
class Opened:
    """A project and everything that was read of it, for the time of one command."""

    project: Project
    spec: Spec
    database: Database
    workspace: Workspace
    dag: Dag


def find(path: Path | str | None = None) -> Project:
    """Return the project that ``path`` (default: the working directory) lies in.

    Raises
    ------
    UsageError
        If there is none.
    """
    return open_project(Path(path) if path is not None else Path.cwd())


@contextmanager
def database_of(home: Project, *, writable: bool = False) -> Iterator[tuple[Project, Database]]:
    """Yield the project and its state, which is closed afterwards."""
    database = Database(home.database, writable=writable)
    try:
        yield home, database
    finally:
        database.close()


@contextmanager
def open_for(
    project: Path | str | None,
    overrides: Sequence[Overrides] = (),
    *,
    writable: bool = False,
    pythons: Mapping[str, str] | None = None,
) -> Iterator[Opened]:
    """Yield the project that ``project`` lies in, with ``overrides`` of its params, weakest first.

    Parameters
    ----------
    pythons
        Interpreters to use instead of those that pipelines.yaml names.
    """
    home = find(project)
    spec = load(home.file)
    with database_of(home, writable=writable) as (_, database):
        workspace = Workspace(home, spec, database, overrides, pythons)
        yield Opened(home, spec, database, workspace, dags.build(spec))
    if not writable and home.database.exists():
        # Looking is no change, but what was found spares the next command from looking again.
        with suppress(NbtoolsError, OSError), database_of(home, writable=True) as (_, database):
            workspace.database = database
            workspace.remember()


def planned(
    opened: Opened, targets: Sequence[str], *, force: bool
) -> tuple[Plan, tuple[str, ...], Surroundings]:
    """Return the plan for ``targets``, the variants in it, and what it was made from."""
    keys = opened.dag.ancestors(dags.select(opened.dag, targets))
    workspace = opened.workspace
    check_overrides(workspace.overrides, taking_part(opened.dag, keys), workspace.notebooks, opened.spec)
    world = workspace.surroundings()
    return (
        make_plan(opened.dag, keys, world, forced=forced_keys(opened.dag, targets, force=force)),
        keys,
        world,
    )


def check_data(made: Plan) -> None:
    """Raise a DataError if external data are missing."""
    if made.missing:
        raise DataError(*made.missing)


def forced_keys(dag: Dag, targets: Sequence[str], *, force: bool) -> frozenset[str]:
    """Return the variants that run even if they are up to date."""
    return frozenset(dags.select(dag, targets)) if force else frozenset()


def overrides_of(params: Mapping[str, Any] | None, params_file: Path | str | None) -> list[Overrides]:
    """Return the layers of params given for one command, weakest first."""
    layers = []
    if params_file is not None:
        layers.append(Overrides(_read_params(Path(params_file)), str(params_file)))
    if params:
        layers.append(Overrides(dict(params), "-p"))
    return layers


def _read_params(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError.of(f"the params file cannot be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise UsageError.of("the params file is not UTF-8 text", where=str(path)) from error
    tree = parse(text, str(path))
    if tree.problems:
        raise UsageError(*tree.problems)
    if not isinstance(tree.value or {}, dict):
        raise UsageError(Problem("a params file holds name: value lines", str(path)))
    return tree.value or {}


def address_of(opened: Opened) -> StoreAddress:
    """Return where MLflow keeps the project's runs."""
    return resolve(opened.project.root, opened.spec.tracking, opened.spec.project, os.environ)


def running_id(home: Project) -> str | None:
    """Return the id of the run that is under way, if any."""
    found = holder(home.state / "run.lock")
    return None if found is None else str(found.get("run", ""))
