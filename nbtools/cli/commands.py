"""The commands. Each calls one function of ``nbtools.api`` and prints what it returns."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

import nbtools
from nbtools import api
from nbtools.cli import views
from nbtools.errors import NbtoolsError, UsageError
from nbtools.execution import slow_extras
from nbtools.pipeline.marked_yaml import parse_value

_EPILOG = "Exit codes: 0 done, 1 a run failed, 2 wrong use or wrong pipelines.yaml, 130/143 interrupted."


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    slow_extras.leave_out()
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
    sys.exit(code or 0)


def _print_error(error: NbtoolsError) -> None:
    context = click.get_current_context(silent=True)
    if "--json" in sys.argv[1:] and context is None:
        click.echo(json.dumps({"errors": [views.record(problem) for problem in error.problems]}))
    for problem in error.problems:
        click.echo(f"{click.style('error', fg='red', bold=True)}: {problem}", err=True)


class _Suggesting(click.Group):
    """A group that answers an unknown command with the nearest one."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            from nbtools.errors import suggest

            raise click.UsageError(
                f"no such command {args[0]!r}; {suggest(args[0], self.commands, 'command')}", ctx
            )
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Suggesting,
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


_targets = click.argument("targets", nargs=-1)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
_params = click.option(
    "-p",
    "--param",
    "params",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a param; the value is typed as YAML.",
)
_params_file = click.option(
    "--params-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="YAML file of params; -p wins over it.",
)
_force = click.option("-f", "--force", is_flag=True, help="Run the targets even if they are up to date.")


