"""Commands about datasets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nbtools import api
from nbtools.cli import options, printing, text, views
from nbtools.cli.group import SuggestingGroup

if TYPE_CHECKING:
    from nbtools.api import DataComparison, DatasetChange, DatasetDetails, DatasetStatus, Restored
    from nbtools.tracking.drift import ColumnChange, Summary


@click.group(cls=SuggestingGroup, invoke_without_command=True)
@options.as_json
@click.pass_context
def data(ctx: click.Context, as_json: bool) -> None:
    """List datasets: who makes and who uses them, and where they stand."""
    if ctx.invoked_subcommand is not None:
        return
    found = api.data(project=ctx.obj)
    printing.echo(views.record(list(found)) if as_json else list_text(found, printing.width()))


@data.command()
@click.argument("name")
@options.as_json
@click.pass_obj
def show(project: Path | None, name: str, as_json: bool) -> None:
    """Print dataset NAME: its contract, its columns, and what it was in earlier runs."""
    found = api.data_show(name, project=project)
    printing.echo(views.record(found) if as_json else details_text(found, printing.width()))


@data.command()
@click.argument("before", metavar="RUN1")
@click.argument("after", metavar="RUN2")
@click.argument("name", default="")
@options.as_json
@click.pass_obj
def diff(project: Path | None, before: str, after: str, name: str, as_json: bool) -> None:
    """Print how the datasets of RUN1 and RUN2 differ: columns, rows, distributions.

    The drift of a column is its population stability index (PSI): below 0.1 none, above 0.25 much. For numbers
    there is the Kolmogorov-Smirnov distance (KS) besides.
    """
    found = api.data_diff(before, after, name, project=project)
    printing.echo(views.record(found) if as_json else comparison_text(found, printing.width()))


@data.command()
@click.argument("run")
@click.argument("names", nargs=-1, metavar="[NAME…]")
@click.option(
    "--to", type=click.Path(path_type=Path), metavar="DIR", help="Put them there, not into the project."
)
@options.as_json
@click.pass_obj
def restore(project: Path | None, run: str, names: tuple[str, ...], to: Path | None, as_json: bool) -> None:
    """Bring back the datasets of an old RUN.

    What is in their place, and stored nowhere, is kept in .nbtools/replaced. The next "nbtools run" brings the
    project up to date again.
    """
    found = api.data_restore(run, names, to=to, project=project, note=printing.note)
    printing.echo(views.record(list(found)) if as_json else restored_text(found))


def list_text(found: Iterable[DatasetStatus], width: int | None) -> str:
    """Return datasets as a table."""
    rows = [
        [
            item.state,
            item.name,
            item.path,
            text.size(item.size_bytes) if item.size_bytes else "",
            f"{item.rows:,}" if item.rows is not None else "",
            ", ".join(item.made_by) or "external",
            ", ".join(item.used_by) or "nobody",
        ]
        for item in found
    ]
    headers = ["state", "dataset", "path", "size", "rows", "made by", "used by"]
    return text.table(headers, rows, width=width, align="<<<>>") if rows else "no datasets"


def details_text(found: DatasetDetails, width: int | None) -> str:
    """Return one dataset: contract, columns, versions."""
    status = found.status
    facts = {
        "dataset": status.name,
        "path": status.path,
        "state": status.state,
        "about": status.description,
        "owner": status.owner,
        "made by": ", ".join(status.made_by) or "nobody: it is external",
        "used by": ", ".join(status.used_by),
        "schema": status.schema,
        "expected": status.expected,
        "digest": status.digest,
        "size": text.size(status.size_bytes) if status.size_bytes else "",
        "rows": f"{status.rows:,}" if status.rows is not None else "",
        "written": status.where,
    }
    lines = [f"{name:<10}{text.plain(value)}" for name, value in facts.items() if value]
    if status.columns:
        lines += ["", text.table(["column", "type"], list(status.columns.items()), width=width)]
    if found.versions:
        rows = [
            [
                version.digest[:12],
                text.moment(version.at),
                version.run,
                str(version.runs),
                text.size(version.size_bytes),
                f"{version.rows:,}" if version.rows is not None else "",
                "stored" if version.is_stored else "digest only",
                *([version.path] if version.path != status.path else []),
            ]
            for version in found.versions
        ]
        headers = ["version", "since", "run", "runs", "size", "rows", "bytes"]
        headers += ["path"] if any(version.path != status.path for version in found.versions) else []
        filled = [[*row, *[""] * (len(headers) - len(row))] for row in rows]
        lines += ["", text.table(headers, filled, width=width, align="<<<>>>")]
    return "\n".join(lines)


def comparison_text(found: DataComparison, width: int | None) -> str:
    """Return how the datasets of two runs differ."""
    blocks = [f"{found.before} → {found.after}"]
    same = [change.dataset for change in found.datasets if change.kind == "same"]
    blocks += ["\n".join(_change(item, width)) for item in found.datasets if item.kind != "same"]
    if same:
        blocks.append(f"same bytes: {', '.join(dict.fromkeys(same))}")
    return "\n\n".join(blocks)


def _change(change: DatasetChange, width: int | None) -> Iterator[str]:
    digests = [item.digest[:12] if item else "–" for item in (change.before, change.after)]  # noqa: RUF001
    rows = ""
    if change.rows_before is not None and change.rows_after is not None:
        rows = f", {change.rows_before:,} → {change.rows_after:,} rows"
    yield f"{change.dataset} ({change.path}): {change.kind} {' → '.join(digests)}{rows}"
    if change.note:
        yield f"  {text.plain(change.note)}"
    shown = [column for column in change.columns if column.kind != "same"]
    if shown:
        headers = [
            "column",
            "change",
            "nulls",
            "min",
            "mean",
            "max",
            "quantiles / shares",
            "PSI",
            "KS",
            "drift",
        ]
        table = [_row(column) for column in shown]
        yield from (
            f"  {line}"
            for line in text.table(headers, table, width=width and width - 2, align="<<<<<<<>>").splitlines()
        )
    unchanged = len(change.columns) - len(shown)
    if unchanged:
        yield f"  {unchanged} column{'s' * (unchanged > 1)} with the same values"


def _row(column: ColumnChange) -> list[str]:
    old, new = column.before, column.after
    kind = f"{old.dtype} → {new.dtype}" if column.kind == "retyped" and old and new else column.kind
    numbers = [_both(old, new, name) for name in ("nulls", "minimum", "mean", "maximum")]
    return [
        column.column,
        kind,
        *numbers,
        _spread(old, new),
        "" if column.psi is None else f"{column.psi:.3f}",
        "" if column.ks is None else f"{column.ks:.3f}",
        column.drift,
    ]


def _both(old: Summary | None, new: Summary | None, name: str) -> str:
    values = [getattr(item, name) if item else None for item in (old, new)]
    texts = ["" if value is None else f"{value:.4g}" for value in values]
    return texts[0] if texts[0] == texts[1] else " → ".join(filter(None, texts))


def _spread(old: Summary | None, new: Summary | None) -> str:
    texts = [_values(item) if item else "" for item in (old, new)]
    return texts[0] if texts[0] == texts[1] else " → ".join(filter(None, texts))


def _values(summary: Summary) -> str:
    found: Mapping[str, float] = summary.quantiles
    if found:
        return " ".join(f"{found[name]:.4g}" for name in ("0.25", "0.5", "0.75"))
    return " ".join(
        f"{text.shortened(name, 12)} {share:.0%}" for name, share in list(summary.shares.items())[:3]
    )


def restored_text(found: Iterable[Restored]) -> str:
    """Return what was brought back."""
    lines = [f"{item.how:<9} {item.digest[:12]}  {item.path}" for item in found]
    return "\n".join(lines) or "nothing of the run is stored"
