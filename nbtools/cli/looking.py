"""Commands that show where things stand and what would run."""

from __future__ import annotations

from pathlib import Path

import click

from nbtools import api
from nbtools.cli import options, printing, views


@click.command()
@options.targets
@options.params
@options.params_file
@options.force
@options.as_json
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
    made = api.plan(
        targets, params=options.values(params), params_file=params_file, force=force, project=project
    )
    printing.echo(views.plan_record(made) if as_json else views.plan_text(made, printing.width()))


@click.command()
@click.argument("stage")
@options.params
@options.as_json
@click.pass_obj
def why(project: Path | None, stage: str, params: tuple[str, ...], as_json: bool) -> None:
    """Print exactly why STAGE would run: cells, params, inputs, modules, packages."""
    found = api.why(stage, params=options.values(params), project=project)
    printing.echo(views.record(found) if as_json else views.why_text(found))


@click.command()
@options.as_json
@click.pass_obj
def status(project: Path | None, as_json: bool) -> None:
    """Print where every stage stands."""
    found = api.status(project)
    printing.echo(views.record(found) if as_json else views.status_text(found, printing.width()))


@click.command()
@click.option(
    "--status",
    "state",
    type=click.Choice(["passed", "failed", "cancelled", "aborted", "running"]),
    help="Only runs with this status.",
)
@click.option("--branch", help="Only runs of this branch.")
@click.option("--commit", help="Only runs of this commit (may be abbreviated).")
@click.option("-n", "--limit", type=click.IntRange(1), metavar="N", help="At most N runs.")
@options.as_json
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
        printing.write(csv_file, views.history_csv(rows))
    elif as_json:
        printing.echo([views.history_record(row) for row in rows])
    else:
        printing.echo(views.history_text(rows, printing.width()))


@click.command()
@click.argument("run", default="latest")
@options.as_json
@click.pass_obj
def show(project: Path | None, run: str, as_json: bool) -> None:
    """Print one RUN: stages, durations, metrics, the failing cell.

    RUN is an id, the end of one, or "latest".
    """
    found = api.show(run, project=project)
    printing.echo(
        views.record(found) if as_json else views.run_text(found, printing.width(), color=printing.color())
    )


@click.command()
@options.targets
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "mermaid", "svg"]),
    default=None,
    help="Form of the picture.  [default: text, or by the ending of --output]",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write to FILE.")
@click.option("--plain", is_flag=True, help="Leave out what would happen to each stage.")
@options.as_json
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
        printing.echo(views.record(found))
        return
    endings = {".svg": "svg", ".mmd": "mermaid", ".mermaid": "mermaid"}
    form = form or (endings.get(output.suffix, "text") if output else "text")
    draw = {"text": dag.as_text, "mermaid": dag.as_mermaid, "svg": dag.as_svg}[form]
    if output:
        printing.write(output, draw(found) + "\n")
    else:
        printing.echo(draw(found))


@click.command()
def schema() -> None:
    """Print the JSON Schema of pipelines.yaml, for editors."""
    printing.echo(api.schema())
