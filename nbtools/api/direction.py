"""Whether the smallest or the largest value of a metric is the best, in the words that people use for it."""

from __future__ import annotations

from typing import Literal, TypeAlias

from nbtools.errors import UsageError, suggest

Direction: TypeAlias = Literal["minimize", "maximize"]

#: Optuna's words, and shorter ones.
_WORDS: dict[str, Direction] = {
    "min": "minimize",
    "minimize": "minimize",
    "max": "maximize",
    "maximize": "maximize",
}
WORDS = tuple(_WORDS)


def direction_of(word: str) -> Direction:
    """Return the direction that a word means.

    Raises
    ------
    UsageError
        If it means none.
    """
    if word not in _WORDS:
        fix = suggest(word, WORDS, "direction")
        raise UsageError.of(f"unknown direction {word!r}", where="--direction", fix=fix)
    return _WORDS[word]
