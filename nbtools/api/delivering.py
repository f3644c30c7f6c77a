"""Delivering to MLflow what it has not heard of yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nbtools.api.opening import Opened, address_of, find, open_for, running_id
from nbtools.execution.lock import exclusive

if TYPE_CHECKING:
    from nbtools.execution.cancellation import Cancellation
    from nbtools.execution.events import Revision
    from nbtools.execution.masking import Masking
    from nbtools.execution.workspace import Workspace
    from nbtools.pipeline.dag import Variant
    from nbtools.pipeline.spec import Stage
    from nbtools.tracking.lazy import LazyTracker
    from nbtools.tracking.recording import Recorder
    from nbtools.tracking.sync import Delivery


#: External data up to this size are kept with a run unless pipelines.yaml says otherwise.
KEPT_BYTES = 1 << 20


def tracker_of(
    opened: Opened, run: str, note: Callable[[str], None], stop: Cancellation, recorder: Recorder
) -> LazyTracker:
    """Return what tells MLflow of a run, and say what it has yet to be told of earlier ones."""
    from nbtools.tracking.lazy import LazyTracker
    from nbtools.tracking.sync import undelivered

    if earlier := len(undelivered(opened.database, run)):
        note(f"MLflow lacks the end of {earlier} earlier run{'s' * (earlier > 1)}: nbtools sync delivers it")
    address, root = address_of(opened), opened.project.root
    append, secrets = opened.database.append, opened.workspace.secret_variables()
    hurry = stop.flag.is_set
    return LazyTracker(address, root, note, append, hurry=hurry, secrets=secrets, recorder=recorder)


def recorder_of(
    opened: Opened,
    keys: Sequence[str],
    to_run: Sequence[Stage],
    run: str,
    revision: Revision,
    masking: Masking,
    note: Callable[[str], None],
) -> Recorder:
    """Return what keeps the manifest of a run of the variants ``keys``, some of whose stages are ``to_run``."""
    from nbtools.tracking.capturing import Code, capture
    from nbtools.tracking.recording import Recorder

    workspace, variants = opened.workspace, [opened.dag.variants[key] for key in keys]

    def code() -> Code:
        python = [item.stage for item in variants if workspace.notebooks[item.stage.key].language == "python"]
        return Code(
            files=workspace.code_files(variants),
            inputs=_kept_inputs(workspace, variants),
            outputs=tuple(output.path for item in opened.dag.variants.values() for output in item.outputs),
            interpreters={stage.python: workspace.interpreter(stage) for stage in python},
            revision=revision,
            masking=masking,
        )

    known = code() if to_run else None
    return Recorder(opened.project, lambda: capture(opened.project, run, known or code()), note)


def _kept_inputs(workspace: Workspace, variants: Sequence[Variant]) -> dict[str, str]:
    """Return the digests of the external data whose bytes are kept with a run, by path."""
    found = {}
    for name in {item.dataset for variant in variants for item in variant.inputs if not item.producers}:
        dataset = workspace.spec.datasets[name]
        measured = workspace.measure(dataset.path)
        small = measured is not None and measured.size_bytes <= KEPT_BYTES
        if measured is not None and (small if dataset.keep is None else dataset.keep):
            found[dataset.path] = measured.digest
    return found


def sync(
    *,
    redirect: bool = False,
    project: Path | str | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> tuple[Delivery, ...]:
    """Deliver to MLflow what it could not take when it happened, oldest run first, and return what became of it.

    Parameters
    ----------
    redirect
        Whether runs that were meant for another server are delivered to the present one.
    note
        Told, in words, of what a person should know meanwhile.

    Raises
    ------
    NbtoolsError
        For mistakes in pipelines.yaml, or if the project's folder cannot be written to.
    """
    from nbtools.tracking.sync import deliver, undelivered

    home = find(project)
    if not home.database.exists():
        return ()
    with (
        exclusive(home.state / "sync.lock", {"command": "nbtools sync"}, note),
        open_for(home.root, writable=True) as opened,
    ):
        runs = undelivered(opened.database, running_id(home))
        address, secrets = address_of(opened), opened.workspace.secret_variables()
        return tuple(
            deliver(run, opened.database, home, address, note, secrets, redirect=redirect) for run in runs
        )
