"""The command that repeats an earlier run."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from nbtools import api
from nbtools.cli import options, printing, text, views
from nbtools.cli.running import exit_code, stoppable


@click.command()
@click.argument("run")
@click.argument("stages", nargs=-1, metavar="[STAGE…]")
@click.option(
    "--environment",
    type=click.Choice(["build", "check", "current"]),
    default="build",
    show_default=True,
    help="If packages are not those of the run: build the environment with uv, stop, or use what is installed.",
)
@click.option(
    "--rtol", type=float, default=1e-6, show_default=True, help="How far numbers may be apart, relatively."
)
@click.option(
    "--ignore",
    multiple=True,
    metavar="NAME",
    help="Metric or dataset that may differ, such as a duration; * stands for any text.",
)
@click.option("-j", "--jobs", type=int, metavar="N", help="Stages to run at once.  [default: processors]")
@click.option("-q", "--quiet", is_flag=True, help="Print only the verdicts.")
@options.as_json
@click.pass_obj
def reproduce(  # noqa: PLR0913, PLR0917 - click hands over each option
    project: Path | None,
    run: str,
    stages: tuple[str, ...],
    environment: str,
    rtol: float,
    ignore: tuple[str, ...],
    jobs: int | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Repeat an earlier RUN, all of it or some STAGEs, and compare what it makes.

    The commit, and what differed from it, is checked out into a temporary folder; packages and data are those of the
    run, no cached result is used, and the project's MLflow does not hear of it. Exits with 0 only if every stage made
    the same.
    """
    from nbtools.cli.progress import progress_for

    silent = quiet or as_json
    progress = progress_for(sys.stdout, json=False, quiet=False)
    cancellation = stoppable()
    try:
        found = api.reproduce(
            run,
            stages,
            environment=environment,
            rtol=rtol,
            ignore=ignore,
            jobs=jobs,
            project=project,
            listeners=[] if silent else [progress],
            note=printing.note,
            cancellation=cancellation,
        )
    finally:
        progress.close()
    printing.echo(views.record(found) if as_json else reproduction_text(found, printing.width()))
    status = {"reproduced": "passed", "cancelled": "cancelled"}.get(found.status, "failed")
    return exit_code(status, cancellation)


def reproduction_text(found: api.Reproduction, width: int | None) -> str:
    """Return the verdict on each stage, and on the run."""
    rows = [[item.verdict, item.stage, (item.differences or ("",))[0]] for item in found.stages]
    lines = [text.table(["verdict", "stage", "what differs first"], rows, width=width)]
    for item in found.stages:
        if len(item.differences) > 1 and not item.is_reproduced:
            lines += ["", f"{item.stage}:", *(f"  {text.plain(line)}" for line in item.differences)]
    counts: dict[str, int] = {}
    for item in found.stages:
        counts[item.verdict] = counts.get(item.verdict, 0) + 1
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    head = {"reproduced": "reproduced", "cancelled": "cancelled"}.get(found.status, "not reproduced")
    packages = f"; {len(found.environment)} packages are not those of then" if found.environment else ""
    return "\n".join([*lines, "", f"{head}: run {found.run}, {told}{packages}"])
