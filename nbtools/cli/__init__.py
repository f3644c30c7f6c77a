"""The command line: a view over ``nbtools.api``; no decision is taken here."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    if sys.argv[1:2] == ["run"]:
        from nbtools.execution.kernels.warm.begun import begin_early

        begin_early(sys.argv[2:])
    from nbtools.cli.main import main

    main()


__all__ = ["main"]
