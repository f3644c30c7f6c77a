"""Commands of house-keeping."""

from __future__ import annotations

from pathlib import Path

import click

from nbtools import api
from nbtools.cli import options, printing, views


@click.command()
@click.option("--redirect", is_flag=True, help="Deliver here also what was meant for another server.")
@options.as_json
@click.pass_obj
def sync(project: Path | None, redirect: bool, as_json: bool) -> int:
    """Deliver to MLflow what it could not take when it happened."""
    delivered = api.sync(redirect=redirect, project=project, note=printing.note)
    if as_json:
        printing.echo([views.record(item) for item in delivered])
    for item in () if as_json else delivered:
        printing.echo(
            "\n".join([f"{item.run}: {'not delivered' if item.problems else 'delivered'}", *item.problems])
        )
    if not delivered and not as_json:
        printing.echo("MLflow knows of every run")
    return int(any(item.problems for item in delivered))


@click.command()
@options.as_json
@click.pass_obj
def fsck(project: Path | None, as_json: bool) -> int:
    """Check every stored byte; set aside what is damaged, and say which stages make it again."""
    report = api.fsck(project=project, note=printing.note)
    printing.echo(views.record(report) if as_json else views.store_text(report))
    return int(not report.sound)


@click.command()
@click.option(
    "--keep-days",
    type=float,
    default=30.0,
    show_default=True,
    metavar="N",
    help="Keep what a run made or reused in the last N days.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Only print what would be freed.")
@options.as_json
@click.pass_obj
def gc(project: Path | None, keep_days: float, dry_run: bool, as_json: bool) -> None:
    """Free stored results that are not in use and that no recent run needed.

    A stage whose earlier result was freed runs again when it is wanted.
    """
    freed = api.gc(keep_days=keep_days, dry_run=dry_run, project=project, note=printing.note)
    printing.echo(views.record(freed) if as_json else views.freed_text(freed, dry_run=dry_run))
