"""Commands that find runs in MLflow and compare them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from nbtools import api
from nbtools.api import Level
from nbtools.cli import options, printing, run_views
from nbtools.cli.group import SuggestingGroup
from nbtools.errors import UsageError

#: How many rows a table has unless more are asked for.
_ROWS = 50

_level = click.option(
    "--level",
    type=click.Choice(["stage", "pipeline", "all"]),
    default="stage",
    show_default=True,
    help="Runs of stages, of pipelines, or all that the experiment holds.",
)
_experiments = click.option(
    "--experiment",
    "experiments",
    multiple=True,
    metavar="NAME",
    help="An MLflow experiment (may be repeated).  [default: the project's]",
)


@click.group(cls=SuggestingGroup)
def runs() -> None:
    """Find runs in MLflow and compare them."""


@runs.command()
@click.argument("filter_string", metavar="[FILTER]", default="")
@click.option("--filter-metrics", "metrics", metavar="NAMES", help="Only these metrics as columns: rmse,r2")
@click.option("--filter-params", "params", metavar="NAMES", help="Only these params: alpha,l1_ratio")
@click.option(
    "--sort",
    multiple=True,
    metavar="ORDER",
    help='In MLflow\'s grammar: "metrics.r2 desc" (may be repeated).',
)
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(1),
    metavar="N",
    help=f"At most N runs.  [default: {_ROWS} in a table, else all]",
)
@_level
@_experiments
@click.option(
    "--csv", "csv_file", type=click.Path(path_type=Path), metavar="FILE", help="Write CSV to FILE (- prints)."
)
@options.as_json
@click.pass_obj
def search(  # noqa: PLR0913, PLR0917 - click hands over each option
    project: Path | None,
    filter_string: str,
    metrics: str | None,
    params: str | None,
    sort: tuple[str, ...],
    limit: int | None,
    level: Level,
    experiments: tuple[str, ...],
    csv_file: Path | None,
    as_json: bool,
) -> None:
    """Print the runs that FILTER keeps, newest first.

    FILTER is MLflow's grammar unchanged: "metrics.r2 > 0.24 and params.alpha = '0.5'".
    """
    as_table = csv_file is None and not as_json
    wanted = api.RunSearch(
        filter_string,
        metrics=_names(metrics),
        params=_names(params),
        sort=sort,
        limit=limit or (_ROWS + 1 if as_table else None),
        level=level,
        experiments=experiments,
    )
    found = api.search(wanted, project=project)
    if csv_file is not None:
        printing.write(csv_file, run_views.runs_csv(found, wanted.metrics, wanted.params))
    elif as_json:
        printing.echo([run_views.run_record(run) for run in found])
    else:
        shown = found if limit else found[:_ROWS]
        printing.echo(run_views.runs_text(shown, wanted.metrics, wanted.params, printing.width()))
        if len(found) > len(shown):
            printing.note(f"these are the first {_ROWS}; --limit N shows more, --csv FILE has all")
    if not found:
        for words in api.unknown_names(wanted, project=project):
            printing.note(words)


@runs.command()
@click.argument("names", nargs=-1, metavar="RUN RUN…")
@click.option(
    "--html", type=click.Path(path_type=Path), metavar="FILE", help="Write a page with pictures, for offline."
)
@_experiments
@options.as_json
@click.pass_obj
def compare(
    project: Path | None,
    names: tuple[str, ...],
    html: Path | None,
    experiments: tuple[str, ...],
    as_json: bool,
) -> None:
    """Print what differs between runs: params, metrics, data, code, packages, durations.

    RUN is the beginning of an MLflow run id, an nbtools run ("latest", "latest~1", an id or its end) or one stage
    of it: "latest:fit". A stage with several variants means all of them.
    """
    if not names:
        raise UsageError.of("no run was named", fix="nbtools runs compare latest~1 latest")
    found = api.compare(names, html=html, experiments=experiments, project=project)
    printing.echo(
        run_views.comparison_record(found) if as_json else run_views.comparison_text(found, printing.width())
    )
    if html is not None:
        click.echo(f"wrote {html}", err=True)


@runs.command()
@click.argument("filter_string", metavar="[FILTER]", default="")
@click.option("--metric", required=True, metavar="NAME", help="The metric that decides.")
@click.option(
    "--direction",
    metavar="max|min",
    default="max",
    show_default=True,
    help="Whether the largest or the smallest is best.",
)
@_level
@_experiments
@options.as_json
@click.pass_obj
def best(
    project: Path | None,
    filter_string: str,
    metric: str,
    direction: str,
    level: Level,
    experiments: tuple[str, ...],
    as_json: bool,
) -> None:
    """Print the finished run with the best value of a metric, among those that FILTER keeps."""
    found = api.best(
        metric,
        direction=direction,
        filter_string=filter_string,
        level=level,
        experiments=experiments,
        project=project,
    )
    printing.echo(run_views.run_record(found) if as_json else run_views.best_text(found, metric))


def _names(given: str | None) -> Sequence[str] | None:
    if given is None:
        return None
    names = [name.strip().removeprefix("metrics.").removeprefix("params.") for name in given.split(",")]
    return [name for name in names if name]
