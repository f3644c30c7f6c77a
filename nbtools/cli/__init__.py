"""The command line: a view over ``nbtools.api``; no decision is taken here."""

from nbtools.cli.commands import main

__all__ = ["main"]
