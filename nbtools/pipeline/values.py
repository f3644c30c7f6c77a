"""Which param names and values reach a kernel unchanged.

Rules of this file: no I/O. papermill writes params as Python source: names are pasted in, tuples
and bytes turn into strings, keys of mappings become strings. What would not arrive as it was
written is found here, before anything runs.
"""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

#: Python itself refuses source with more than 200 nested brackets.
_MOST_DEPTH = 100
_SIZE = re.compile(r"(\d+(?:\.\d+)?)(?:([KMGT])(i?))?B?")
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")


def why_bad_name(name: str) -> str:
    """Return why ``name`` cannot be a notebook variable, or an empty string.

    >>> why_bad_name("alpha")
    ''
    >>> why_bad_name("learning-rate")
    "'learning-rate' is not a Python identifier"
    """
    if not name.isidentifier():
        return f"{name!r} is not a Python identifier"
    if keyword.iskeyword(name):
        return f"{name!r} is a Python keyword"
    if (normal := unicodedata.normalize("NFKC", name)) != name:
        return f"Python reads {name!r} as {normal!r}: write it like this"
    return ""


def why_unfit(value: Any, depth: int = 0) -> str:
    """Return why ``value`` would not survive the trip into a kernel unchanged, or an empty string.

    None, bool, int, float (infinities and NaN too), str, and lists and str-keyed mappings of these arrive.

    >>> why_unfit({"depth": [1, 2.5, None]})
    ''
    >>> why_unfit((1, 2))
    'a tuple would arrive as a string'
    """
    if depth > _MOST_DEPTH:
        return "it is nested too deeply"
    if value is None or type(value) in (bool, float):
        return ""
    if type(value) is int:
        return "" if abs(value) < 10**4000 else "the number has too many digits"
    if type(value) is str:
        return _why_unfit_text(value)
    if type(value) is list:
        return next(filter(None, (why_unfit(item, depth + 1) for item in value)), "")
    if type(value) is dict:
        return _why_unfit_mapping(value, depth)
    return f"a {type(value).__name__} would arrive as a string"


def _why_unfit_text(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "the text is not valid Unicode"
    return ""


def _why_unfit_mapping(mapping: Mapping[Any, Any], depth: int) -> str:
    for key, value in mapping.items():
        if type(key) is not str:
            return f"the key {key!r} would arrive as a string; quote it"
        if reason := _why_unfit_text(key) or why_unfit(value, depth + 1):
            return reason
    return ""


def same_value(left: Any, right: Any) -> bool:
    """Return whether two param values are the same to a notebook: 1, 1.0 and True are three values, 0.0 and -0.0 two."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same_value, left, right))
    if isinstance(left, dict):
        return list(left) == list(right) and all(same_value(left[key], right[key]) for key in left)
    return bool(left == right) if not isinstance(left, float) else repr(left) == repr(right)


def seconds(text: str | float) -> float:
    """Return a duration such as ``30m``, ``1h30m``, ``45s`` or a number of seconds, in seconds.

    Raises
    ------
    ValueError
        If it is not a positive duration.

    >>> seconds("1h30m")
    5400.0
    """
    if isinstance(text, bool):
        raise ValueError("a duration is a number of seconds or a text such as 30m")
    if isinstance(text, int | float):
        total = float(text)
    else:
        match = _DURATION.fullmatch(text.strip().replace(" ", ""))
        if not match or not any(match.groups()):
            raise ValueError(f"{text!r} is no duration; write it as 45s, 30m or 1h30m")
        hours, minutes, rest = (float(part or 0) for part in match.groups())
        total = hours * 3600 + minutes * 60 + rest
    if not 0 < total < float("inf"):
        raise ValueError("a duration must be longer than nothing")
    return total


def size_bytes(text: str | int) -> int:
    """Return a size such as ``2GiB``, ``500MB`` or a number of bytes, in bytes.

    Raises
    ------
    ValueError
        If it is not a positive size.

    >>> size_bytes("2GiB")
    2147483648
    """
    match = _SIZE.fullmatch(str(text).strip().replace(" ", ""))
    if isinstance(text, bool) or not match:
        raise ValueError(f"{text!r} is no size; write it as 500MB or 2GiB")
    number, unit, binary = match.groups()
    total = float(number) * (1024 if binary else 1000) ** (" KMGT".index(unit) if unit else 0)
    if not 1 <= total < 2**63:
        raise ValueError("a size must be more than nothing, and less than all there is")
    return int(total)
