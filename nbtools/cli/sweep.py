"""The command that runs a stage at many points."""

from __future__ import annotations

import csv
import io
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from nbtools import api
from nbtools.cli import options, printing, running, text, views
from nbtools.pipeline.dag import shown_value
from nbtools.pipeline.marked_yaml import parse_value
from nbtools.pipeline.spec import ParamValue

#: How many metrics the table shows, the one that decides first.
_METRICS = 6
#: How many variants the table shows; the rest is in --csv and --json.
_ROWS = 50


@click.command()
@click.argument("stage")
@click.option(
    "-p",
    "--param",
    "params",
    multiple=True,
    metavar="NAME=VALUES",
    help="Vary a param: 0,0.2,0.5, range(0,1,0.25), linspace(0,1,5); for samplers also 0..1 and log(1e-4..1). "
    "With a single value, set a param for all.",
)
@options.params_file
@click.option(
    "--sampler",
    default="grid",
    metavar="NAME",
    show_default=True,
    help="grid: every combination; random or tpe: let Optuna draw.",
)
@click.option(
    "--trials",
    type=int,
    metavar="N",
    help="Variants to draw, those of earlier runs of this search included.  [default: 20]",
)
@click.option(
    "-m",
    "--metric",
    default="",
    metavar="NAME",
    help="What the notebook logs and variants are compared by.",
)
@click.option(
    "--direction",
    metavar="max|min",
    help="Whether the largest or the smallest is best.  [default: max of scores such as r2, else min]",
)
@click.option("--seed", type=int, default=0, show_default=True, help="What a sampler's draws follow from.")
@click.option(
    "--prune",
    is_flag=True,
    help="Stop a variant whose metric, logged with a step, is worse than the median of the others.",
)
@click.option("-j", "--jobs", type=int, metavar="N", help="Variants to run at once.  [default: processors]")
@click.option("--fail-fast", is_flag=True, help="Start nothing new after a failure.")
@click.option("--no-tracking", is_flag=True, help="Keep the sweep out of MLflow.")
@click.option("--cold", is_flag=True, help="Start an ordinary kernel for each variant, none by forking.")
@click.option("-n", "--dry-run", is_flag=True, help="Only print the plan.")
@click.option("-q", "--quiet", is_flag=True, help="Print only failures and the table.")
@click.option(
    "--csv", "csv_file", type=click.Path(path_type=Path), metavar="FILE", help="Write the table; - prints it."
)
@options.as_json
@click.pass_obj
def sweep(  # noqa: PLR0913, PLR0917 - click hands over each option
    project: Path | None,
    stage: str,
    params: tuple[str, ...],
    params_file: Path | None,
    sampler: Any,
    trials: int | None,
    metric: str,
    direction: Any,
    seed: int,
    prune: bool,
    jobs: int | None,
    fail_fast: bool,
    no_tracking: bool,
    cold: bool,
    dry_run: bool,
    quiet: bool,
    csv_file: Path | None,
    as_json: bool,
) -> int:
    """Run STAGE at many points: every combination of values, or what a sampler draws.

    Without -p, the matrix in pipelines.yaml is swept. Each variant is a cached run of the stage and a run in
    MLflow; what is known is not run again, so the same command goes on where one that was killed had come to.
    """
    space, fixed = options.varied(params)
    asked: dict[str, Any] = {
        "sampler": sampler,
        "trials": trials,
        "metric": metric,
        "prune": prune,
        "params": fixed,
        "params_file": params_file,
        "project": project,
    }
    if dry_run:
        made = api.plan_sweep(stage, space or None, **asked)
        printing.echo(views.plan_record(made) if as_json else views.plan_text(made, printing.width()))
        if not as_json and (sampler != "grid" or prune):
            click.echo(f"then variants of {stage} are drawn ({sampler})")
        return 0
    cancellation = running.stoppable()
    silent = as_json or str(csv_file) == "-"
    progress = _progress(quiet=quiet, silent=silent)
    try:
        result = api.sweep(
            stage,
            space or None,
            **asked,
            direction=direction,
            seed=seed,
            jobs=jobs,
            fail_fast=fail_fast,
            track=not no_tracking,
            cold=cold,
            listeners=[progress] if progress else [],
            note=printing.note,
            cancellation=cancellation,
        )
    finally:
        if progress:
            progress.close()
    if csv_file:
        printing.write(csv_file, csv_text(result))
    if as_json:
        printing.echo(views.record(result) | {"best": views.record(result.best)})
    elif not silent:
        same = [item for item in params if item.partition("=")[0] in fixed]
        click.echo(result_text(result, printing.width(), same))
    if result.problem and not as_json:
        click.echo(f"{click.style('error', fg='red', bold=True)}: {result.problem}", err=True)
    return running.exit_code(result.status, cancellation) or int(bool(result.problem))


