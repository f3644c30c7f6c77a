"""Optional parts of other packages that take long to import and are of no use to nbtools' own processes."""

from __future__ import annotations

import sys


def leave_out() -> None:
    """Have them taken for not installed in this process; only where the process is nbtools' own."""
    # jsonschema checks the format "iri" where it finds this one, which builds a grammar at import (0.7 s).
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
