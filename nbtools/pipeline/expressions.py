"""Small conditions that people write in pipelines.yaml: read, checked and judged, never executed as code.

Rules of this file: no I/O. A condition is an expression of references, numbers, ``+ - * /``, comparisons,
``and``, ``or``, ``not``, ``abs``, ``min`` and ``max``; what may be referred to is for a ``Language`` to say.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

_LONGEST = 1_000
_ARITHMETIC: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_COMPARISONS: dict[type[ast.AST], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_MEMBERSHIP: dict[type[ast.AST], Callable[[Any, Any], bool]] = {
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}
_FUNCTIONS: dict[str, tuple[Callable[..., Any], int, int]] = {
    "abs": (abs, 1, 1),
    "min": (min, 2, 20),
    "max": (max, 2, 20),
}
#: Names that refer to nothing; YAML's spelling is as good as Python's.
_WORDS = {"true": True, "false": False, "null": None}
RESERVED = frozenset({*_FUNCTIONS, *_WORDS})

#: What a reference is made of, such as ``("champion", "rmse")``.
Reference: TypeAlias = tuple[str, ...]


class Missing(Enum):
    """The value of what cannot be known; what depends on it is neither true nor false."""

    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Language:
    """What a kind of condition may say.

    Parameters
    ----------
    reference
        Returns what a node refers to, or None.
    noun
        What references name, such as ``a metric``.
    example
        A condition that is right.
    texts
        Whether values may also be texts, truths, null and lists of them, and a truth is a condition.
    """

    reference: Callable[[ast.expr], Reference | None]
    noun: str
    example: str
    texts: bool = False


class BadCondition(Exception):
    """The text is no condition."""


def why_bad(text: str, language: Language) -> str:
    """Return why ``text`` is no condition, or an empty string."""
    try:
        _Checking(language).truth(_parsed(text))
    except BadCondition as error:
        return str(error)
    except RecursionError:
        return "it is nested too deeply"
    return ""


def references(text: str, language: Language) -> tuple[Reference, ...]:
    """Return what a condition refers to, each once, as it is written."""
    return _references(_parsed(text), language)


def holds(text: str, language: Language, value_of: Callable[[Reference], Any]) -> bool | None:
    """Return whether a condition holds, in Kleene's logic: None where a value is ``Missing.UNKNOWN``.

    Raises
    ------
    ArithmeticError, TypeError
        If the values have no result, or cannot be compared; and whatever ``value_of`` raises.
    """
    return _Judging(language, value_of).truth(_parsed(text))


def _parsed(text: str) -> ast.expr:
    if len(text) > _LONGEST:
        raise BadCondition(f"it is longer than {_LONGEST} characters")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise BadCondition(f"it is no expression: {error.msg}") from error
    except (ValueError, MemoryError, RecursionError) as error:
        raise BadCondition("it is no expression") from error


def _references(node: ast.AST, language: Language) -> tuple[Reference, ...]:
    if isinstance(node, ast.expr) and (found := language.reference(node)):
        return (found,)
    inner = [_references(child, language) for child in ast.iter_child_nodes(node)]
    return tuple(dict.fromkeys(reference for part in inner for reference in part))


def _is_constant(node: ast.expr, *, texts: bool) -> bool:
    if isinstance(node, ast.Name):
        return texts and node.id in _WORDS
    if isinstance(node, ast.List | ast.Tuple):
        return texts and all(_is_constant(item, texts=True) for item in node.elts)
    kinds = (int, float, str, bool, type(None)) if texts else (int, float)
    return isinstance(node, ast.Constant) and type(node.value) in kinds


class _Checking:
    """Walks over what may be written, and raises ``BadCondition`` at what may not."""

    def __init__(self, language: Language) -> None:
        self.language = language

    def truth(self, node: ast.expr) -> None:
        match node:
            case ast.BoolOp(values=values):
                for value in values:
                    self.truth(value)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self.truth(operand)
            case ast.Compare(left=left, ops=ops, comparators=others):
                self._comparison([left, *others], ops)
            case ast.Constant(value=bool()) | ast.Name(id="true" | "false") if self.language.texts:
                pass
            case _ if not (self.language.texts and self.language.reference(node)):
                raise BadCondition(f"it is no comparison, such as {self.language.example}")

    def _comparison(self, parts: Sequence[ast.expr], ops: Sequence[ast.cmpop]) -> None:
        for op, right in zip(ops, parts[1:], strict=True):
            if type(op) in _MEMBERSHIP and self.language.texts:
                if not isinstance(right, ast.List | ast.Tuple):
                    raise BadCondition("`in` needs a list, such as ['a', 'b']")
            elif type(op) not in _COMPARISONS:
                raise BadCondition("conditions compare with <, <=, >, >=, == and !=")
        for part in parts:
            self._value(part)

    def _value(self, node: ast.expr) -> None:
        match node:
            case _ if _is_constant(node, texts=self.language.texts):
                pass
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                self._value(left)
                self._value(right)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
                self._value(operand)
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
                _, least, most = _FUNCTIONS[name]
                if not least <= len(arguments) <= most:
                    raise BadCondition(f"{name} takes {'one number' if most == 1 else 'two numbers or more'}")
                for argument in arguments:
                    self._value(argument)
            case _ if self.language.reference(node) is None:
                raise BadCondition(f"{ast.unparse(node)!r} is neither {self.language.noun} nor a number")


class _Judging:
    """One condition on its way to a verdict."""

    def __init__(self, language: Language, value_of: Callable[[Reference], Any]) -> None:
        self.language = language
        self.value_of = value_of

    def truth(self, node: ast.expr) -> bool | None:
        match node:
            case ast.BoolOp(op=op, values=values):
                truths = [self.truth(value) for value in values]
                decisive = isinstance(op, ast.Or)
                return decisive if decisive in truths else None if None in truths else not decisive
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                truth = self.truth(operand)
                return None if truth is None else not truth
            case ast.Compare(left=left, ops=ops, comparators=others):
                return self._comparison([left, *others], ops)
        value = self._value(node)
        if value is not Missing.UNKNOWN and not isinstance(value, bool):
            raise TypeError(f"{ast.unparse(node)} is neither true nor false; compare it with something")
        return value if isinstance(value, bool) else None

    def _comparison(self, parts: Sequence[ast.expr], ops: Sequence[ast.cmpop]) -> bool | None:
        values = [self._value(part) for part in parts]
        truths = [
            None
            if Missing.UNKNOWN in (left, right)
            else {**_COMPARISONS, **_MEMBERSHIP}[type(op)](left, right)
            for left, op, right in zip(values, ops, values[1:], strict=False)
        ]
        return False if False in truths else None if None in truths else True

    def _value(self, node: ast.expr) -> Any:
        if found := self.language.reference(node):
            return self.value_of(found)
        match node:
            case ast.Constant(value=value):
                return float(value) if type(value) is int and not self.language.texts else value
            case ast.Name(id=name):
                return _WORDS[name]
            case ast.List(elts=items) | ast.Tuple(elts=items):
                return [self._value(item) for item in items]
            case ast.UnaryOp(op=op, operand=operand):
                return self._applied(operator.neg if isinstance(op, ast.USub) else operator.pos, operand)
            case ast.BinOp(left=left, op=op, right=right):
                return self._applied(_ARITHMETIC[type(op)], left, right)
            case ast.Call(func=ast.Name(id=name), args=arguments):
                return self._applied(_FUNCTIONS[name][0], *arguments)
        raise AssertionError(node)

    def _applied(self, function: Callable[..., Any], *nodes: ast.expr) -> Any:
        values = [self._value(node) for node in nodes]
        return Missing.UNKNOWN if Missing.UNKNOWN in values else function(*values)
