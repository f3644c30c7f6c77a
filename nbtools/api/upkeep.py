"""Keeping a project's store sound and small."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nbtools.api.opening import find, open_for
from nbtools.errors import UsageError
from nbtools.execution.lock import exclusive

if TYPE_CHECKING:
    from nbtools.execution.upkeep import Freed, StoreReport

_DAY_S = 86_400.0
#: For how long ``gc`` keeps results that are not in use, in days.
KEPT_DAYS = 30.0


def fsck(*, project: Path | str | None = None, note: Callable[[str], None] = lambda _: None) -> StoreReport:
    """Read everything that is stored and compare it with its digest; set aside what is damaged, mend what can be.

    Parameters
    ----------
    note
        Told, in words, of what a person should know meanwhile.

    Raises
    ------
    NbtoolsError
        For mistakes in pipelines.yaml, or if the project's folder cannot be written to.
    """
    from nbtools.execution.upkeep import StoreReport, check

    home = find(project)
    if not home.database.exists():
        return StoreReport(0, 0)
    with (
        exclusive(home.state / "run.lock", {"command": "nbtools fsck"}, note),
        open_for(home.root, writable=True) as opened,
    ):
        return check(home, opened.database, opened.dag.variants)


def gc(
    *,
    keep_days: float = KEPT_DAYS,
    dry_run: bool = False,
    project: Path | str | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> Freed:
    """Free what belongs to no result that is in use or that a run made or reused lately.

    Parameters
    ----------
    keep_days
        How long ago "lately" begins.
    dry_run
        Whether nothing is removed.

    Raises
    ------
    NbtoolsError
        If the project's folder cannot be written to, or what is kept is damaged.
    """
    from nbtools.execution.database import Database
    from nbtools.execution.upkeep import Freed, free

    if not keep_days >= 0:
        raise UsageError.of(f"{keep_days:g} days are no length of time", where="--keep-days")
    home = find(project)
    if not home.database.exists():
        return Freed(0, 0, 0, 0, 0)
    with exclusive(home.state / "run.lock", {"command": "nbtools gc"}, note):
        database = Database(home.database, writable=True)
        try:
            return free(home, database, time.time() - keep_days * _DAY_S, dry_run=dry_run)
        finally:
            database.close()
