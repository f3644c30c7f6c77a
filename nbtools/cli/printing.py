"""How commands print, and write files that were asked for."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import click


def note(words: str) -> None:
    """Print what a user may want to know besides; not with the results."""
    click.echo(f"note: {words}", err=True)


def echo(value: Any) -> None:
    """Print a text as it is, everything else as JSON."""
    click.echo(value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False))


def write(path: Path, content: str) -> None:
    """Write a file whole or not at all; ``-`` prints."""
    if str(path) == "-":
        click.echo(content, nl=False)
        return
    from nbtools.execution.files import explained, write_atomically

    with explained(f"cannot write {path}"):
        write_atomically(path, content.encode())
    click.echo(f"wrote {path}", err=True)


def width() -> int | None:
    """Return the width of the terminal; None when the output is no terminal, so that nothing is cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def color() -> bool:
    """Tell whether the output is a terminal whose user has not forbidden colors."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ
