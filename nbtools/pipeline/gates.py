"""Conditions on a stage's metrics that must hold before its result is used.

Rules of this file: no I/O. A verdict is a function of the condition and of recorded numbers alone, so that
a changed condition is judged anew without running anything. A condition is an expression of names of
metrics, numbers, ``+ - * /``, comparisons, ``and``, ``or``, ``not``, ``abs``, ``min`` and ``max``;
``champion.NAME`` is the metric of the result that is in use, and ``metrics["NAME"]`` and
``champion["NAME"]`` write names that are no identifiers.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from nbtools.errors import suggest

_LONGEST = 1_000
_ARITHMETIC: dict[type[ast.AST], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_COMPARISONS: dict[type[ast.AST], Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_FUNCTIONS: dict[str, tuple[Callable[..., float], int, int]] = {
    "abs": (abs, 1, 1),
    "min": (min, 2, 20),
    "max": (max, 2, 20),
}
_RESERVED = {"champion", "metrics", *_FUNCTIONS}

#: A number, or None: what cannot be known without a champion.
_Number: TypeAlias = float | None
_Truth: TypeAlias = bool | None


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
    try:
        _check_truth(_parsed(text))
    except _BadGate as error:
        return str(error)
    except RecursionError:
        return "it is nested too deeply"
    return ""


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
    judging = _Judging(metrics, champion)
    try:
        truth = judging.truth(_parsed(text))
    except _Unknown as error:
        return Verdict(text, False, str(error))
    except (ZeroDivisionError, OverflowError):
        return Verdict(text, False, ", ".join([*judging.seen, "the arithmetic has no result"]))
    return Verdict(text, truth is not False, ", ".join([*judging.seen, *judging.absent]))


class _BadGate(Exception):
    """The text is no condition."""


class _Unknown(Exception):
    """A metric that the condition needs was not logged."""


def _parsed(text: str) -> ast.expr:
    if len(text) > _LONGEST:
        raise _BadGate(f"it is longer than {_LONGEST} characters")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise _BadGate(f"it is no expression: {error.msg}") from error
    except (ValueError, MemoryError, RecursionError) as error:
        raise _BadGate("it is no expression") from error


# What may be written


def _check_truth(node: ast.expr) -> None:
    match node:
        case ast.BoolOp(values=values):
            for value in values:
                _check_truth(value)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            _check_truth(operand)
        case ast.Compare(left=left, ops=ops, comparators=others):
            for op in ops:
                if type(op) not in _COMPARISONS:
                    raise _BadGate("conditions compare with <, <=, >, >=, == and !=")
            for part in (left, *others):
                _check_number(part)
        case _:
            raise _BadGate("it is no comparison, such as r2 > 0.24")


def _check_number(node: ast.expr) -> None:
    match node:
        case ast.Constant(value=value) if type(value) in (int, float):
            pass
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            _check_number(left)
            _check_number(right)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            _check_number(operand)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            _, least, most = _FUNCTIONS[name]
            if not least <= len(arguments) <= most:
                raise _BadGate(f"{name} takes {'one number' if most == 1 else 'two numbers or more'}")
            for argument in arguments:
                _check_number(argument)
        case _ if _name(node) is None:
            raise _BadGate(f"{ast.unparse(node)!r} is neither a metric nor a number")


def _name(node: ast.expr) -> tuple[str, str] | None:
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


# What it comes to


class _Judging:
    """One condition on its way to a verdict; ``seen`` are the numbers used, ``absent`` what nobody can compare."""

    def __init__(self, metrics: Mapping[str, float], champion: Mapping[str, float] | None) -> None:
        self.metrics = metrics
        self.champion = champion
        self.seen: list[str] = []
        self.absent: list[str] = []

    def truth(self, node: ast.expr) -> _Truth:
        """Return whether ``node`` holds, in Kleene's logic: None where a champion's number is missing."""
        match node:
            case ast.BoolOp(op=op, values=values):
                truths = [self.truth(value) for value in values]
                decisive = isinstance(op, ast.Or)
                return decisive if decisive in truths else None if None in truths else not decisive
            case ast.UnaryOp(operand=operand):
                truth = self.truth(operand)
                return None if truth is None else not truth
            case ast.Compare(left=left, ops=ops, comparators=others):
                return self._comparison([left, *others], ops)
        raise AssertionError(node)

    def _comparison(self, parts: Sequence[ast.expr], ops: Sequence[ast.cmpop]) -> _Truth:
        numbers = [self._number(part) for part in parts]
        truths = [
            None if left is None or right is None else _COMPARISONS[type(op)](left, right)
            for left, op, right in zip(numbers, ops, numbers[1:], strict=False)
        ]
        return False if False in truths else None if None in truths else True

    def _number(self, node: Any) -> _Number:
        if found := _name(node):
            return self._metric(*found)
        match node:
            case ast.Constant(value=int() | float() as value):
                return float(value)
            case ast.UnaryOp(op=op, operand=operand):
                return self._applied(operator.neg if isinstance(op, ast.USub) else operator.pos, operand)
            case ast.BinOp(left=left, op=op, right=right):
                return self._applied(_ARITHMETIC[type(op)], left, right)
            case ast.Call(func=ast.Name(id=name), args=arguments):
                return self._applied(_FUNCTIONS[name][0], *arguments)
        raise AssertionError(node)

    def _applied(self, function: Callable[..., float], *nodes: ast.expr) -> _Number:
        numbers = [self._number(node) for node in nodes]
        return None if None in numbers else function(*numbers)

    def _metric(self, whose: str, name: str) -> _Number:
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
            return None
        if number is not None:
            raise _Unknown(f"{name} = nan")  # whatever it is compared with, nobody knows
        fix = suggest(name, self.metrics, "metric") if self.metrics else "no metric was logged"
        raise _Unknown(f"the metric {name!r} was not logged; {fix}")


def _once(texts: list[str], text: str) -> None:
    if text not in texts:
        texts.append(text)
