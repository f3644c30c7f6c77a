"""Pictures of runs: metric history, parallel coordinates, scatter, heat map.

matplotlib draws them, because its pictures need no script: they show in JupyterLab, in nbconvert's pages, in pages whose
scripts have been taken out, and without a network. Texts are drawn as they are, never as formulas.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nbtools.errors import UsageError, suggest

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from nbtools.tracking.experiments import Point

_SETTINGS: Any = {
    "text.usetex": False,
    "text.parse_math": False,
    "axes.formatter.use_mathtext": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "nbtools",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_COLORS = "viridis"
_LONGEST = 24
_LONGEST_LABEL = 48
#: More lines than this have no place in a legend.
_LEGEND = 12
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_DPI = 110


def metric_history(histories: Mapping[str, Sequence[Point]], metric: str) -> Figure:
    """Return a metric over its steps, a line for each run; a run that logged it once is a point.

    Parameters
    ----------
    histories
        By the label of the run.
    """
    with _settings():
        figure, axes = _figure(7, 4)
        by_time = all(len({point.step for point in points}) < 2 for points in histories.values())
        for number, (label, points) in enumerate(histories.items()):
            places = range(1, len(points) + 1) if by_time else [point.step for point in points]
            axes.plot(
                list(places),
                [point.value for point in points],
                color=f"C{number % 10}",
                marker="o" if len(points) < 2 else "",
                label=_text(label, _LONGEST_LABEL),
            )
        axes.set_xlabel("times logged" if by_time else "step")
        axes.set_ylabel(_text(metric))
        _legend(axes, len(histories))
    return figure


def parallel_coordinates(
    frame: pd.DataFrame,
    metric: str = "",
    params: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
) -> Figure:
    """Return a line for each run through an axis for each param and metric; each axis has its own scale.

    Parameters
    ----------
    frame
        From ``nbtools.runs``.
    metric
        The metric that colours the lines, which is the last axis; none colours by run.
    params, metrics
        The axes, without ``params.`` and ``metrics.``; None means all that differ between the runs.

    Raises
    ------
    UsageError
        If the frame has no such column, or there is nothing to draw.
    """
    chosen = _chosen(frame, "params", params)
    wanted = _chosen(frame, "metrics", metrics)
    last = [_column(frame, "metrics", metric)] if metric else []
    names = [*chosen, *(name for name in wanted if name not in last), *last]
    if not names:
        raise UsageError.of("no param and no metric differs between the runs, so there is nothing to draw")
    with _settings():
        figure, axes = _figure(max(5.0, 1.5 * len(names) + 1), 4)
        scales = [_Scale(frame[name].tolist()) for name in names]
        colors, bar = _line_colors(figure, axes, frame, last)
        for row in range(len(frame)):
            heights = [scale.place(frame[name].iloc[row]) for scale, name in zip(scales, names, strict=True)]
            label = _text(frame["run_id"].iloc[row][:8]) if "run_id" in frame else str(row)
            axes.plot(range(len(names)), heights, color=colors[row], alpha=0.8, label=label, marker=".")
        for place, scale in enumerate(scales):
            _draw_scale(axes, place, scale)
        axes.set_xticks(range(len(names)), [_text(name.partition(".")[2]) for name in names])
        if len(names) > 5:
            for tick in axes.get_xticklabels():
                tick.set(rotation=20, horizontalalignment="right")
        axes.tick_params(axis="x", length=0, pad=10)
        axes.set_yticks([])
        axes.set_xlim(-0.3, len(names) - 0.4)
        axes.spines[:].set_visible(False)
        if not bar:
            _legend(axes, len(frame))
    return figure


def scatter(frame: pd.DataFrame, x: str, y: str, color: str = "") -> Figure:
    """Return a point for each run.

    Parameters
    ----------
    frame
        From ``nbtools.runs``.
    x, y, color
        Columns: ``metrics.r2``, ``params.alpha`` or, if the frame has only one of them, ``r2``.

    Raises
    ------
    UsageError
        If the frame has no such column.
    """
    columns = [_any_column(frame, name) for name in (x, y)]
    colored = _any_column(frame, color) if color else ""
    with _settings():
        figure, axes = _figure(5.5, 4)
        across, up = (_Scale(frame[name].tolist()) for name in columns)
        values = [_number(value) for value in frame[colored]] if colored else None
        points = axes.scatter(
            [across.value(item) for item in frame[columns[0]]],
            [up.value(item) for item in frame[columns[1]]],
            c=values,
            cmap=_COLORS if colored else None,
        )
        for scale, place in ((across, axes.xaxis), (up, axes.yaxis)):
            if scale.categories:
                place.set_ticks(range(len(scale.categories)), [_text(item) for item in scale.categories])
        axes.set_xlabel(_text(columns[0].partition(".")[2]))
        axes.set_ylabel(_text(columns[1].partition(".")[2]))
        if colored:
            figure.colorbar(points, label=_text(colored.partition(".")[2]))
    return figure


def heat_map(frame: pd.DataFrame, x: str, y: str, metric: str) -> Figure:
    """Return a metric by two params; where several runs have the same values of both, their mean.

    Parameters
    ----------
    frame
        From ``nbtools.runs``.
    x, y, metric
        Names of two params and a metric, without ``params.`` and ``metrics.``.

    Raises
    ------
    UsageError
        If the frame has no such column, or no run has a value of all three.
    """
    columns = _column(frame, "params", x), _column(frame, "params", y), _column(frame, "metrics", metric)
    known = frame.dropna(subset=list(columns))
    if known.empty:
        raise UsageError.of(f"no run has a value of {x}, {y} and {metric}")
    across, up = (_Scale(known[name].tolist(), categorical=True).categories for name in columns[:2])
    means = known.groupby(list(columns[:2]))[columns[2]].mean()
    cells = [[float(means.get((left, right), math.nan)) for left in across] for right in up]
    with _settings():
        figure, axes = _figure(1.2 + max(3.5, 0.8 * len(across)), 1 + max(2.5, 0.55 * len(up)))
        low, high = float(means.min()), float(means.max())
        image = axes.imshow(cells, cmap=_COLORS, aspect="auto", origin="lower")
        for row, values in enumerate(cells):
            for place, value in enumerate(values):
                if not math.isnan(value):
                    dark = value < low + 0.6 * (high - low)
                    axes.text(
                        place, row, f"{value:.4g}", ha="center", va="center", color="w" if dark else "k"
                    )
        axes.set_xticks(range(len(across)), [_text(item) for item in across])
        axes.set_yticks(range(len(up)), [_text(item) for item in up])
        axes.set_xlabel(_text(x))
        axes.set_ylabel(_text(y))
        axes.spines[:].set_visible(False)
        figure.colorbar(image, label=_text(metric))
    return figure


def as_svg(figure: Figure) -> str:
    """Return a figure as an SVG element for a page."""
    stream = io.StringIO()
    with _settings():
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


class _Scale:
    """Where values lie on an axis: numbers in proportion, anything else in order.

    Parameters
    ----------
    categorical
        Whether numbers are one beside the other, too.
    """

    def __init__(self, values: Sequence[Any], *, categorical: bool = False) -> None:
        known = list(dict.fromkeys(value for value in values if not _is_missing(value)))
        numeric = all(not math.isnan(_number(value)) for value in known)
        self.categories: list[Any] = []
        if not numeric or categorical:
            self.categories = sorted(known, key=_number if numeric else str)
        numbers = [self.value(value) for value in known]
        self.low, self.high = min(numbers, default=0.0), max(numbers, default=1.0)

    def value(self, item: Any) -> float:
        """Return a value as a number: itself, or its place among the categories."""
        if _is_missing(item):
            return math.nan
        return float(self.categories.index(item)) if self.categories else _number(item)

    def place(self, item: Any) -> float:
        """Return where a value lies, from 0 to 1."""
        if self.high == self.low:
            return 0.5 if not _is_missing(item) else math.nan
        return (self.value(item) - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """Return places and their texts."""
        if self.categories:
            step = max(len(self.categories) // 8, 1)
            return [(self.place(item), _text(item)) for item in self.categories[::step]]
        if self.high == self.low:
            return [(0.5, f"{self.low:.4g}")]
        return [(part / 4, f"{self.low + part / 4 * (self.high - self.low):.4g}") for part in range(5)]


def _draw_scale(axes: Axes, place: int, scale: _Scale) -> None:
    axes.axvline(place, color="0.6", linewidth=0.8, zorder=0)
    for height, text in scale.ticks():
        axes.text(
            place + 0.03,
            height,
            text,
            fontsize=7,
            va="center",
            bbox={"facecolor": "white", "alpha": 0.7, "pad": 0.5, "linewidth": 0},
        )


def _line_colors(
    figure: Figure, axes: Axes, frame: pd.DataFrame, last: Sequence[str]
) -> tuple[list[Any], bool]:
    """Return a colour for each run, and whether a bar beside the picture explains them."""
    import matplotlib as mpl

    if not last:
        return [f"C{number % 10}" for number in range(len(frame))], False
    scale = _Scale(frame[last[0]].tolist())
    mappable: Any = mpl.cm.ScalarMappable(mpl.colors.Normalize(scale.low, scale.high), _COLORS)
    figure.colorbar(mappable, ax=axes, label=_text(last[0].partition(".")[2]))
    values = [scale.value(item) for item in frame[last[0]]]
    return ["0.7" if math.isnan(value) else mappable.to_rgba(value) for value in values], True


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    # Not pyplot's: that keeps its figures, and JupyterLab would show them twice.
    from nbtools.reports.figure import ShownFigure

    figure = ShownFigure(figsize=(min(width, 24), min(height, 24)), dpi=_DPI, layout="constrained")
    return figure, figure.add_subplot()


def _settings() -> Any:
    import matplotlib as mpl

    return mpl.rc_context(_SETTINGS)


def _legend(axes: Axes, lines: int) -> None:
    if 1 < lines <= _LEGEND:
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles, labels, fontsize=7, loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)


def _chosen(frame: pd.DataFrame, kind: str, names: Sequence[str] | None) -> list[str]:
    """Return the columns of some params or metrics; by default of all that differ between the runs."""
    if names is not None:
        return [_column(frame, kind, name) for name in names]
    columns = [str(name) for name in frame.columns if str(name).startswith(f"{kind}.")]
    return [name for name in columns if frame[name].nunique(dropna=False) > 1]


def _column(frame: pd.DataFrame, kind: str, name: str) -> str:
    full = name if name.startswith(f"{kind}.") and name in frame.columns else f"{kind}.{name}"
    if full in frame.columns:
        return full
    known = [str(item).partition(".")[2] for item in frame.columns if str(item).startswith(f"{kind}.")]
    what = kind.removesuffix("s")
    raise UsageError.of(f"the runs have no {what} {name!r}", fix=suggest(name, known, what))


def _any_column(frame: pd.DataFrame, name: str) -> str:
    found = [item for item in (name, f"metrics.{name}", f"params.{name}") if item in frame.columns]
    if not found:
        known = [str(item) for item in frame.columns if str(item).startswith(("metrics.", "params."))]
        raise UsageError.of(f"the runs have no column {name!r}", fix=suggest(name, known, "column"))
    return found[0]


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _number(value: Any) -> float:
    """Return a value as a number; NaN if it is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def _text(value: Any, longest: int = _LONGEST) -> str:
    """Return a text that can be drawn: one short line."""
    text = _CONTROLS.sub(" ", str(value))
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