def _progress(*, quiet: bool, silent: bool) -> Any:
    if silent:
        return None
    from nbtools.cli.progress import progress_for

    return progress_for(sys.stdout, quiet=quiet)


def result_text(result: api.SweepResult, width: int | None, fixed: Sequence[str] = ()) -> str:
    """Return a sweep as a table, the best first, and how to use the best.

    Parameters
    ----------
    fixed
        Params that all variants had, as NAME=VALUE.
    """
    if not result.variants:
        return f"{result.stage}: no variant was run"
    params = _names(result, "params")
    metrics = _names(result, "metrics")
    if result.metric in metrics:
        metrics = [result.metric, *(name for name in metrics if name != result.metric)]
    shown = metrics[:_METRICS]
    rows = [
        [
            *(_shown(row.params, name) for name in params),
            *(f"{row.metrics[name]:.4g}" if name in row.metrics else "" for name in shown),
            row.state,
            text.duration(row.duration_s) if row.duration_s else "",
            row.reason,
        ]
        for row in result.variants[:_ROWS]
    ]
    headers = [*params, *shown, "state", "took", ""]
    align = "<" * len(params) + ">" * len(shown) + "<>"
    lines = ["", text.table(headers, rows, width=width, align=align)]
    if len(result.variants) > _ROWS:
        lines.append(f"and {len(result.variants) - _ROWS} more: --csv FILE has them all")
    if len(metrics) > _METRICS:
        lines.append(f"more metrics: {', '.join(metrics[_METRICS:])}")
    if result.best:
        lines += [
            "",
            f"best: {result.best.variant}, {result.metric} = {result.best.metrics[result.metric]:.6g}",
        ]
        if result.in_matrix:  # a run would take the matrix of the file
            lines += [f"{name}: {path}" for name, path in result.best.outputs.items()]
        else:
            words = " ".join(f"-p {shlex.quote(item)}" for item in fixed)
            lines.append(f"use it: nbtools run {result.stage} {_options(result)} {words}".rstrip())
    return "\n".join(lines)


def csv_text(result: api.SweepResult) -> str:
    """Return a sweep as CSV: variant, params, metrics, state and duration."""
    params, metrics = _names(result, "params"), _names(result, "metrics")
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["variant", *params, *metrics, "state", "duration_s"])
    for row in result.variants:
        values = [row.params.get(name, "") for name in params] + [
            row.metrics.get(name, "") for name in metrics
        ]
        writer.writerow([row.variant, *values, row.state, f"{row.duration_s:.3f}"])
    return stream.getvalue()


def _names(result: api.SweepResult, of: str) -> list[str]:
    return list(dict.fromkeys(name for row in result.variants for name in getattr(row, of)))


def _shown(params: Any, name: str) -> str:
    return shown_value(params[name]) if name in params else ""


def _options(result: api.SweepResult) -> str:
    assert result.best is not None
    stage = result.stage
    return " ".join(
        f"-p {shlex.quote(f'{stage}.{name}={_typed(value)}')}" for name, value in result.best.params.items()
    )


def _typed(value: ParamValue) -> str:
    """Return a value as YAML that is read as the same value."""
    if isinstance(value, str):
        try:
            return value if parse_value(value) == value else json.dumps(value)
        except ValueError:
            return json.dumps(value)
    return json.dumps(value)
