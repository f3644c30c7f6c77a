"""Values and intervals of a sweep as Optuna's distributions, and back."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from nbtools.pipeline.dag import shown_value
from nbtools.pipeline.space import Axis, Interval
from nbtools.pipeline.spec import ParamValue

#: Drawn numbers are rounded to this many significant digits: nobody tells more of them apart, or wants to read them.
_DIGITS = 6


def distribution(axis: Axis) -> Any:
    """Return what Optuna draws from.

    Evenly spaced numbers keep their order; other values are drawn by their texts, because Optuna would take
    1 and True for the same.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(axis, Interval):
        if axis.is_whole:
            return IntDistribution(int(axis.low), int(axis.high), log=axis.log)
        return FloatDistribution(float(axis.low), float(axis.high), log=axis.log)
    step = _step(axis.values)
    if step is None:
        return CategoricalDistribution([shown_value(value) for value in axis.values])
    if isinstance(step, int):
        return IntDistribution(axis.values[0], axis.values[-1], step=step)
    return FloatDistribution(axis.values[0], axis.values[-1], step=step)


def drawn_as(axis: Axis, value: ParamValue) -> Any:
    """Return a value as Optuna's distribution has it."""
    if isinstance(axis, Interval) or _step(axis.values) is not None:
        return value
    return shown_value(value)


def value_of(axis: Axis, drawn: Any) -> ParamValue:
    """Return the value that Optuna has drawn, as the notebook receives it."""
    if isinstance(axis, Interval):
        if axis.is_whole:
            return int(drawn)
        return min(max(float(f"{drawn:.{_DIGITS}g}"), float(axis.low)), float(axis.high))
    if _step(axis.values) is not None:
        return min(axis.values, key=lambda value: abs(value - drawn))
    return next(value for value in axis.values if shown_value(value) == drawn)


def _step(values: Sequence[ParamValue]) -> int | float | None:
    """Return how far rising numbers are apart; None if they are no numbers, or not evenly apart."""
    if len(values) < 3 or any(type(value) not in (int, float) for value in values):
        return None
    exact = [Fraction(Decimal(repr(value))) for value in values]
    steps = {later - earlier for earlier, later in itertools.pairwise(exact)}
    if len(steps) != 1 or min(steps) <= 0:
        return None
    whole = all(type(value) is int for value in values)
    return int(min(steps)) if whole else float(min(steps))
