"""Delivering to MLflow what it has not heard of yet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nbtools.api.opening import address_of, find, open_for, running_id
from nbtools.execution.lock import exclusive

if TYPE_CHECKING:
    from nbtools.tracking.sync import Delivery


def sync(
    *, project: Path | str | None = None, note: Callable[[str], None] = lambda _: None
) -> tuple[Delivery, ...]:
    """Deliver to MLflow what it could not take when it happened, oldest run first, and return what became of it.

    Parameters
    ----------
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
        return tuple(deliver(run, opened.database, home, address_of(opened), note) for run in runs)
