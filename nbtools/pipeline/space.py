"""What a sweep varies: the values or the interval of each param, as people write them.

Rules of this file: text in, values out; no I/O.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from nbtools.pipeline.marked_yaml import parse_value
from nbtools.pipeline.matrix import expand, is_range
from nbtools.pipeline.spec import ParamValue

_NUMBER = r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
_INTERVAL = re.compile(rf"\s*({_NUMBER})\s*\.\.\s*({_NUMBER})\s*")
_LOG = re.compile(r"\s*log\s*\((.*)\)\s*")
_WHOLE = re.compile(r"[-+]?\d+")
_OPENING, _CLOSING = "([{", ")]}"


@dataclass(frozen=True, slots=True)
class Values:
    """Some values, in order."""

    values: tuple[ParamValue, ...]


@dataclass(frozen=True, slots=True)
class Interval:
    """All numbers from ``low`` to ``high``, both included.

    Parameters
    ----------
    log
        Whether each order of magnitude is as likely as the others.
    """

    low: int | float
    high: int | float
    log: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether both ends are written as whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def __str__(self) -> str:
        text = f"{self.low}..{self.high}"
        return f"log({text})" if self.log else text


Axis: TypeAlias = Values | Interval


def read(text: str) -> Axis:
    """Return what a text says of a param: ``0,0.2,0.5``, ``range(0,1,0.25)``, ``0..1``, ``log(1e-4..1)``.

    Commas inside brackets and quotes do not divide. A single value is ``Values`` of one.

    Raises
    ------
    ValueError
        If it makes no sense, with the reason.

    >>> read("0,0.2"), read("log(1e-3..1)")
    (Values(values=(0, 0.2)), Interval(low=0.001, high=1, log=True))
    """
    parts = list(_parts(text))
    if len(parts) == 1 and (found := interval(parts[0])):
        return found
    values: list[ParamValue] = []
    for part in parts:
        if interval(part):
            raise ValueError(f"{part.strip()} is an interval, and cannot stand beside values")
        values += expand(part) if is_range(part) else [parse_value(part)]
    return Values(tuple(values))


def interval(text: str) -> Interval | None:
    """Return the interval that a text is, if it is one.

    Raises
    ------
    ValueError
        If it is empty, or a logarithmic one reaches to zero.
    """
    inner = _LOG.fullmatch(text)
    match = _INTERVAL.fullmatch(inner[1] if inner else text)
    if not match:
        if inner:
            raise ValueError(f"{text.strip()} is no interval; write log(0.0001..1)")
        return None
    low, high = (int(end) if _WHOLE.fullmatch(end) else float(end) for end in match.groups())
    if not math.isfinite(float(low)) or not math.isfinite(float(high)):
        raise ValueError(f"{text.strip()} has no end")
    if not low < high:
        raise ValueError(f"{text.strip()} is empty: the lower end comes first")
    if inner and low <= 0:
        raise ValueError(f"{text.strip()}: a logarithmic interval lies above 0")
    return Interval(low, high, log=bool(inner))


def axis_of(value: Any) -> Axis:
    """Return what a value given in Python says: a list of values, or a text as ``read`` takes it.

    Raises
    ------
    ValueError
        If it is none of these.
    """
    if isinstance(value, Values | Interval):
        return value
    if isinstance(value, str):
        return read(value)
    if isinstance(value, dict) and is_range(value):
        return Values(expand(value))
    if isinstance(value, list | tuple | range):
        return Values(tuple(value))
    raise ValueError(f"{value!r} is neither a list of values nor a text such as range(0, 1, 0.25)")


def is_single(axis: Axis, text: str) -> bool:
    """Tell whether what was written as ``text`` is one plain value: a param, and nothing that is varied."""
    return isinstance(axis, Values) and len(axis.values) == 1 and not is_range(text)


def size(space: Mapping[str, Axis]) -> float:
    """Return how many points a space has; infinity if a param may be any number of an interval."""
    return math.prod(len(axis.values) if isinstance(axis, Values) else math.inf for axis in space.values())


def _parts(text: str) -> Iterator[str]:
    """Yield what stands between the commas of ``text``."""
    depth, quote, start = 0, "", 0
    for number, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in _OPENING:
            depth += 1
        elif char in _CLOSING:
            depth -= 1
        elif char == "," and depth <= 0:
            yield text[start:number]
            start = number + 1
    yield text[start:]
