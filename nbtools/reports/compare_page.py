"""A comparison as one page that needs nothing else: no network, no script; every text is escaped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING

from nbtools.reports import plots
from nbtools.reports.compare import CodeDifference, Comparison, Difference

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from nbtools.tracking.experiments import Point

#: Nothing is loaded and nothing runs, whatever a text holds.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 2rem auto; max-width: 75rem; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem; border-bottom: 1px solid #ddd }
.wide { overflow-x: auto }
table { border-collapse: collapse } th, td { padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top }
th { font-weight: 600; white-space: nowrap } td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere }
tr + tr > * { border-top: 1px solid #eee }
small { color: #666 }
pre { background: #f6f8fa; padding: .6rem; overflow-x: auto; font-size: 12px }
ins { background: #dafbe1; text-decoration: none } del { background: #ffebe9; text-decoration: none }
"""
_TITLES = {
    "run": "Runs",
    "param": "Params",
    "metric": "Metrics",
    "data": "Data",
    "package": "Packages",
    "duration": "Durations",
}
_CURVES = 24
#: More axes than this side by side cannot be read.
_AXES = 12


def page(
    comparison: Comparison, frame: pd.DataFrame, histories: Mapping[str, Mapping[str, Sequence[Point]]]
) -> str:
    """Return the page.

    Parameters
    ----------
    frame
        The runs' params and metrics, as from ``nbtools.runs``.
    histories
        The values of each metric that was logged with steps, by the label of the run.
    """
    labels = (
        " and ".join(comparison.labels) if len(comparison.labels) < 4 else f"{len(comparison.labels)} runs"
    )
    title = escape(f"Comparison of {labels}")
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>",
        _runs(comparison),
        *(_section(kind, comparison) for kind in _TITLES),
        *_code(comparison.code),
        *_pictures(frame, histories),
        *(f"<p><small>{escape(note)}</small></p>" for note in comparison.notes),
        f"<p><small>{comparison.same} params, metrics, digests and packages are the same in all runs.</small></p>",
        "</body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _runs(comparison: Comparison) -> str:
    rows = [
        [label, run.name, run.stage or "pipeline run", run.run, _moment(run.started_at), run.run_id]
        for label, run in zip(comparison.labels, comparison.runs, strict=True)
    ]
    return _table(["", "name", "stage", "nbtools run", "started (UTC)", "MLflow run id"], rows)


def _section(kind: str, comparison: Comparison) -> str:
    found = [item for item in comparison.differences if item.kind == kind]
    if not found or (kind == "run" and all(item.name in ("name", "nbtools run", "stage") for item in found)):
        return ""
    rows = [[item.name, *(cell(item, place) for place in range(len(item.values)))] for item in found]
    return f"<h2>{_TITLES[kind]}</h2>\n{_table(['', *comparison.labels], rows)}"


def cell(item: Difference, place: int) -> str:
    """Return the text of a value, with the difference from that of the first run."""
    value = item.values[place]
    if value is None:
        return "–"  # noqa: RUF001 - a dash, not a minus
    if item.kind == "data":
        return ", ".join(digest[:12] for digest in str(value).split(","))
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    unit = " s" if item.kind == "duration" else ""
    change = item.changes[place] if place < len(item.changes) else None
    if not place or change is None or math.isnan(change) or change == 0:
        return f"{text}{unit}"
    return f"{text}{unit} ({change:+.4g})"


def _code(code: Sequence[CodeDifference]) -> list[str]:
    parts = ["<h2>Code</h2>"] if code else []
    for item in code:
        parts.append(f"<h3>{escape(item.notebook)} in {escape(item.label)}</h3>")
        if item.missing:
            parts.append(f"<p>{escape(item.missing)}</p>")
        for change in item.cells:
            lines = "\n".join(_diff_line(line) for line in change.diff.splitlines()[2:])
            parts.append(f"<p>code cell {change.number} {escape(change.kind)}</p><pre>{lines}</pre>")
    return parts


def _diff_line(line: str) -> str:
    mark = {"+": "ins", "-": "del"}.get(line[:1])
    return f"<{mark}>{escape(line)}</{mark}>" if mark else escape(line)


def _pictures(frame: pd.DataFrame, histories: Mapping[str, Mapping[str, Sequence[Point]]]) -> list[str]:
    params, metrics = _varying(frame, "params."), _varying(frame, "metrics.")
    parts = []
    if len(params) + len(metrics) > 1:
        shown = params[: _AXES - min(len(metrics), _AXES // 2)]
        others = metrics[1 : _AXES - len(shown)]
        figure = plots.parallel_coordinates(frame, metrics[0] if metrics else "", shown, others)
        parts += ["<h2>Params and metrics</h2>", _picture(figure)]
    # What a param does to the first metric; without either, how two metrics go together.
    pair = (
        [f"params.{params[0]}", f"metrics.{metrics[0]}"]
        if params and metrics
        else [f"metrics.{name}" for name in metrics[:2]]
    )
    if len(pair) == 2:
        x, y = (name.partition(".")[2] for name in pair)
        parts += [f"<h2>{escape(y)} by {escape(x)}</h2>", _picture(plots.scatter(frame, *pair))]
    for metric, points in list(histories.items())[:_CURVES]:
        parts += [f"<h2>History of {escape(metric)}</h2>", _picture(plots.metric_history(points, metric))]
    if others := list(histories)[_CURVES:]:
        parts.append(f"<p><small>Not drawn: the history of {escape(', '.join(others))}</small></p>")
    return parts


def _varying(frame: pd.DataFrame, prefix: str) -> list[str]:
    names = [str(name) for name in frame.columns if str(name).startswith(prefix)]
    return [name.removeprefix(prefix) for name in names if frame[name].nunique() > 1]


def _picture(figure: Figure) -> str:
    return f'<div class="wide">{plots.as_svg(figure)}</div>'


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in headers)
    body = "".join(
        f"<tr><th>{escape(first)}</th>{''.join(f'<td>{escape(text)}</td>' for text in rest)}</tr>"
        for first, *rest in rows
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"
