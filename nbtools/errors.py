"""What can go wrong, sorted by who must act. Only ``cli`` prints these and exits."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: what is wrong, where it stands, and how to mend it.

    Parameters
    ----------
    message
        What is wrong, as one sentence.
    where
        ``file:line:column`` or a path; empty when there is no place.
    path
        Place inside the document, such as ``pipelines.train.stages.fit.timeout``.
    fix
        What to do about it; empty when the message says it already.
    """

    message: str
    where: str = ""
    path: str = ""
    fix: str = ""

    def __str__(self) -> str:
        place = f"{self.where} ({self.path})" if self.where and self.path else self.where or self.path
        head = f"{place}: {self.message}" if place else self.message
        return f"{head}\n  fix: {self.fix}" if self.fix else head


class NbtoolsError(Exception):
    """A mistake or mishap that a person must act on.

    Parameters
    ----------
    problems
        Everything that was found, in reading order; at least one.
    """

    exit_code = 1

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems

    @classmethod
    def of(cls, message: str, *, where: str = "", path: str = "", fix: str = "") -> Self:
        """Return the error for a single problem."""
        return cls(Problem(message, where, path, fix))


class SpecError(NbtoolsError):
    """The author of ``pipelines.yaml`` must act."""

    exit_code = 2


class NotebookError(NbtoolsError):
    """The author of a notebook must act before anything can run."""

    exit_code = 2


class UsageError(NbtoolsError):
    """Whoever typed the command must act."""

    exit_code = 2


class OperationError(NbtoolsError):
    """Whoever operates the machine must act: disk, permissions, a server, another process."""


class DataError(NbtoolsError):
    """A dataset breaks its contract, is missing or has changed behind the project's back."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return the valid name that ``name`` was most likely meant to be, or an empty string.

    >>> nearest("timout", ["timeout", "retries"])
    'timeout'
    >>> nearest("x", ["timeout"])
    ''
    """
    found = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.6)
    return found[0] if found else ""


def suggest(name: str, valid: Iterable[str], what: str = "name") -> str:
    """Return the advice for an unknown name: the nearest valid one, or all of them."""
    known = sorted(set(valid))
    if close := nearest(name, known):
        return f"did you mean {close!r}?"
    if not known:
        return f"there is no {what} to choose from"
    shown = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
    return f"valid {what}s: {shown}"
