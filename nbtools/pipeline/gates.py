"""Conditions on a stage's metrics that must hold before its result is used.

Rules of this file: no I/O. A verdict is a function of the condition and of recorded numbers alone, so that
a changed condition is judged anew without running anything. Beside what all conditions may say (see
``expressions``), a bare name is a metric, ``champion.NAME`` is the metric of the result that is in use, and
``metrics["NAME"]`` and ``champion["NAME"]`` write names that are no identifiers.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nbtools.errors import suggest
from nbtools.pipeline.expressions import RESERVED, Language, Missing, Reference, holds, why_bad

_RESERVED = {"champion", "metrics", *RESERVED}


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a condition holds, and the numbers that it was judged by."""

    condition: str
    holds: bool
    explanation: str

    def __str__(self) -> str:
        return f"{self.condition} {'holds' if self.holds else 'does not hold'}: {self.explanation}"


def why_bad_gate(text: str) -> str:
    """Return why ``text`` is no condition, or an empty string.

    >>> why_bad_gate("rmse <= champion.rmse * 1.01")
    ''
    >>> why_bad_gate("rmse * 2")
    'it is no comparison, such as r2 > 0.24'
    """
    return why_bad(text, _LANGUAGE)


def judge(
    conditions: Sequence[str], metrics: Mapping[str, float], champion: Mapping[str, float] | None
) -> tuple[Verdict, ...]:
    """Return a verdict for each condition.

    Parameters
    ----------
    conditions
        Texts that ``why_bad_gate`` finds nothing wrong with.
    metrics
        What the stage logged, by name.
    champion
        The metrics of the result that was in use when this one was made; None if there was none. What
        depends on a metric that the champion does not have holds, and the explanation says so.
    """
    return tuple(_judge(text, metrics, champion) for text in conditions)


def _judge(text: str, metrics: Mapping[str, float], champion: Mapping[str, float] | None) -> Verdict:
    numbers = _Numbers(metrics, champion)
    try:
        truth = holds(text, _LANGUAGE, numbers.value_of)
    except _NotLogged as error:
        return Verdict(text, False, str(error))
    except ArithmeticError:
        return Verdict(text, False, ", ".join([*numbers.seen, "the arithmetic has no result"]))
    return Verdict(text, truth is not False, ", ".join([*numbers.seen, *numbers.absent]))


class _NotLogged(Exception):
    """A metric that the condition needs was not logged."""


def _reference(node: ast.expr) -> Reference | None:
    """Return whose metric ``node`` names (``""`` or ``champion``) and which, or None."""
    match node:
        case ast.Name(id=name) if name not in _RESERVED:
            return "", name
        case ast.Attribute(value=ast.Name(id="champion"), attr=name):
            return "champion", name
        case ast.Subscript(
            value=ast.Name(id="champion" | "metrics" as whose), slice=ast.Constant(value=str(name))
        ):
            return whose.removeprefix("metrics"), name
    return None


_LANGUAGE = Language(_reference, "a metric", "r2 > 0.24")


class _Numbers:
    """What metrics are; ``seen`` are the numbers used, ``absent`` what nobody can compare with."""

    def __init__(self, metrics: Mapping[str, float], champion: Mapping[str, float] | None) -> None:
        self.metrics = metrics
        self.champion = champion
        self.seen: list[str] = []
        self.absent: list[str] = []

    def value_of(self, reference: Reference) -> float | Missing:
        """Return a metric's value; unknown if it is one that the champion does not have."""
        whose, name = reference
        shown = f"{whose}.{name}" if whose else name
        values = self.champion if whose else self.metrics
        number = None if values is None else values.get(name)
        if number is not None and number == number:
            _once(self.seen, f"{shown} = {number:.6g}")
            return number
        if whose:
            _once(
                self.absent, "there is no champion yet" if values is None else f"the champion has no {name!r}"
            )
            return Missing.UNKNOWN
        if number is not None:
            raise _NotLogged(f"{name} = nan")  # whatever it is compared with, nobody knows
        fix = suggest(name, self.metrics, "metric") if self.metrics else "no metric was logged"
        raise _NotLogged(f"the metric {name!r} was not logged; {fix}")


def _once(texts: list[str], text: str) -> None:
    if text not in texts:
        texts.append(text)
