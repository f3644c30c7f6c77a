"""What a stage's result depends on, its digest, and what changed since the last time.

Rules of this file: no I/O. Paths and time stamps never count: only what the notebook can see.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nbtools.pipeline.notebook import DIGEST_VERSION
from nbtools.pipeline.values import same_value


@dataclass(frozen=True, slots=True)
class Ingredients:
    """Everything that a stage's result depends on.

    Parameters
    ----------
    code
        Digests of the code cells, in order.
    params
        Injected params by name; a secret as ``{"secret": ENV_NAME}``.
    inputs
        Digests of the input datasets by variable; a list where the notebook receives a list.
    outputs
        Suffix of each output path by variable, such as ``.parquet``: notebooks may choose a format by it.
    modules
        Digests of the project's own modules that the notebook imports, by path in the project.
    packages
        Versions of the installed packages that it imports.
    python
        The kernel's language and version, such as ``CPython 3.11.7``.
    """

    code: tuple[str, ...]
    params: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str | list[str]] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    modules: Mapping[str, str] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    python: str = ""
    version: int = DIGEST_VERSION


@dataclass(frozen=True, slots=True)
class Difference:
    """One ingredient that is not what it was; ``old`` or ``new`` is empty where it came or went."""

    kind: str
    name: str
    old: str = ""
    new: str = ""

    def __str__(self) -> str:
        return str(_SENTENCES[self.kind](self))


def digest(ingredients: Ingredients) -> str:
    """Return the fingerprint: equal exactly if all ingredients are equal."""
    text = json.dumps(to_record(ingredients), ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def to_record(ingredients: Ingredients) -> dict[str, Any]:
    """Return ``ingredients`` as JSON-ready values."""
    return {name: _plain(getattr(ingredients, name)) for name in Ingredients.__slots__}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    # The order of the names says nothing; that within a param's value can be seen by the notebook.
    return {name: value[name] for name in sorted(value)} if isinstance(value, Mapping) else value


def from_record(record: Mapping[str, Any]) -> Ingredients:
    """Return what ``to_record`` was given."""
    known = {name: record[name] for name in Ingredients.__slots__ if name in record}
    return Ingredients(**{**known, "code": tuple(record["code"])})


def differences(old: Ingredients, new: Ingredients) -> tuple[Difference, ...]:
    """Return what changed from ``old`` to ``new``, what a person would look at first coming first."""
    found: list[Difference] = []
    if old.code != new.code:
        before_code, after_code = Counter(old.code), Counter(new.code)
        changed, gone = (after_code - before_code).total(), (before_code - after_code).total()
        found.append(Difference("code", "", str(gone), str(changed)))
    for name in _either(old.params, new.params):
        before, after = old.params.get(name, _ABSENT), new.params.get(name, _ABSENT)
        if not same_value(before, after):
            found.append(Difference("param", name, _shown(before), _shown(after)))
    for kind, was, now in (
        ("input", old.inputs, new.inputs),
        ("output", old.outputs, new.outputs),
        ("module", old.modules, new.modules),
        ("package", old.packages, new.packages),
    ):
        found += _changed(kind, was, now)
    if old.python != new.python:
        found.append(Difference("python", "", old.python, new.python))
    if old.version != new.version:
        found.append(Difference("version", "", str(old.version), str(new.version)))
    return tuple(found)


def _changed(kind: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    return [
        Difference(kind, name, _text(was.get(name)), _text(now.get(name)))
        for name in _either(was, now)
        if was.get(name) != now.get(name)
    ]


_ABSENT = object()


def _either(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys([*left, *right]))


def _shown(value: Any) -> str:
    return "" if value is _ABSENT else repr(value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return ",".join(value) if isinstance(value, list) else str(value)


def _code(difference: Difference) -> str:
    new, gone = int(difference.new), int(difference.old)
    if new == 0 and gone == 0:
        return "its cells stand in another order"
    if new == 0:
        return f"{gone} cell{'s' * (gone > 1)} removed"
    return f"{new} cell{'s' * (new > 1)} changed"


def _param(difference: Difference) -> str:
    name, old, new = difference.name, difference.old, difference.new
    if not old:
        return f"param {name} = {new} is new"
    if not new:
        return f"param {name} (was {old}) is no longer set"
    return f"param {name}: {old} → {new}"


def _package(difference: Difference) -> str:
    if difference.old and difference.new:
        return f"package {difference.name}: {difference.old} → {difference.new}"
    return (
        f"package {difference.name} is {'new' if difference.new else 'no longer imported, or not installed'}"
    )


def _module(difference: Difference) -> str:
    if difference.old and difference.new:
        return f"module {difference.name} changed"
    return f"module {difference.name} is {'new' if difference.new else 'no longer imported'}"


def _input(difference: Difference) -> str:
    if difference.old and difference.new:
        return f"input {difference.name} changed"
    return f"input {difference.name} is {'new' if difference.new else 'no longer read'}"


_SENTENCES: dict[str, Callable[[Difference], str]] = {
    "code": _code,
    "param": _param,
    "input": _input,
    "output": lambda difference: f"output {difference.name} is declared otherwise",
    "module": _module,
    "package": _package,
    "python": lambda difference: f"Python: {difference.old} → {difference.new}",
    "version": lambda _: "this version of nbtools counts other things",
}
