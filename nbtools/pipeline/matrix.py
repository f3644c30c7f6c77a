"""The variants of a stage: which points a matrix has.

Rules of this file: no I/O. ``include`` and ``exclude`` mean what they mean in GitHub Actions; a range is Python's, its end
left out, but counted in decimals, so that 0.1 + 0.2 is 0.3.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

#: Keys of ``matrix:`` that are no params.
RESERVED = ("include", "exclude")
#: What makes more than this is a slip of the pen.
MOST_POINTS = 10_000

_CALL = re.compile(r"\s*(\w+)\s*\((.*)\)\s*", re.DOTALL)
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def points(
    lists: Mapping[str, Sequence[Any]],
    include: Sequence[Mapping[str, Any]] = (),
    exclude: Sequence[Mapping[str, Any]] = (),
) -> tuple[dict[str, Any], ...]:
    """Return the points of a matrix, in order.

    Parameters
    ----------
    lists
        Values by param: every combination is a point.
    include
        What has no value that differs from a combination's is added to that combination; what fits none is a point of
        its own.
    exclude
        Combinations that have all these values are left out; this comes before ``include``.

    >>> points({"a": [1, 2]}, include=[{"a": 2, "b": 3}, {"a": 4}], exclude=[{"a": 1}])
    ({'a': 2, 'b': 3}, {'a': 4})
    """
    combinations = [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
    kept = [point for point in combinations if lists and not any(fits(other, point) for other in exclude)]
    found = [dict(point) for point in kept]
    alone: list[dict[str, Any]] = []
    for extra in include:
        own = {name: value for name, value in extra.items() if name in lists}
        at_home = [number for number, point in enumerate(kept) if fits(own, point)]
        if not at_home:
            alone.append(dict(extra))
        for number in at_home:
            found[number].update((name, value) for name, value in extra.items() if name not in lists)
    return (*found, *alone)


def fits(some: Mapping[str, Any], point: Mapping[str, Any]) -> bool:
    """Tell whether ``point`` has all values of ``some``; 0 and 0.0 are the same here, 1 and true are not."""
    return all(name in point and _equal(value, point[name]) for name, value in some.items())


def _equal(left: Any, right: Any) -> bool:
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def values_by_name(of: Iterable[Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """Return every value that a param has in some of the points, each once, in order."""
    found: dict[str, dict[str, Any]] = {}
    for point in of:
        for name, value in point.items():
            found.setdefault(name, {}).setdefault(repr(value), value)
    return {name: tuple(values.values()) for name, values in found.items()}


def names_of_all(of: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the params that every point has a value of."""
    return tuple(name for name in (of[0] if of else ()) if all(name in point for point in of))


# Ranges


def is_range(value: Any) -> bool:
    """Tell whether a value stands for several: ``range(0, 1, 0.25)``, ``{range: [0, 1, 0.25]}``, and with linspace."""
    if isinstance(value, str):
        match = _CALL.fullmatch(value)
        return match is not None and match[1] in _KINDS
    return isinstance(value, dict) and len(value) == 1 and next(iter(value)) in _KINDS


def expand(value: Any) -> tuple[int | float, ...]:
    """Return the values of a range; see ``is_range``.

    Raises
    ------
    ValueError
        If it makes no sense, with the reason.

    >>> expand("range(0, 1, 0.25)"), expand({"linspace": [0, 1, 5]})
    ((0.0, 0.25, 0.5, 0.75), (0.0, 0.25, 0.5, 0.75, 1.0))
    """
    kind, arguments = _arguments(value)
    for number in arguments:
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise ValueError(f"{number!r} is no number")
    return _KINDS[kind](arguments)


def _arguments(value: Any) -> tuple[str, list[Any]]:
    if isinstance(value, dict):
        ((kind, given),) = value.items()
        return kind, given if isinstance(given, list) else [given]
    match = _CALL.fullmatch(value)
    assert match is not None
    return match[1], [_number(part.strip()) for part in match[2].split(",")]


def _number(text: str) -> int | float | str:
    if not _NUMBER.fullmatch(text):
        return text
    return int(text) if re.fullmatch(r"[-+]?\d+", text) else float(text)


def _range(arguments: Sequence[int | float]) -> tuple[int | float, ...]:
    if not 1 <= len(arguments) <= 3:
        raise ValueError("a range has a start, a stop and a step: range(0, 1, 0.25)")
    start, stop, step = {1: (0, *arguments, 1), 2: (*arguments, 1), 3: tuple(arguments)}[len(arguments)]
    if step == 0:
        raise ValueError("its step is 0")
    first, end, width = (Fraction(Decimal(repr(number))) for number in (start, stop, step))
    count = max(0, math.ceil((end - first) / width))
    _check_count(count)
    exact = [first + number * width for number in range(count)]
    if not exact:
        raise ValueError(
            f"it has no values: from {start} with steps of {step}, it does not come before {stop}"
        )
    return _as_numbers(exact, whole=all(isinstance(number, int) for number in (start, stop, step)))


def _linspace(arguments: Sequence[int | float]) -> tuple[int | float, ...]:
    if len(arguments) != 3 or not isinstance(arguments[2], int):
        raise ValueError("linspace has a start, a stop and a number of values: linspace(0, 1, 5)")
    count = arguments[2]
    if count < 2:
        raise ValueError("linspace has at least two values: its start and its stop")
    _check_count(count)
    first, last = (Fraction(Decimal(repr(number))) for number in arguments[:2])
    if first == last:
        raise ValueError("its start and its stop are the same")
    exact = [first + (last - first) * number / (count - 1) for number in range(count)]
    return _as_numbers(exact, whole=False)


def _as_numbers(exact: Sequence[Fraction], *, whole: bool) -> tuple[int | float, ...]:
    # The float nearest to the exact value: what somebody who writes 0.3 gets, too.
    return tuple(map(int, exact)) if whole else tuple(map(float, exact))


def _check_count(count: int) -> None:
    if count > MOST_POINTS:
        raise ValueError(f"it has {count:,} values; {MOST_POINTS:,} are the most")


_KINDS = {"range": _range, "linspace": _linspace}
