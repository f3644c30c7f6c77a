"""Optional parts of other packages that take long to import and are of no use to nbtools' own processes."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: Whether this process is nbtools' own: in that of somebody who imports nbtools, nothing is left out.
_is_own = False


def leave_out() -> None:
    """Have what nobody needs here taken for not installed; only where the process is nbtools' own."""
    global _is_own  # noqa: PLW0603 - it is the process's
    _is_own = True
    # jsonschema checks the format "iri" where it finds this one, which builds a grammar at import (0.7 s).
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]


@contextmanager
def left_out(*names: str) -> Iterator[None]:
    """Have packages taken for not installed by what is imported in the block, in nbtools' own processes.

    No garbage is looked for meanwhile, and in nbtools' own processes what is there afterwards is never looked
    through again: what is imported stays.
    """
    hidden = [name for name in names if _is_own and name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if _is_own:
            gc.freeze()
        if was_collecting:
            gc.enable()
        for name in hidden:
            if sys.modules.get(name, ...) is None:
                sys.modules.pop(name, None)
