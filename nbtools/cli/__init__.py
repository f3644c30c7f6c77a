"""The command line: a view over ``nbtools.api``; no decision is taken here."""

from nbtools.cli.main import main

__all__ = ["main"]
