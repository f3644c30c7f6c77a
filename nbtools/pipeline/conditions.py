"""When a stage runs: conditions on params and on what the stages before it logged.

Rules of this file: no I/O. Beside what all conditions may say (see ``expressions``), a bare name is a param
of the stage, ``STAGE.METRIC`` and ``PIPELINE.STAGE.METRIC`` are metrics of other stages, and
``metrics["STAGE"]["METRIC"]`` writes names that are no identifiers.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nbtools.pipeline.expressions import (
    RESERVED,
    Language,
    Missing,
    Reference,
    holds,
    references,
    why_bad,
)

_RESERVED = {"metrics", *RESERVED}


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a condition holds (None: nobody knows yet), and what it was judged by."""

    holds: bool | None
    explanation: str


class Unanswerable(Exception):
    """A condition that cannot be judged by what there is."""


def why_bad_condition(text: str) -> str:
    """Return why ``text`` is no condition, or an empty string.

    >>> why_bad_condition("channel in ['beta', 'stable'] and evaluate.auc > 0.6")
    ''
    >>> why_bad_condition("sample * 2")
    'it is no comparison, such as sample > 0.5 or evaluate.auc >= 0.7'
    """
    return why_bad(text, _LANGUAGE)


def params_named(text: str) -> tuple[str, ...]:
    """Return the params that a condition names."""
    return tuple(name for stage, name in references(text, _LANGUAGE) if not stage)


def stages_named(text: str) -> tuple[str, ...]:
    """Return the stages whose metrics a condition names, as they are written."""
    return tuple(dict.fromkeys(stage for stage, _ in references(text, _LANGUAGE) if stage))


def judge(text: str, param: Callable[[str], Any], metric: Callable[[str, str], float | Missing]) -> Judgement:
    """Return whether a condition holds.

    Parameters
    ----------
    text
        What ``why_bad_condition`` finds nothing wrong with.
    param, metric
        Return a param's value by name, and a metric's by stage (as written) and name;
        ``Missing.UNKNOWN`` if the stage has yet to run.

    Raises
    ------
    Unanswerable
        If the values cannot be compared, and whatever ``metric`` raises.
    """
    seen: dict[str, str] = {}

    def value_of(reference: Reference) -> Any:
        stage, name = reference
        value = metric(stage, name) if stage else param(name)
        if value is not Missing.UNKNOWN:
            seen[".".join(filter(None, reference))] = f"{value:.6g}" if stage else repr(value)
        return value

    try:
        truth = holds(text, _LANGUAGE, value_of)
    except (TypeError, ArithmeticError) as error:
        raise Unanswerable(f"{error} ({_shown(seen)})") from error
    return Judgement(truth, _shown(seen))


def _shown(seen: dict[str, str]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in seen.items())


def _reference(node: ast.expr) -> Reference | None:
    """Return stage (empty for a param) and name that ``node`` refers to, or None."""
    match node:
        case ast.Name(id=name) if name not in _RESERVED:
            return "", name
        case ast.Attribute(value=ast.Name(id=stage), attr=name) if stage not in _RESERVED:
            return stage, name
        case ast.Attribute(value=ast.Attribute(value=ast.Name(id=pipeline), attr=stage), attr=name) if (
            pipeline not in _RESERVED
        ):
            return f"{pipeline}.{stage}", name
        case ast.Subscript(
            value=ast.Subscript(value=ast.Name(id="metrics"), slice=ast.Constant(value=str(stage))),
            slice=ast.Constant(value=str(name)),
        ):
            return stage, name
    return None


_LANGUAGE = Language(
    _reference, "a param, a metric (stage.metric)", "sample > 0.5 or evaluate.auc >= 0.7", texts=True
)
