"""The entry of the command line: the group of all commands, and how mistakes are told."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

import nbtools
from nbtools import api
from nbtools.cli import data, looking, programs, reproduce, running, runs, sweep, upkeep, views
from nbtools.cli.group import SuggestingGroup
from nbtools.errors import NbtoolsError
from nbtools.execution import slow_extras

_EPILOG = "Exit codes: 0 done, 1 a run failed, 2 wrong use or wrong pipelines.yaml, 130/143 interrupted."
_COMMANDS = (
    running.run,
    sweep.sweep,
    looking.plan,
    looking.why,
    looking.status,
    looking.history,
    looking.show,
    looking.graph,
    runs.runs,
    data.data,
    reproduce.reproduce,
    programs.open_stage,
    programs.lab,
    programs.ui,
    programs.debug,
    running.resume,
    upkeep.sync,
    upkeep.fsck,
    upkeep.gc,
    looking.schema,
)


def main() -> NoReturn:
    """Run the command line, as the program that this process is, and end with its code."""
    slow_extras.leave_out()
    _leave(code_of())


def code_of(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        code = cli.main(args=arguments, prog_name="nbtools", standalone_mode=False)
        sys.stdout.flush()
    except NbtoolsError as error:
        _print_error(error)
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever reads has enough (nbtools history | head); nothing more can be printed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    return code or 0


def _leave(code: int) -> NoReturn:
    """End the program without taking the interpreter apart, which needs up to a tenth of a second."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _print_error(error: NbtoolsError) -> None:
    context = click.get_current_context(silent=True)
    if "--json" in sys.argv[1:] and context is None:
        click.echo(json.dumps({"errors": [views.record(problem) for problem in error.problems]}))
    for problem in error.problems:
        click.echo(f"{click.style('error', fg='red', bold=True)}: {problem}", err=True)


@click.group(
    cls=SuggestingGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EPILOG,
)
@click.option(
    "--project", "-C", type=click.Path(path_type=Path), help="Folder of the project.  [default: here]"
)
@click.version_option(nbtools.__version__, prog_name="nbtools")
@click.pass_context
def cli(ctx: click.Context, project: Path | None) -> None:
    """Notebooks as cached, tracked pipelines.

    Alone, it prints what the project holds and the next sensible command.
    """
    ctx.obj = project
    if ctx.invoked_subcommand is None:
        click.echo(views.overview_text(api.status(project)))


for _command in _COMMANDS:
    cli.add_command(_command)
