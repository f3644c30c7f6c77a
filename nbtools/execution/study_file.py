"""The journal of a study: Optuna's own format, readable by its tools; safe against a kill at any moment."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def storage_at(path: Path, note: Callable[[str], None]) -> Any:
    """Return Optuna's storage in the file at ``path``; one that cannot be read is set aside, and a new one begun.

    Parameters
    ----------
    note
        Told if that was so.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _cut_torn_end(path)
    try:
        return _opened(path)
    except Exception:  # noqa: BLE001 - whatever Optuna makes of damaged bytes
        aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
        os.replace(path, aside)
        note(f"the study was damaged, and is now {aside.name} beside it: the search begins anew")
        return _opened(path)


def _opened(path: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    class Held(JournalFileOpenLock):
        """The project's own lock is held already; Optuna's would outlive a kill and be waited for."""

        def acquire(self) -> bool:
            return True

        def release(self) -> None:
            pass

    return JournalStorage(JournalFileBackend(str(path), lock_obj=Held(str(path))))


def _cut_torn_end(path: Path) -> None:
    """Cut what a killed process has left half written: Optuna would append to it."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        os.truncate(path, len(whole))
