"""What the commands about runs print: tables, CSV, records."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nbtools.api import TrackedRun, names_of
from nbtools.cli import text, views

if TYPE_CHECKING:
    from nbtools.reports.compare import Comparison, Difference

_FIXED = (
    "run_id",
    "time",
    "name",
    "status",
    "stage",
    "run",
    "experiment",
    "duration_s",
    "user",
    "source",
    "version",
)
_KINDS = {
    "run": "",
    "param": "param ",
    "metric": "metric ",
    "data": "",
    "package": "package ",
    "duration": "",
}
_ID = 8
#: To how many columns of a terminal a name, a user or a source may be cut.
_CUT = 10


def runs_text(
    runs: Sequence[TrackedRun],
    metrics: Sequence[str] | None,
    params: Sequence[str] | None,
    width: int | None,
) -> str:
    """Return runs as a table."""
    if not runs:
        return "no runs"
    shown_params = names_of((run.params for run in runs), params)
    shown_metrics = names_of((run.metrics for run in runs), metrics)
    hidden: list[str] = []
    while True:
        headers, rows = _columns(runs, shown_params, shown_metrics)
        widest = max(map(text.display_width, text.table(headers, rows).splitlines()))
        # Who chose the columns gets them, cut if need be; of all that there are, those that fit are shown.
        longer = max(shown_params, shown_metrics, key=len)
        if (
            width is None
            or widest - _slack(headers, rows) <= width
            or not longer
            or (params, metrics) != (None, None)
        ):
            break
        hidden.insert(0, longer.pop())
    align = "<" * (len(headers) - len(shown_metrics)) + ">" * len(shown_metrics)
    lines = [text.table(headers, rows, width=width, align=align)]
    if hidden:
        count = f"{len(hidden)} more column{'s' * (len(hidden) > 1)}"
        lines.append(f"{count}: --filter-metrics and --filter-params choose, --csv - has all")
    return "\n".join(lines)


def _slack(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Return by how much the texts that say least can be cut."""
    columns = [headers.index(name) for name in ("name", "user", "source")]
    longest = [max(text.display_width(row[column]) for row in rows) for column in columns]
    return sum(max(length - _CUT, 0) for length in longest)


def _columns(
    runs: Sequence[TrackedRun], params: Sequence[str], metrics: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """Return headers and rows; the status only if it is not that of all who finished."""
    state = [] if all(run.status == "FINISHED" for run in runs) else ["status"]
    headers = ["run", "time", "name", *state, "user", "source", "version", *params, *metrics]
    rows = [
        [
            run.run_id[:_ID],
            text.moment(run.started_at),
            run.name,
            *(run.status.lower() for _ in state),
            run.user,
            run.source.rpartition("/")[2],
            run.version[:_ID],
            *(run.params.get(name, "") for name in params),
            *(_number(run.metrics.get(name)) for name in metrics),
        ]
        for run in runs
    ]
    return headers, rows


def runs_csv(runs: Sequence[TrackedRun], metrics: Sequence[str] | None, params: Sequence[str] | None) -> str:
    """Return runs as CSV, with the columns of ``nbtools.runs``; times in UTC."""
    params = names_of((run.params for run in runs), params)
    metrics = names_of((run.metrics for run in runs), metrics)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        [*_FIXED, *(f"params.{name}" for name in params), *(f"metrics.{name}" for name in metrics)]
    )
    for run in runs:
        record = run_record(run)
        values = [record[name] for name in _FIXED]
        values += [run.params.get(name, "") for name in params]
        values += [run.metrics.get(name, "") for name in metrics]
        writer.writerow(values)
    return stream.getvalue()


def run_record(run: TrackedRun) -> dict[str, Any]:
    """Return a run for machines; times in ISO 8601, UTC; a metric that is no number is null."""
    return {
        "run_id": run.run_id,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(run.started_at)),
        "name": run.name,
        "status": run.status,
        "stage": run.stage,
        "run": run.run,
        "experiment": run.experiment,
        "duration_s": run.duration_s,
        "user": run.user,
        "source": run.source,
        "version": run.version,
        "params": dict(run.params),
        "metrics": {name: _finite(value) for name, value in run.metrics.items()},
    }


def best_text(run: TrackedRun, metric: str) -> str:
    """Return the best run: the metric first, then what it was made from."""
    others = {name: value for name, value in run.metrics.items() if name != metric}
    facts = [
        (metric, f"{run.metrics[metric]:.6g}"),
        ("run", f"{run.run_id}  {run.name}"),
        ("of", run.run),
        ("started", text.moment(run.started_at)),
        ("took", "" if run.duration_s is None else text.duration(run.duration_s)),
        ("version", run.version[:_ID]),
        ("source", run.source),
        ("params", ", ".join(f"{name}={value}" for name, value in sorted(run.params.items()))),
        ("metrics", ", ".join(f"{name}={value:.4g}" for name, value in sorted(others.items()))),
    ]
    longest = max(text.display_width(text.plain(name)) for name, _ in facts)
    return "\n".join(
        f"{text.padded(text.plain(n), longest)}  {text.plain(value)}" for n, value in facts if value
    )


def comparison_text(found: Comparison, width: int | None) -> str:
    """Return what differs, a column for each run, then the code that differs from the first run's."""
    from nbtools.reports.compare_page import cell

    names = [f"{label}" for label in found.labels]
    about = [
        ["", *(run.name or run.stage for run in found.runs)],
        ["started", *(text.moment(run.started_at) for run in found.runs)],
    ]
    rows = [
        *about,
        *([_label(item), *_cells(item, cell)] for item in found.differences if item.name != "name"),
    ]
    lines = [text.table(["", *names], rows, width=width)]
    for item in found.code:
        lines.append(f"\n{text.plain(item.notebook)}: {item.label} against {found.labels[0]}")
        if item.missing:
            lines.append(f"  {text.plain(item.missing)}")
        for change in item.cells:
            lines.append(f"  code cell {change.number} {change.kind}:")
            lines += [f"    {text.plain(line)}" for line in change.diff.splitlines()[2:]]
    if not found.code and not any(item.kind != "duration" for item in found.differences):
        lines.append("nothing but the time that they took differs")
    lines.append(f"\n{found.same} params, metrics, digests and packages are the same")
    lines += [f"note: {text.plain(note)}" for note in found.notes]
    return "\n".join(lines)


def comparison_record(found: Comparison) -> dict[str, Any]:
    """Return a comparison for machines."""
    return {
        "runs": [
            {"label": label, **run_record(run)} for label, run in zip(found.labels, found.runs, strict=True)
        ],
        "differences": [
            {
                "kind": item.kind,
                "name": item.name,
                "values": [_finite(value) for value in item.values],
                **({"changes": [_finite(value) for value in item.changes]} if item.changes else {}),
            }
            for item in found.differences
        ],
        "code": views.record(found.code),
        "same": found.same,
        "notes": list(found.notes),
    }


def _label(item: Difference) -> str:
    return f"{_KINDS[item.kind]}{item.name}"


def _cells(item: Difference, cell: Any) -> list[str]:
    return [cell(item, place) for place in range(len(item.values))]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
