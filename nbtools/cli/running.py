"""Commands that run stages."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nbtools import api
from nbtools.cli import options, printing, views

if TYPE_CHECKING:
    from nbtools.execution.cancellation import Cancellation


@click.command()
@options.targets
@options.params
@options.params_file
@click.option("-j", "--jobs", type=int, metavar="N", help="Stages to run at once.  [default: processors]")
@options.force
@click.option(
    "--fail-fast/--keep-going",
    help="Start nothing new after a failure, or go on with what does not depend on it (the default).",
)
@click.option(
    "--no-tracking",
    is_flag=True,
    help="Keep the run out of MLflow (the local history has it); no model can be registered.",
)
@click.option("--cold", is_flag=True, help="Start an ordinary kernel for each stage, none by forking.")
@click.option("--debug", is_flag=True, help="Keep the kernel of a failed cell: see nbtools debug.")
@click.option("-n", "--dry-run", is_flag=True, help="Only print the plan.")
@click.option("-q", "--quiet", is_flag=True, help="Print only failures and the last line.")
@options.as_json
@click.pass_obj
def run(  # noqa: PLR0913, PLR0917 - click hands over each option
    project: Path | None,
    targets: tuple[str, ...],
    params: tuple[str, ...],
    params_file: Path | None,
    jobs: int | None,
    force: bool,
    fail_fast: bool,
    no_tracking: bool,
    cold: bool,
    debug: bool,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Bring TARGETS up to date.

    A target is a pipeline, a stage (fit or train.fit) or a dataset; none means everything. What they
    need is included. What is up to date is not run.
    """
    values = options.values(params)
    if dry_run:
        made = api.plan(targets, params=values, params_file=params_file, force=force, project=project)
        printing.echo(views.plan_record(made) if as_json else views.plan_text(made, printing.width()))
        return 0
    return carry_out(
        api.run,
        targets,
        as_json=as_json,
        quiet=quiet,
        params=values,
        params_file=params_file,
        jobs=jobs,
        force=force,
        fail_fast=fail_fast,
        track=not no_tracking,
        cold=cold,
        debug=debug,
        project=project,
    )


def carry_out(
    verb: Callable[..., api.RunState], target: Any, *, as_json: bool, quiet: bool, **options: Any
) -> int:
    """Show a run while it goes on, stop it on signals, and return its exit code."""
    from nbtools.cli.progress import progress_for

    progress = progress_for(sys.stdout, json=as_json, quiet=quiet)
    cancellation = stoppable()
    try:
        outcome = verb(target, listeners=[progress], note=printing.note, cancellation=cancellation, **options)
    finally:
        progress.close()
    return exit_code(outcome.status, cancellation)


def stoppable() -> Cancellation:
    """Return what Ctrl-C and SIGTERM stop from now on."""
    from nbtools.execution.cancellation import Cancellation

    cancellation = Cancellation()
    _stop_on_signals(cancellation.request)
    return cancellation


def exit_code(status: str, cancellation: Cancellation) -> int:
    """Return the exit code of a run that ended with ``status``."""
    if status == "cancelled":
        return 128 + (cancellation.signal_number or signal.SIGINT)
    return 0 if status == "passed" else 1


def _stop_on_signals(request: Callable[[int], None]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _frame: request(received))


@click.command()
@click.argument("stage")
@click.option("--no-tracking", is_flag=True, help="Keep it out of MLflow.")
@click.option("-q", "--quiet", is_flag=True, help="Print only failures and the last line.")
@options.as_json
@click.pass_obj
def resume(project: Path | None, stage: str, no_tracking: bool, quiet: bool, as_json: bool) -> int:
    """Go on with STAGE at its failed cell, once the notebook is mended, without running the cells before it.

    The stage must have failed in "nbtools run --debug". Cells before the failed one, params, inputs, modules
    and packages must not have changed. The result is marked as resumed: stages may use it, but registering a
    model that was made from it needs a clean run or a reason.
    """
    return carry_out(api.resume, stage, as_json=as_json, quiet=quiet, track=not no_tracking, project=project)
