"""How the distribution of a column differs between two tables. Imports pandas: only whoever compares tables needs it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_BINS = 10
#: Categories are compared one by one up to this many; the rest count as one.
_MOST_CATEGORIES = 50
_SHOWN_CATEGORIES = 5
#: Stands for an empty bin, whose logarithm there is none of.
_SMALLEST_SHARE = 1e-4


@dataclass(frozen=True, slots=True)
class Summary:
    """What a column holds.

    Parameters
    ----------
    nulls
        Share of missing values, from 0 to 1.
    minimum, mean, maximum
        None for columns that are no numbers or moments. Moments are in seconds since the epoch.
    quantiles
        By probability: 0.05, 0.25, 0.5, 0.75, 0.95.
    shares
        Of categories: the most frequent values with their shares of all that are not missing.
    """

    dtype: str
    rows: int
    nulls: float
    minimum: float | None = None
    mean: float | None = None
    maximum: float | None = None
    quantiles: dict[str, float] = field(default_factory=dict)
    distinct: int | None = None
    shares: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ColumnChange:
    """A column of two tables.

    Parameters
    ----------
    kind
        ``added``, ``removed``, ``retyped``, ``changed`` (other values) or ``same``.
    psi
        Population stability index, see ``stability_index``; None where it has no meaning.
    ks
        Kolmogorov-Smirnov distance of numbers, from 0 to 1: the largest difference of the two distribution functions.
    """

    column: str
    kind: str
    before: Summary | None = None
    after: Summary | None = None
    psi: float | None = None
    ks: float | None = None

    @property
    def drift(self) -> str:
        """What the index is commonly read as: ``none`` below 0.1, ``some`` below 0.25, else ``much``."""
        if self.psi is None:
            return ""
        return "none" if self.psi < 0.1 else "some" if self.psi < 0.25 else "much"


def compare(before: pd.DataFrame, after: pd.DataFrame) -> tuple[ColumnChange, ...]:
    """Return how each column differs, in the order of ``after``; removed ones come last."""
    changes = [_column(str(name), before, after, name) for name in after.columns]
    removed = [name for name in before.columns if name not in after.columns]
    changes += [ColumnChange(str(name), "removed", before=summary(before[name])) for name in removed]
    return tuple(changes)


def _column(shown: str, before: pd.DataFrame, after: pd.DataFrame, name: Any) -> ColumnChange:
    new = after[name]
    if name not in before.columns:
        return ColumnChange(shown, "added", after=summary(new))
    old = before[name]
    if old.dtype == new.dtype and len(old) == len(new) and _same(old, new):
        return ColumnChange(shown, "same", summary(old), summary(new), 0.0, 0.0 if _is_numeric(new) else None)
    psi = ks = None
    if _is_numeric(old) and _is_numeric(new):
        psi, ks = stability_index(_numbers(old), _numbers(new)), distance(_numbers(old), _numbers(new))
    elif _is_numeric(old) == _is_numeric(new):
        psi = stability_index_of_categories(_texts(old), _texts(new))
    kind = "changed" if old.dtype == new.dtype else "retyped"
    return ColumnChange(shown, kind, summary(old), summary(new), psi, ks)


def _same(old: pd.Series[Any], new: pd.Series[Any]) -> bool:
    try:
        return bool(old.reset_index(drop=True).equals(new.reset_index(drop=True)))
    except (TypeError, ValueError):  # of values that cannot be compared
        return False


def summary(column: pd.Series[Any]) -> Summary:
    """Return what a column holds."""
    nulls = float(column.isna().mean()) if len(column) else 0.0
    known = Summary(str(column.dtype), len(column), nulls)
    if not _is_numeric(column):
        texts = _texts(column).dropna()
        counts = texts.value_counts(normalize=True)
        shares = {str(name): float(share) for name, share in counts.head(_SHOWN_CATEGORIES).items()}
        return Summary(known.dtype, known.rows, nulls, distinct=len(counts), shares=shares)
    values = _numbers(column)
    values = values[np.isfinite(values)]
    if not len(values):
        return known
    quantiles = dict(zip(map(str, _QUANTILES), map(float, np.quantile(values, _QUANTILES)), strict=True))
    low, mean, high = (float(found) for found in (values.min(), values.mean(), values.max()))
    return Summary(known.dtype, known.rows, nulls, low, mean, high, quantiles)


def stability_index(before: np.ndarray[Any, Any], after: np.ndarray[Any, Any]) -> float | None:
    """Return the population stability index of numbers: the sum over bins of (b - a) * ln(b / a).

    The bins are the deciles of ``before``, and one for missing values; an empty bin counts as a share of 0.0001.
    0 means the same shares; by custom less than 0.1 is no drift and more than 0.25 much (N. Siddiqi, Credit Risk
    Scorecards, 2006; B. Yurdakul, Statistical Properties of the Population Stability Index, 2018, on its
    distribution). None if one of the two is empty.
    """
    if not len(before) or not len(after):
        return None
    known = before[~np.isnan(before)]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, _BINS + 1)[1:-1])) if len(known) else np.array([])
    return _index(_binned(before, edges), _binned(after, edges))


def _binned(values: np.ndarray[Any, Any], edges: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    missing = np.isnan(values)
    counts = np.bincount(np.searchsorted(edges, values[~missing]), minlength=len(edges) + 1)
    return np.append(counts, missing.sum())


def stability_index_of_categories(before: pd.Series[Any], after: pd.Series[Any]) -> float | None:
    """Return the population stability index of categories, each a bin; see ``stability_index``."""
    if not len(before) or not len(after):
        return None
    old, new = before.value_counts(dropna=False), after.value_counts(dropna=False)
    kept = old.add(new, fill_value=0).sort_values(ascending=False).head(_MOST_CATEGORIES).index
    pairs = [(old.get(name, 0), new.get(name, 0)) for name in kept]
    pairs.append((len(before) - sum(a for a, _ in pairs), len(after) - sum(b for _, b in pairs)))
    return _index(np.array([a for a, _ in pairs]), np.array([b for _, b in pairs]))


def _index(before: np.ndarray[Any, Any], after: np.ndarray[Any, Any]) -> float:
    either = (before > 0) | (after > 0)
    old = np.maximum(before[either] / before.sum(), _SMALLEST_SHARE)
    new = np.maximum(after[either] / after.sum(), _SMALLEST_SHARE)
    return float(np.sum((new - old) * np.log(new / old)))


def distance(before: np.ndarray[Any, Any], after: np.ndarray[Any, Any]) -> float | None:
    """Return the two-sample Kolmogorov-Smirnov statistic (N. Smirnov, 1948); None if one has no numbers."""
    old, new = (np.sort(values[~np.isnan(values)]) for values in (before, after))
    if not len(old) or not len(new):
        return None
    at = np.concatenate([old, new])
    differences = np.searchsorted(old, at, "right") / len(old) - np.searchsorted(new, at, "right") / len(new)
    return float(np.abs(differences).max())


def _is_numeric(column: pd.Series[Any]) -> bool:
    types = pd.api.types
    dtype = column.dtype
    is_number = types.is_numeric_dtype(dtype) and not types.is_bool_dtype(dtype)
    return bool((is_number and not types.is_complex_dtype(dtype)) or types.is_datetime64_any_dtype(dtype))


def _numbers(column: pd.Series[Any]) -> np.ndarray[Any, Any]:
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        seconds = column.dt.tz_localize(None) if getattr(column.dt, "tz", None) else column
        whole = seconds.astype("datetime64[ns]").astype("int64").to_numpy(dtype=float) / 1e9
        return np.where(column.isna().to_numpy(), math.nan, whole)
    return column.to_numpy(dtype=float, na_value=math.nan)


def _texts(column: pd.Series[Any]) -> pd.Series[Any]:
    """Return values as texts, so that lists and mixed types can be counted too; missing ones stay missing."""
    return column.astype(object).where(column.isna(), column.astype(str)).where(column.notna(), None)