@cli.command()
@_targets
@_params
@_params_file
@click.option("-j", "--jobs", type=int, metavar="N", help="Stages to run at once.  [default: processors]")
@_force
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
@_json
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
    values = _values(params)
    if dry_run:
        made = api.plan(targets, params=values, params_file=params_file, force=force, project=project)
        _echo(views.plan_record(made) if as_json else views.plan_text(made, _width()))
        return 0
    return _carry_out(
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


def _carry_out(
    verb: Callable[..., api.RunState], target: Any, *, as_json: bool, quiet: bool, **options: Any
) -> int:
    """Show a run while it goes on, stop it on signals, and return its exit code."""
    from nbtools.cli.progress import progress_for
    from nbtools.execution.cancellation import Cancellation

    cancellation = Cancellation()
    _stop_on_signals(cancellation.request)
    progress = progress_for(sys.stdout, json=as_json, quiet=quiet)
    try:
        outcome = verb(target, listeners=[progress], note=_note, cancellation=cancellation, **options)
    finally:
        progress.close()
    if outcome.status == "cancelled":
        return 128 + (cancellation.signal_number or signal.SIGINT)
    return 0 if outcome.status == "passed" else 1


@cli.command()
@_targets
@_params
@_params_file
@_force
@_json
@click.pass_obj
def plan(
    project: Path | None,
    targets: tuple[str, ...],
    params: tuple[str, ...],
    params_file: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Print what would run so that TARGETS are up to date, and why."""
    made = api.plan(targets, params=_values(params), params_file=params_file, force=force, project=project)
    _echo(views.plan_record(made) if as_json else views.plan_text(made, _width()))


@cli.command()
@click.argument("stage")
@_params
@_json
@click.pass_obj
def why(project: Path | None, stage: str, params: tuple[str, ...], as_json: bool) -> None:
    """Print exactly why STAGE would run: cells, params, inputs, modules, packages."""
    found = api.why(stage, params=_values(params), project=project)
    _echo(views.record(found) if as_json else views.why_text(found))


@cli.command()
@_json
@click.pass_obj
def status(project: Path | None, as_json: bool) -> None:
    """Print where every stage stands."""
    found = api.status(project)
    _echo(views.record(found) if as_json else views.status_text(found, _width()))


@cli.command()
@click.option(
    "--status",
    "state",
    type=click.Choice(["passed", "failed", "cancelled", "aborted", "running"]),
    help="Only runs with this status.",
)
@click.option("--branch", help="Only runs of this branch.")
@click.option("--commit", help="Only runs of this commit (may be abbreviated).")
@click.option("-n", "--limit", type=click.IntRange(1), metavar="N", help="At most N runs.")
@_json
@click.option(
    "--csv", "csv_file", type=click.Path(path_type=Path), metavar="FILE", help="Write CSV to FILE (- prints)."
)
@click.pass_obj
def history(
    project: Path | None,
    state: str | None,
    branch: str | None,
    commit: str | None,
    limit: int | None,
    as_json: bool,
    csv_file: Path | None,
) -> None:
    """Print past runs, newest first."""
    rows = api.history(
        status=state or "", branch=branch or "", commit=commit or "", limit=limit, project=project
    )
    if csv_file is not None:
        _write(csv_file, views.history_csv(rows))
    elif as_json:
        _echo([views.history_record(row) for row in rows])
    else:
        _echo(views.history_text(rows, _width()))


@cli.command()
@click.argument("run", default="latest")
@_json
@click.pass_obj
def show(project: Path | None, run: str, as_json: bool) -> None:
    """Print one RUN: stages, durations, metrics, the failing cell.

    RUN is an id, the end of one, or "latest".
    """
    found = api.show(run, project=project)
    _echo(views.record(found) if as_json else views.run_text(found, _width(), color=_color()))


@cli.command()
@_targets
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "mermaid", "svg"]),
    default=None,
    help="Form of the picture.  [default: text, or by the ending of --output]",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write to FILE.")
@click.option("--plain", is_flag=True, help="Leave out what would happen to each stage.")
@_json
@click.pass_obj
def graph(
    project: Path | None,
    targets: tuple[str, ...],
    form: str | None,
    output: Path | None,
    plain: bool,
    as_json: bool,
) -> None:
    """Print the DAG of TARGETS and what they need."""
    from nbtools.reports import dag

    found = api.graph(targets, states=not plain, project=project)
    if as_json:
        _echo(views.record(found))
        return
    endings = {".svg": "svg", ".mmd": "mermaid", ".mermaid": "mermaid"}
    form = form or (endings.get(output.suffix, "text") if output else "text")
    draw = {"text": dag.as_text, "mermaid": dag.as_mermaid, "svg": dag.as_svg}[form]
    if output:
        _write(output, draw(found) + "\n")
    else:
        _echo(draw(found))


#: What nbtools does not know is an option of the program that it starts.
_PASSING_ON = {"ignore_unknown_options": True}
_jupyter = click.argument("jupyter_options", nargs=-1, type=click.UNPROCESSED)


@cli.command("open", context_settings=_PASSING_ON)
@click.argument("stage")
@_jupyter
@click.pass_obj
def open_stage(project: Path | None, stage: str, jupyter_options: tuple[str, ...]) -> None:
    """Open the last executed notebook of STAGE in JupyterLab; the failed one if it failed.

    Options of JupyterLab are passed on: nbtools open fit --no-browser
    """
    _become(api.lab(stage, project=project), jupyter_options)


@cli.command(context_settings=_PASSING_ON)
@_jupyter
@click.pass_obj
def lab(project: Path | None, jupyter_options: tuple[str, ...]) -> None:
    """Open the project in JupyterLab; what notebooks log goes to the project's tracking store.

    Options of JupyterLab are passed on: nbtools lab --port 9000
    """
    _become(api.lab(project=project), jupyter_options)


@cli.command(context_settings=_PASSING_ON)
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
        code = _carry_out(api.run, (stage,), as_json=False, quiet=False, debug=True, project=project)
        found = api.debug(stage, project=project)
        if found is None:
            if code == 0:
                _echo(f"{stage} did not fail: there is nothing to look into")
            return code
    _echo(
        " ".join(found.words[1:])
        if not sys.stdin.isatty()
        else f"nbtools resume {stage} goes on at the failed cell"
    )
    if not sys.stdin.isatty():
        return 0
    _become(found, jupyter_options)
    return 0


@cli.command()
@click.argument("stage")
@click.option("--no-tracking", is_flag=True, help="Keep it out of MLflow.")
@click.option("-q", "--quiet", is_flag=True, help="Print only failures and the last line.")
@_json
@click.pass_obj
def resume(project: Path | None, stage: str, no_tracking: bool, quiet: bool, as_json: bool) -> int:
    """Go on with STAGE at its failed cell, once the notebook is mended, without running the cells before it.

    The stage must have failed in "nbtools run --debug". Cells before the failed one, params, inputs, modules
    and packages must not have changed. The result is marked as resumed: stages may use it, but registering a
    model that was made from it needs a clean run or a reason.
    """
    return _carry_out(api.resume, stage, as_json=as_json, quiet=quiet, track=not no_tracking, project=project)


@cli.command()
@click.option("--redirect", is_flag=True, help="Deliver here also what was meant for another server.")
@_json
@click.pass_obj
def sync(project: Path | None, redirect: bool, as_json: bool) -> int:
    """Deliver to MLflow what it could not take when it happened."""
    delivered = api.sync(redirect=redirect, project=project, note=_note)
    if as_json:
        _echo([views.record(item) for item in delivered])
    for item in () if as_json else delivered:
        _echo("\n".join([f"{item.run}: {'not delivered' if item.problems else 'delivered'}", *item.problems]))
    if not delivered and not as_json:
        _echo("MLflow knows of every run")
    return int(any(item.problems for item in delivered))


@cli.command()
@_json
@click.pass_obj
def fsck(project: Path | None, as_json: bool) -> int:
    """Check every stored byte; set aside what is damaged, and say which stages make it again."""
    report = api.fsck(project=project, note=_note)
    _echo(views.record(report) if as_json else views.store_text(report))
    return int(not report.sound)


@cli.command()
@click.option(
    "--keep-days",
    type=float,
    default=30.0,
    show_default=True,
    metavar="N",
    help="Keep what a run made or reused in the last N days.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Only print what would be freed.")
@_json
@click.pass_obj
def gc(project: Path | None, keep_days: float, dry_run: bool, as_json: bool) -> None:
    """Free stored results that are not in use and that no recent run needed.

    A stage whose earlier result was freed runs again when it is wanted.
    """
    freed = api.gc(keep_days=keep_days, dry_run=dry_run, project=project, note=_note)
    _echo(views.record(freed) if as_json else views.freed_text(freed, dry_run=dry_run))


@cli.command()
def schema() -> None:
    """Print the JSON Schema of pipelines.yaml, for editors."""
    _echo(api.schema())


def _values(params: Sequence[str]) -> dict[str, Any]:
    """Return the params given as NAME=VALUE."""
    values: dict[str, Any] = {}
    for item in params:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise UsageError.of(f"{item!r} is no param", where="-p", fix="write -p name=value")
        try:
            values[name] = parse_value(value)
        except ValueError as error:
            fix = f"quote a text: -p '{name}=\"…\"'"
            raise UsageError.of(
                f"the value {value!r} is not valid YAML: {error}", where=f"-p {name}", fix=fix
            ) from error
    return values


def _become(command: api.LabCommand, options: Sequence[str]) -> None:
    """Turn this process into another program."""
    sys.stdout.flush()
    os.chdir(command.folder)
    os.execve(command.words[0], [*command.words, *options], {**os.environ, **command.environment})  # noqa: S606 - no shell


def _note(words: str) -> None:
    click.echo(f"note: {words}", err=True)


def _echo(value: Any) -> None:
    click.echo(value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False))


def _write(path: Path, content: str) -> None:
    if str(path) == "-":
        click.echo(content, nl=False)
        return
    from nbtools.execution.files import explained, write_atomically

    with explained(f"cannot write {path}"):
        write_atomically(path, content.encode())
    click.echo(f"wrote {path}", err=True)


def _width() -> int | None:
    """Return the width of the terminal; None when the output is no terminal, so that nothing is cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _color() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def _stop_on_signals(request: Callable[[int], None]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _frame: request(received))
