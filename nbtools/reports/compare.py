"""How runs differ, as one value.

Rules of this file: no I/O. What MLflow holds of the runs comes in; notebooks are compared elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nbtools.pipeline.explain import CellChange
from nbtools.tracking.experiments import TrackedRun
from nbtools.tracking.experiments_detail import RunDetails


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not the same in all runs.

    Parameters
    ----------
    kind
        ``run``, ``param``, ``metric``, ``data``, ``package`` or ``duration`` (in seconds).
    values
        One for each run; None where there is none.
    changes
        Of metrics and durations: each value less that of the first run; None where one of them is missing.
    """

    kind: str
    name: str
    values: tuple[str | float | None, ...]
    changes: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True)
class CodeDifference:
    """How the code cells of a notebook differ from those of the first run.

    Parameters
    ----------
    label
        The run that is compared with the first one.
    missing
        Why the cells could not be compared; empty if they were.
    """

    label: str
    notebook: str
    cells: tuple[CellChange, ...] = ()
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs between runs.

    Parameters
    ----------
    labels
        A short name for each run, no two alike.
    same
        How many params, metrics, digests and packages are the same in all of them.
    notes
        What could not be compared, in words.
    """

    labels: tuple[str, ...]
    runs: tuple[TrackedRun, ...]
    differences: tuple[Difference, ...]
    code: tuple[CodeDifference, ...] = ()
    same: int = 0
    notes: tuple[str, ...] = ()


def compare(runs: Sequence[RunDetails], code: Sequence[CodeDifference] = ()) -> Comparison:
    """Return what differs between runs; metrics and durations with the difference from the first."""
    labels = short_labels([item.run for item in runs])
    stages = common_stages(runs)
    groups: list[tuple[str, list[Mapping[str, str | float]]]] = [
        ("run", [_about(item.run) for item in runs]),
        ("param", [dict(params(item, stages)) for item in runs]),
        ("metric", [dict(metrics(item, stages)) for item in runs]),
        ("data", [_data(item, stages) for item in runs]),
    ]
    packages = [_packages(item, stages) for item in runs]
    notes = [f"{note} cannot be compared" for note in _not_in_all(labels, runs, stages)]
    if None in packages:
        without = [label for label, found in zip(labels, packages, strict=True) if found is None]
        notes.append(f"packages cannot be compared: they were not recorded for {', '.join(without)}")
    else:
        groups.append(("package", [dict(found or {}) for found in packages]))
    groups.append(("duration", [_took(item.run) for item in runs]))
    found: list[Difference] = []
    same = 0
    for kind, values in groups:
        different, alike = _differences(kind, values)
        found += different
        same += alike if kind in ("param", "metric", "data", "package") else 0
    return Comparison(labels, tuple(item.run for item in runs), tuple(found), tuple(code), same, tuple(notes))


def common_stages(runs: Sequence[RunDetails]) -> tuple[str, ...]:
    """Return the stages that all of the runs have; none if they are the runs of stages."""
    return tuple(sorted(set.intersection(*(set(item.stages) for item in runs))))


def params(item: RunDetails, stages: Sequence[str]) -> dict[str, str]:
    """Return the params of a run and of some of its stages, as ``train.fit.alpha``."""
    own = {} if stages else dict(item.run.params)  # what a pipeline was given reaches its stages
    return own | {
        f"{stage}.{name}": value for stage in stages for name, value in item.stages[stage].run.params.items()
    }


def metrics(item: RunDetails, stages: Sequence[str]) -> dict[str, float]:
    """Return the metrics of a run and of some of its stages, as ``train.fit.rmse``."""
    return dict(item.run.metrics) | {
        f"{stage}.{name}": value for stage in stages for name, value in item.stages[stage].run.metrics.items()
    }


def _data(item: RunDetails, stages: Sequence[str]) -> dict[str, str | float]:
    found: dict[str, str | float] = dict(item.data)
    for stage in stages:
        for name, digest in item.stages[stage].data.items():
            kind, _, dataset = name.partition(" ")
            found[f"{kind} {stage}.{dataset}"] = digest
    return found


def _packages(item: RunDetails, stages: Sequence[str]) -> dict[str, str] | None:
    """Return the versions that a run, or any of its stages, recorded; None if none did."""
    recorded = [item.packages, *(item.stages[stage].packages for stage in stages)]
    known = [found for found in recorded if found is not None]
    return {name: version for found in known for name, version in found.items()} if known else None


def _not_in_all(labels: Sequence[str], runs: Sequence[RunDetails], stages: Sequence[str]) -> list[str]:
    return [
        f"{', '.join(others)} of {label}"
        for label, item in zip(labels, runs, strict=True)
        if (others := sorted(set(item.stages) - set(stages)))
    ]


def short_labels(runs: Sequence[TrackedRun]) -> tuple[str, ...]:
    """Return the beginning of each run's id, as long as it takes for all to be different."""
    ids = [run.run_id for run in runs]
    length = next((size for size in range(8, 33) if len({item[:size] for item in ids}) == len(set(ids))), 32)
    return tuple(item[:length] for item in ids)


def _about(run: TrackedRun) -> dict[str, str | float]:
    facts = {
        "name": run.name,
        "stage": run.stage,
        "nbtools run": run.run,
        "status": run.status,
        "experiment": run.experiment,
        "user": run.user,
        "source": run.source,
        "commit": run.version,
        "branch": run.tags.get("mlflow.source.git.branch", ""),
        "uncommitted changes": {"true": "yes", "false": "no"}.get(
            run.tags.get("mlflow.source.git.dirty", ""), ""
        ),
    }
    return {name: value for name, value in facts.items() if value}


def _took(run: TrackedRun) -> dict[str, str | float]:
    return {} if run.duration_s is None else {"took": run.duration_s}


def _differences(kind: str, values: Sequence[Mapping[str, str | float]]) -> tuple[list[Difference], int]:
    """Return what is not the same in all, and how much is."""
    names = sorted({name for each in values for name in each}) if kind != "run" else _in_order(values)
    found, same = [], 0
    for name in names:
        row = tuple(each.get(name) for each in values)
        if all(_equal(row[0], value) for value in row):
            same += 1
        else:
            numeric = kind in ("metric", "duration")
            found.append(
                Difference(kind, name, row, tuple(_change(row[0], v) for v in row) if numeric else ())
            )
    return found, same


def _in_order(values: Sequence[Mapping[str, str | float]]) -> list[str]:
    return list(dict.fromkeys(name for each in values for name in each))


def _equal(one: str | float | None, other: str | float | None) -> bool:
    both_nan = isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other)
    return both_nan or one == other


def _change(first: str | float | None, value: str | float | None) -> float | None:
    if isinstance(first, int | float) and isinstance(value, int | float):
        return value - first
    return None
