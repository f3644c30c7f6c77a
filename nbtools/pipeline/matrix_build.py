"""The ``matrix:`` of a stage, checked: values, ranges, and what ``include`` and ``exclude`` say.

Rules of this file: no I/O. Mistakes are reported, not raised.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nbtools.errors import suggest
from nbtools.pipeline.dag import path_part
from nbtools.pipeline.marked_yaml import Path
from nbtools.pipeline.matrix import MOST_POINTS, RESERVED, expand, fits, is_range, points
from nbtools.pipeline.spec import ParamValue
from nbtools.pipeline.values import why_bad_name, why_unfit

_UNFIT = "this value would not reach the notebook unchanged"
_HOW = "write [0, 0.2, 0.5], range(0, 1, 0.25) or linspace(0, 1, 5)"


class MatrixBuilder:
    """Checks one matrix.

    Parameters
    ----------
    path
        Where it stands.
    problem
        Told of each mistake: its place, what is wrong, how to mend it.
    """

    def __init__(self, path: Path, problem: Callable[[Path, str, str], None]) -> None:
        self.path = path
        self.problem = problem

    def fields(self, entries: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``matrix``, ``include`` and ``exclude`` of a stage."""
        lists = {name: self._axis(name, value) for name, value in entries.items() if name not in RESERVED}
        if (count := math.prod(map(len, lists.values()))) > MOST_POINTS:
            message = f"it has {count:,} combinations; {MOST_POINTS:,} are the most"
            self.problem(self.path, message, "take fewer values, or let a sampler draw: nbtools sweep")
            lists = {}
        include = self._points("include", entries)
        exclude = self._points("exclude", entries)
        self._check_excluded(exclude, lists, list(entries.get("exclude") or ()))
        if (include or lists) and all(lists.values()):
            self._check_left(points(lists, include, exclude))
        return {"matrix": lists, "include": include, "exclude": exclude}

    def _name(self, where: Path, name: str) -> None:
        if reason := why_bad_name(name):
            self.problem(where, reason, "a param is a variable of the notebook")

    def _axis(self, name: str, value: Any) -> tuple[ParamValue, ...]:
        """Return the values of one param."""
        where = (*self.path, name)
        self._name(where, name)
        if is_range(value):
            try:
                return expand(value)
            except ValueError as error:
                self.problem(where, f"{value!r} is no range: {error}", _HOW)
                return ()
        if not isinstance(value, list):
            shown = "nothing" if value is None else repr(value)
            self.problem(where, f"this must be a list of values or a range, not {shown}", _HOW)
            return ()
        if not value:
            self.problem(where, f"{name!r} has no values", "list at least one")
        self._check_values(where, value)
        return tuple(value)

    def _check_values(self, where: Path, values: Sequence[Any]) -> None:
        seen: dict[str, Any] = {}
        for number, value in enumerate(values):
            if reason := why_unfit(value):
                self.problem((*where, number), f"{_UNFIT}: {reason}", "")
            part = path_part(value)
            if part in seen:
                message = f"{seen[part]!r} and {value!r} would make variants of the same name"
                self.problem((*where, number), message, "remove one of them")
            seen.setdefault(part, value)

    def _points(self, key: str, entries: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
        """Return what stands under ``include`` or ``exclude``."""
        if key not in entries:
            return ()
        given = entries[key]
        if not isinstance(given, list) or not given:
            message = f"{key} must be a list of points, not {given!r}"
            self.problem((*self.path, key), message, f"write {key}: [{{alpha: 0.5, l1_ratio: 1}}]")
            return ()
        return tuple(
            point for number, point in enumerate(given) if self._is_point((*self.path, key, number), point)
        )

    def _is_point(self, where: Path, point: Any) -> bool:
        if not isinstance(point, dict) or not point:
            self.problem(where, f"this must be a point (name: value), not {point!r}", "write {alpha: 0.5}")
            return False
        for name, value in point.items():
            self._name((*where, name), name)
            if is_range(value):
                self.problem(
                    (*where, name), "a point has one value of each param, no range", "write a point for each"
                )
            elif reason := why_unfit(value):
                self.problem((*where, name), f"{_UNFIT}: {reason}", "")
        return True

    def _check_excluded(
        self, exclude: Sequence[Mapping[str, Any]], lists: Mapping[str, Sequence[Any]], given: Sequence[Any]
    ) -> None:
        """Check that each exclusion leaves something out: one that does not is a slip."""
        for point in exclude:
            where = (*self.path, "exclude", given.index(point))
            unknown = [name for name in point if name not in lists]
            for name in unknown:
                fix = suggest(name, lists, "matrix param")
                self.problem((*where, name), f"{name!r} is no param of this matrix", fix)
            if not unknown and lists and not any(fits(point, other) for other in points(lists)):
                self.problem(where, "no combination has these values, so nothing is left out", "mend them")

    def _check_left(self, found: Sequence[Mapping[str, Any]]) -> None:
        """Check that there are variants, each with a name of its own."""
        if not found:
            self.problem((*self.path, "exclude"), "every combination is left out", "leave out fewer")
        seen: dict[tuple[Any, ...], Mapping[str, Any]] = {}
        for point in found:
            name = tuple((key, path_part(value)) for key, value in point.items())
            if name in seen:
                shown = ", ".join(f"{key}={value}" for key, value in point.items())
                message = f"the point {shown} is there twice"
                self.problem((*self.path, "include"), message, "remove one of them")
            seen.setdefault(name, point)
