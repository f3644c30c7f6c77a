"""Filters and orders in MLflow's grammar: where one is wrong, and what is allowed there.

MLflow decides what is right; we only find the condition that it refuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from nbtools.errors import UsageError

#: A text in any of MLflow's quotes, an AND between conditions, or one character.
_PIECE = re.compile(
    r"'[^']*'|\"[^\"]*\"|`[^`]*`|(?P<and>\band\b)|(?P<or>\bor\b)|.", re.IGNORECASE | re.DOTALL
)
_ENTITY = re.compile(r"\s*`?(\w+)`?\s*\.")
_LISTS = re.compile(r"(?:\.| specified\.)? Valid (?:keys|values) are | not one of ")
_NUMBERS = "=, !=, >, >=, <, <= and a number"
_TEXTS = "=, !=, LIKE, ILIKE and a text in quotes ('0.5')"
_ALLOWED = {
    "metric": f"metrics.NAME takes {_NUMBERS}",
    "parameter": f"params.NAME takes {_TEXTS}, IS NULL or IS NOT NULL; MLflow keeps params as texts",
    "tag": f"tags.NAME takes {_TEXTS}, IS NULL or IS NOT NULL",
    "dataset": f"datasets.name, .digest and .context take {_TEXTS}, IN or NOT IN",
    "attribute": f"attributes.start_time and .end_time (ms) take {_NUMBERS}; .run_id (IN, too), .run_name, .status, "
    f".user_id and .artifact_uri take {_TEXTS}",
}
_GENERAL = (
    "conditions are joined by AND, as in \"metrics.r2 > 0.24 and params.alpha = '0.5'\"; they begin with metrics., "
    "params., tags., attributes. or datasets., and a name with a space, dot or dash stands in `backticks`"
)


def check_filter(text: str) -> None:
    """Do nothing if MLflow understands a filter.

    Raises
    ------
    UsageError
        If it does not: which condition, at which column, and what is allowed there.
    """
    if _refusal(text) == "":
        return
    for start, condition in _conditions(text):
        if condition.lower() == "or":
            raise _error(text, start, len(condition), "MLflow's grammar has no OR", _GENERAL)
        if reason := _refusal(condition):
            raise _error(text, start, len(condition), reason, _advice(condition, reason))
    raise _error(text, 0, len(text), _refusal(text), _GENERAL)


def check_sort(text: str) -> None:
    """Do nothing if MLflow understands an order such as ``metrics.r2 desc``.

    Raises
    ------
    UsageError
        If it does not.
    """
    from mlflow.utils.search_utils import SearchUtils

    try:
        kind, _, _ = SearchUtils.parse_order_by_for_search_runs(text)
        if kind == "dataset":
            raise ValueError("runs cannot be ordered by datasets")
    except Exception as error:
        known = ", ".join(sorted(SearchUtils.VALID_ORDER_BY_ATTRIBUTE_KEYS))
        fix = f"write metrics.r2 desc, params.alpha, tags.NAME or attributes.NAME (asc or desc); attributes: {known}"
        message = f"MLflow cannot order by {text!r}: {_first_line(error)}"
        raise UsageError.of(message, where="--sort", fix=fix) from error


def names_in(text: str) -> list[tuple[str, str]]:
    """Return kind (``metric``, ``parameter`` …) and name of what a valid filter compares."""
    from mlflow.utils.search_utils import SearchUtils

    return [(item["type"], item["key"]) for item in SearchUtils.parse_search_filter(text)]


def sorted_metric(text: str) -> str:
    """Return the metric that a valid order is by; an empty text for other orders."""
    from mlflow.utils.search_utils import SearchUtils

    kind, key, _ = SearchUtils.parse_order_by_for_search_runs(text)
    return str(key) if kind == "metric" else ""


def _refusal(text: str) -> str:
    """Return why MLflow refuses a filter; an empty text if it does not."""
    from mlflow.utils.search_utils import SearchUtils

    try:
        for item in SearchUtils.parse_search_filter(text):
            _check_comparison(SearchUtils, item)
    except Exception as error:  # noqa: BLE001 - its parser trips over odd texts in many ways; each is the text's fault
        return _first_line(error)
    return ""


def _check_comparison(grammar: Any, item: dict[str, Any]) -> None:
    """Let MLflow look at the comparison, which it otherwise does only once a database is asked."""
    kind, key, comparator = item["type"], item["key"], item["comparator"].upper()
    key = grammar.translate_key_alias(key)
    grammar.is_metric(kind, comparator)
    grammar.is_param(kind, comparator)
    grammar.is_tag(kind, comparator)
    grammar.is_dataset(kind, comparator)
    grammar.is_attribute(kind, key, comparator)


def _conditions(text: str) -> Iterator[tuple[int, str]]:
    """Yield each condition, and each OR, with where it begins."""
    start = 0
    for piece in _PIECE.finditer(text):
        if piece["and"] or piece["or"]:
            yield from _stripped(text, start, piece.start())
            start = piece.end()
        if piece["or"]:
            yield piece.start(), piece[0]
    yield from _stripped(text, start, len(text))


def _stripped(text: str, start: int, end: int) -> Iterator[tuple[int, str]]:
    condition = text[start:end]
    if condition.strip():
        yield start + len(condition) - len(condition.lstrip()), condition.strip()


def _advice(condition: str, reason: str) -> str:
    from mlflow.utils.search_utils import SearchUtils

    match = _ENTITY.match(condition)
    if match and "AND-ed" not in reason:  # several conditions, joined by something else
        try:
            return _ALLOWED[SearchUtils._valid_entity_type(match[1])]
        except Exception:  # noqa: BLE001 - it is none of them
            return _GENERAL
    return _GENERAL


def _error(text: str, start: int, length: int, reason: str, fix: str) -> UsageError:
    fits = text.isprintable() and len(text) <= 120
    mark = f"\n    {text}\n    {' ' * start}{'^' * max(length, 1)}" if fits else ""
    condition = text[start : start + length]
    message = f"MLflow does not understand {condition!r}: {reason}{mark}"
    return UsageError.of(message, where=f"filter, column {start + 1}", fix=fix)


def _first_line(error: Exception) -> str:
    """Return what MLflow says, without its lists of what is valid: they are sets, in another order each time."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = _LISTS.split(lines[0])[0] if lines else f"it cannot be read ({type(error).__name__})"
    return said[:300]
