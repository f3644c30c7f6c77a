"""Which runs of MLflow a person means.

``RUN`` is the beginning of an MLflow run id (four characters or more), or an nbtools run: its id, the beginning or the end
of it, or ``latest`` (``latest~1`` is the one before). Such a run is the whole of a pipeline's run; ``RUN:STAGE`` is
what it executed of a stage (``fit``, ``train.fit``, ``fit[alpha=0.5]``), all variants if the stage has several and
none is named. ``latest:fit`` is the latest that executed ``fit``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from nbtools.errors import UsageError, suggest
from nbtools.tracking.experiments import Columns, Experiments, Level, TrackedRun

_NAME = re.compile(r"(?P<run>[\w-]+)(?:~(?P<back>\d{1,6}))?(?::(?P<stage>.+))?", re.DOTALL)
_MLFLOW_ID = re.compile(r"[0-9a-f]{4,32}")
_NONE = Columns(metrics=(), params=())
_WAYS = "name an MLflow run id or its beginning, an nbtools run id, latest, latest~1, or one stage of it: latest:fit"
#: How many runs are shown where several are meant, or none.
_FEW = 5


@dataclass(frozen=True, slots=True)
class RunName:
    """What a person wrote: a run, how many runs before it, and a stage of that (or an empty text)."""

    run: str
    back: int = 0
    stage: str = ""


def parse(text: str) -> RunName:
    """Return what a name says.

    >>> parse("latest~1:train.fit[alpha=0.5]")
    RunName(run='latest', back=1, stage='train.fit[alpha=0.5]')

    Raises
    ------
    UsageError
        If it is none.
    """
    match = _NAME.fullmatch(text.strip())
    if match is None or (match["back"] and match["run"] != "latest"):
        raise UsageError.of(f"{text!r} names no run", fix=_WAYS)
    return RunName(match["run"], int(match["back"] or 0), (match["stage"] or "").strip())


def is_stage(key: str, wanted: str) -> bool:
    """Return whether a stage's key is meant by a name.

    >>> [is_stage("train.fit[alpha=0.5]", name) for name in ("fit", "train.fit", "fit[alpha=0.5]", "evaluate")]
    [True, True, True, False]
    """
    stage, bracket, variant = key.partition("[")
    short = stage.rpartition(".")[2]
    return wanted in (key, stage, short, f"{short}{bracket}{variant}")


def resolve(experiments: Experiments, text: str) -> list[TrackedRun]:
    """Return the runs that a name means: one, or all variants of a stage.

    Raises
    ------
    UsageError
        If no run is meant, it is not clear which one, or it has been deleted.
    """
    name = parse(text)
    found = _stage_runs(experiments, name) if name.stage else [_one(experiments, name)]
    # What was found has a few tags only.
    return [experiments.by_id(run.run_id) or run for run in found]


def _one(experiments: Experiments, name: RunName) -> TrackedRun:
    if name.run == "latest":
        runs = experiments.search(level="pipeline", limit=name.back + 1, columns=_NONE)
        if len(runs) <= name.back:
            raise _too_few(len(runs), "run")
        return runs[name.back]
    if len(name.run) == 32 and (exact := experiments.by_id(name.run)):
        return exact
    found = [*_by_mlflow_id(experiments, name.run), *_by_run(experiments, name.run, "pipeline")]
    distinct = list({run.run_id: run for run in found}.values())
    if not distinct:
        raise _unknown(experiments, name.run)
    if len(distinct) > 1:
        raise _ambiguous(name.run, distinct)
    return distinct[0]


def _stage_runs(experiments: Experiments, name: RunName) -> list[TrackedRun]:
    if name.run == "latest":
        return _latest_of_stage(experiments, name)
    of_run = _by_run(experiments, name.run, "stage")
    if not of_run:
        raise _unknown(experiments, name.run)
    if len(runs := sorted({run.run for run in of_run})) > 1:
        raise UsageError.of(
            f"{name.run!r} could mean the runs {', '.join(runs[:_FEW])}", fix="write more of it"
        )
    kept = [run for run in of_run if is_stage(run.stage, name.stage)]
    if not kept:
        executed = _spellings(run.stage for run in of_run)
        message = f"the run {of_run[0].run} executed no stage {name.stage!r}"
        fix = f"{suggest(name.stage, executed, 'stage')}; latest:{name.stage} is the latest run that did"
        raise UsageError.of(message, fix=fix)
    return _last_attempts(kept)


def _latest_of_stage(experiments: Experiments, name: RunName) -> list[TrackedRun]:
    """Return what the latest run (or one so many before it) executed of a stage; no more is read than that takes."""
    order: list[str] = []
    kept: list[TrackedRun] = []
    for page in experiments.pages(_like("tags.`nbtools.stage`", "%", name.stage, "%"), columns=_NONE):
        for run in page:
            if not is_stage(run.stage, name.stage):
                continue
            if run.run not in order:
                order.append(run.run)
            if order.index(run.run) == name.back:
                kept.append(run)
        # Runs of one project come one after the other, so its variants are in this page or in the next.
        if len(order) > name.back + 1:
            break
    if not kept:
        if order:
            raise _too_few(len(order), f"run of {name.stage}")
        known = _spellings(run.stage for run in experiments.search(limit=1000, columns=_NONE))
        raise UsageError.of(
            f"no run has executed a stage {name.stage!r}",
            fix=suggest(name.stage, known, "stage") if known else "nbtools run",
        )
    return _last_attempts(kept)


def _by_mlflow_id(experiments: Experiments, prefix: str) -> list[TrackedRun]:
    if not _MLFLOW_ID.fullmatch(prefix):
        return []
    found = experiments.search(
        _like("attributes.run_id", "", prefix, "%"), level="all", limit=_FEW + 1, columns=_NONE
    )
    return [run for run in found if run.run_id.startswith(prefix)]


def _by_run(experiments: Experiments, wanted: str, level: Level) -> list[TrackedRun]:
    """Return what belongs to the nbtools runs whose id is, begins or ends with a text; an id wins over the others."""
    runs: list[TrackedRun] = []
    for before, after in (("", "%"), ("%", "")):
        found = experiments.search(
            _like("tags.`nbtools.run`", before, wanted, after), level=level, columns=_NONE
        )
        runs += [run for run in found if run.run.startswith(wanted) or run.run.endswith(wanted)]
    exact = [run for run in runs if run.run == wanted]
    return list({run.run_id: run for run in exact or runs}.values())


def _like(what: str, before: str, text: str, after: str) -> str:
    # A quote cannot be written in MLflow's grammar; for LIKE, _ is any character.
    return f"{what} LIKE '{before}{text.replace(chr(39), '_')}{after}'"


def _last_attempts(runs: list[TrackedRun]) -> list[TrackedRun]:
    """Return one run for each stage, its last attempt, in the order of the stages."""
    last: dict[str, TrackedRun] = {}
    for run in sorted(runs, key=lambda run: (run.started_at, _attempt(run))):
        last[run.stage] = run
    return [last[stage] for stage in sorted(last)]


def _spellings(stages: Iterable[str]) -> set[str]:
    """Return the names that stages can be meant by: short ones only, unless somebody wrote a whole key."""
    return {stage.partition("[")[0].rpartition(".")[2] for stage in stages}


def _attempt(run: TrackedRun) -> int:
    text = run.tags.get("nbtools.attempt", "")
    return int(text) if text.isdigit() else 0


def _too_few(count: int, what: str) -> UsageError:
    if not count:
        return UsageError.of(f"there is no {what} in MLflow yet", fix="nbtools run")
    return UsageError.of(
        f"there are only {count} {what.replace('run', 'runs', 1)} (latest~{count - 1} is the oldest)"
    )


def _unknown(experiments: Experiments, wanted: str) -> UsageError:
    if _MLFLOW_ID.fullmatch(wanted):
        query = _like("attributes.run_id", "", wanted, "%")
        gone = experiments.search(query, level="all", limit=1, columns=_NONE, deleted=True)
        if gone and gone[0].run_id.startswith(wanted):
            experiments.by_id(gone[0].run_id)  # says that it has been deleted
    newest = experiments.search(level="pipeline", limit=1000, columns=_NONE)
    if not newest:
        return _too_few(0, "run")
    advice = suggest(wanted, [run.run for run in newest[:_FEW]], "run")
    return UsageError.of(
        f"MLflow has no run {wanted!r}", fix=f"{advice}; see nbtools runs search, nbtools history"
    )


def _ambiguous(wanted: str, found: list[TrackedRun]) -> UsageError:
    shown = ", ".join(f"{run.run_id[:12]} ({run.name or run.stage})" for run in found[:_FEW])
    more = ", …" if len(found) > _FEW else ""
    return UsageError.of(
        f"{wanted!r} could mean {shown}{more}", fix="write more of it, or the stage: RUN:STAGE"
    )
