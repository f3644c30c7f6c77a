"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from nbtools.errors import UsageError
from nbtools.pipeline.marked_yaml import parse_value
from nbtools.pipeline.space import Axis, is_single, read

targets = click.argument("targets", nargs=-1)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
params = click.option(
    "-p",
    "--param",
    "params",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a param; the value is typed as YAML.",
)
params_file = click.option(
    "--params-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="YAML file of params; -p wins over it.",
)
force = click.option("-f", "--force", is_flag=True, help="Run the targets even if they are up to date.")


def values(given: Sequence[str]) -> dict[str, Any]:
    """Return the params given as NAME=VALUE."""
    found: dict[str, Any] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise UsageError.of(f"{item!r} is no param", where="-p", fix="write -p name=value")
        try:
            found[name] = parse_value(value)
        except ValueError as error:
            fix = f"quote a text: -p '{name}=\"…\"'"
            raise UsageError.of(
                f"the value {value!r} is not valid YAML: {error}", where=f"-p {name}", fix=fix
            ) from error
    return found


def varied(given: Sequence[str]) -> tuple[dict[str, Axis], dict[str, Any]]:
    """Return what NAME=VALUE vary, and the params among them that have one plain value."""
    space: dict[str, Axis] = {}
    fixed: list[str] = []
    for item in given:
        name, equals, text = item.partition("=")
        if not equals or not name:
            raise UsageError.of(f"{item!r} is no param", where="-p", fix="write -p name=0,0.2,0.5")
        try:
            axis = read(text)
        except ValueError as error:
            fix = f"-p {name}=0,0.2,0.5, -p '{name}=range(0,1,0.25)', -p {name}=0..1, or quote a text"
            raise UsageError.of(str(error), where=f"-p {name}", fix=fix) from error
        if is_single(axis, text):
            fixed.append(item)
        else:
            space[name] = axis
    return space, values(fixed)
