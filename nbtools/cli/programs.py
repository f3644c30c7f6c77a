"""Commands that turn into a program of Jupyter's, or of MLflow's."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from nbtools import api
from nbtools.cli import printing
from nbtools.cli.running import carry_out

#: What nbtools does not know is an option of the program that it starts.
_PASSING_ON = {"ignore_unknown_options": True}
_jupyter = click.argument("jupyter_options", nargs=-1, type=click.UNPROCESSED)


@click.command("open", context_settings=_PASSING_ON)
@click.argument("stage")
@_jupyter
@click.pass_obj
def open_stage(project: Path | None, stage: str, jupyter_options: tuple[str, ...]) -> None:
    """Open the last executed notebook of STAGE in JupyterLab; the failed one if it failed.

    Options of JupyterLab are passed on: nbtools open fit --no-browser
    """
    become(api.lab(stage, project=project), jupyter_options)


@click.command(context_settings=_PASSING_ON)
@_jupyter
@click.pass_obj
def lab(project: Path | None, jupyter_options: tuple[str, ...]) -> None:
    """Open the project in JupyterLab; what notebooks log goes to the project's tracking store.

    Options of JupyterLab are passed on: nbtools lab --port 9000
    """
    become(api.lab(project=project), jupyter_options)


@click.command(context_settings=_PASSING_ON)
@click.argument("stage")
@_jupyter
@click.pass_obj
def debug(project: Path | None, stage: str, jupyter_options: tuple[str, ...]) -> int:
    """Open a console on the kernel of STAGE's failed cell, with all its variables.

    The kernel is there if the stage failed in "nbtools run --debug"; otherwise the stage is run that way now.
    %debug in the console goes to where the error was raised. Leave it with Ctrl-D and answer "no" to keep
    the kernel. Options of jupyter console are passed on.
    """
    found = api.debug(stage, project=project)
    if found is None:
        code = carry_out(api.run, (stage,), as_json=False, quiet=False, debug=True, project=project)
        found = api.debug(stage, project=project)
        if found is None:
            if code == 0:
                printing.echo(f"{stage} did not fail: there is nothing to look into")
            return code
    printing.echo(
        " ".join(found.words[1:])
        if not sys.stdin.isatty()
        else f"nbtools resume {stage} goes on at the failed cell"
    )
    if not sys.stdin.isatty():
        return 0
    become(found, jupyter_options)
    return 0


@click.command(context_settings=_PASSING_ON)
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Where it listens.  [default: from 5000, a free one]"
)
@click.argument("mlflow_options", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def ui(project: Path | None, port: int | None, mlflow_options: tuple[str, ...]) -> None:
    """Open MLflow's pages on the project's runs, for this machine only, until Ctrl-C.

    Where a server keeps the runs, its address is printed. Options of mlflow server are passed on.
    """
    found = api.ui(port=port, project=project)
    printing.echo(found.url)
    if found.command is not None:
        become(found.command, mlflow_options)


def become(command: api.LabCommand, options: Sequence[str]) -> None:
    """Turn this process into another program."""
    sys.stdout.flush()
    os.chdir(command.folder)
    os.execve(command.words[0], [*command.words, *options], {**os.environ, **command.environment})  # noqa: S606 - no shell
