"""Search by Optuna: which variant is tried next, what became of it, and whether one that runs is worth its time.

Optuna is imported when the first variant is drawn, and nowhere else. Its journal under ``.nbtools/sweeps`` is
the memory of a study: the same search goes on where a killed one was. Whoever draws holds the project's lock.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from nbtools.errors import suggest
from nbtools.execution.cancellation import Cancellation
from nbtools.execution.distributions import distribution, drawn_as, value_of
from nbtools.execution.events import (
    Event,
    StageFailed,
    StageFinished,
    StagePruned,
    StageReused,
    StageStarted,
)
from nbtools.execution.files import explained
from nbtools.execution.placing import file_name
from nbtools.execution.study_file import storage_at
from nbtools.pipeline.dag import Variant, variant_of
from nbtools.pipeline.fingerprint import digest
from nbtools.pipeline.plan import Step, Surroundings, input_digests
from nbtools.pipeline.space import Axis, size
from nbtools.pipeline.spec import Dataset, ParamValue, Stage

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

#: A sampler that draws what was drawn before this often has nothing new to say.
_MOST_REPEATS = 100
#: How often metrics of running variants are looked at.
_LOOK_S = 1.0


History: TypeAlias = Callable[[str, str], Sequence[tuple[int, float]] | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """What is searched, and how.

    Parameters
    ----------
    sampler
        ``random``, ``tpe``, or ``grid`` to take ``points`` in order.
    trials
        How many variants are to have ended, all in all: with a result, or pruned.
    metric
        Name of the metric that is to be small or large; empty where that does not matter.
    direction
        ``minimize`` or ``maximize``.
    prune
        Whether a variant is stopped when what it logs is worse than the median of the others at the same step.
    """

    sampler: str
    space: Mapping[str, Axis]
    trials: int
    metric: str = ""
    direction: Literal["minimize", "maximize"] = "minimize"
    seed: int = 0
    prune: bool = False
    points: Sequence[Mapping[str, ParamValue]] = ()


@dataclass(slots=True)
class _Drawn:
    """A variant that was drawn and has not ended."""

    trial: Trial
    steps: set[int] = field(default_factory=set)
    runs: bool = False


class Search:
    """Draws variants, and learns from their events.

    Parameters
    ----------
    template
        The stage without a point: what all variants share.
    world
        What planning may ask.
    folder
        Where studies are kept.
    note
        Told, in words, of what a person should know.
    """

    def __init__(
        self,
        rule: Rule,
        template: Variant,
        datasets: Mapping[str, Dataset],
        world: Surroundings,
        folder: Path,
        note: Callable[[str], None],
    ) -> None:
        self.rule = rule
        self.points: dict[str, Mapping[str, ParamValue]] = {}
        self.pruned_before: set[str] = set()
        self._template = template
        self._datasets = datasets
        self._world = world
        self._folder = folder
        self._note = note
        self._study: Study | None = None
        self._drawn: dict[str, _Drawn] = {}
        self._values: dict[str, float | None] = {}
        self._earlier: list[Mapping[str, ParamValue]] = []
        self._again: list[dict[str, Any]] = []
        self._left = rule.trials
        self._over = False
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._watcher: threading.Thread | None = None
        self._history: History = lambda _key, _metric: ()
        self._cancellation = Cancellation()

    def begin(self, history: History, cancellation: Cancellation) -> None:
        """Take what the run has to offer.

        Parameters
        ----------
        history
            Returns steps and values of a metric that a variant (by key) has logged so far.
        cancellation
            Stops a variant that is pruned.
        """
        self._history = history
        self._cancellation = cancellation

    @property
    def stage(self) -> Stage:
        """The stage whose variants are drawn."""
        return self._template.stage

    # What the run asks

    def draw(self, done: Mapping[str, Step]) -> Variant | None:
        """Return the next variant; None if there is none any more, or none before others are done."""
        if not all(key in done for key in self._template.upstream):
            return None
        with self._lock, explained("the study of the sweep cannot be written"):
            if self._study is None:
                self._study = self._begin(done)
                self._recall(self._study)
            if self._earlier:
                return self._variant(self._earlier.pop(0))
            return None if self._over or self._left <= 0 else self._new(self._study)

    def close(self) -> None:
        """Look at nothing any more."""
        self._closed.set()
        if self._watcher is not None:
            self._watcher.join()

    # Drawing

    def _new(self, study: Study) -> Variant | None:
        for repeats in range(_MOST_REPEATS):
            if len(self._values) >= self._size():
                break
            trial, point = self._asked(study, repeats)
            variant = self._variant(point)
            if variant.key not in self._values:
                self._values[variant.key] = None
                self._drawn[variant.key] = _Drawn(trial)
                self._left -= 1
                return variant
            # A sampler may not know that it repeats itself; it is told the same again.
            self._tell(trial, self._values[variant.key])
        self._over = True
        if self.rule.sampler != "grid":
            self._note(f"the sampler has nothing new to draw after {len(self._values)} variants")
        return None

    def _size(self) -> float:
        return len(self.rule.points) if self.rule.sampler == "grid" else size(self.rule.space)

    def _asked(self, study: Study, repeats: int) -> tuple[Trial, dict[str, ParamValue]]:
        """Return Optuna's next trial and its point.

        What is drawn follows from the seed and the variants before it, so that a search that was interrupted goes on
        as if it had not been.
        """
        study.sampler = _sampler(self.rule, f"{len(self._values)} {repeats}")
        names = list(self.rule.space)
        if self._again:
            study.enqueue_trial(self._again.pop(0))
        elif self.rule.sampler == "grid":
            point = next(item for item in self.rule.points if self._variant(item).key not in self._values)
            study.enqueue_trial({name: drawn_as(self.rule.space[name], point[name]) for name in point})
            names = list(point)
        trial = study.ask({name: distribution(self.rule.space[name]) for name in names})
        return trial, self._point(trial.params)

    def _point(self, params: Mapping[str, Any]) -> dict[str, ParamValue]:
        space = self.rule.space
        return {name: value_of(space[name], params[name]) for name in space if name in params}

    def _variant(self, point: Mapping[str, ParamValue]) -> Variant:
        template = self._template
        found = variant_of(template.stage, self._datasets, template.inputs, template.upstream, point)
        self.points[found.key] = point
        return found

    # Events

    def __call__(self, event: Event) -> None:
        """Learn what became of a variant."""
        with self._lock:
            drawn = self._drawn.get(getattr(event, "stage", ""))
            if drawn is None:
                return
            match event:
                case StageStarted():
                    drawn.runs = True
                    self._watch()
                case StageFinished() | StageReused():
                    self._ended(event.stage, self._value(event.stage, event.metrics))
                case StageFailed():
                    self._ended(event.stage, None)
                case StagePruned():
                    del self._drawn[event.stage]
                    self._end(drawn.trial, "PRUNED")

    def _ended(self, key: str, value: float | None) -> None:
        drawn = self._drawn.pop(key)
        self._values[key] = value
        self._tell(drawn.trial, value)

    def _value(self, key: str, metrics: Mapping[str, float]) -> float | None:
        """Return what the sampler learns from a variant; None if there is nothing to learn."""
        name = self.rule.metric
        if not name:
            return 0.0
        value = metrics.get(name)
        if value is not None and not math.isnan(value):
            return value
        if value is not None:
            self._note(f"{key}: its {name} is not a number")
        else:
            logged = suggest(name, metrics, "metric") if metrics else "it logged none"
            self._note(f"{key} did not log the metric {name!r}: {logged}")
            if not any(found is not None for found in self._values.values()):
                self._over = True  # most likely a slip: whatever came after it would be in vain
        return None

    def _tell(self, trial: Trial, value: float | None) -> None:
        assert self._study is not None
        if value is None:
            self._end(trial, "FAIL")
        else:
            self._study.tell(trial, value)

    def _end(self, trial: Trial | int, how: str) -> None:
        from optuna.trial import TrialState

        assert self._study is not None
        self._study.tell(trial, state=TrialState[how])

    # Pruning

    def _watch(self) -> None:
        if self.rule.prune and self._watcher is None:
            self._watcher = threading.Thread(target=self._look_on, name="pruner", daemon=True)
            self._watcher.start()

    def _look_on(self) -> None:
        while not self._closed.wait(_LOOK_S):
            for key in [key for key, drawn in tuple(self._drawn.items()) if drawn.runs]:
                try:
                    found = self._history(key, self.rule.metric)
                    with self._lock, explained("the study of the sweep cannot be written"):
                        self._look(key, found or ())
                except Exception:  # the variant goes on: it only takes longer
                    log.warning("the metrics of %s cannot be looked at", key, exc_info=True)

    def _look(self, key: str, found: Sequence[tuple[int, float]]) -> None:
        """Tell Optuna what a variant has logged, and stop it if that is not worth going on with."""
        drawn = self._drawn.get(key)
        if drawn is None:
            return
        latest = {step: value for step, value in found if not math.isnan(value)}
        for step in sorted(step for step in latest if step >= 0 and step not in drawn.steps):
            drawn.steps.add(step)
            drawn.trial.report(latest[step], step)
            # What is logged once is a result, not a curve: its stage is as good as done.
            if len(latest) > 1 and drawn.trial.should_prune():
                why = (
                    f"{self.rule.metric} = {latest[step]:.4g} at step {step} is worse than the others' median"
                )
                self._cancellation.stop(key, why)
                return

    # The study

    def _begin(self, done: Mapping[str, Step]) -> Study:
        """Return the study of this search, new or gone on with."""
        import optuna
        from optuna.pruners import MedianPruner, NopPruner

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        name = self._name(done)
        return optuna.create_study(
            storage=storage_at(self._folder / f"{file_name(name)}.log", self._note),
            study_name=name,
            direction=self.rule.direction,
            pruner=MedianPruner() if self.rule.prune else NopPruner(),
            load_if_exists=True,
        )

    def _name(self, done: Mapping[str, Step]) -> str:
        """Return the study's name: the same for the same question about the same code and data."""
        rule, template = self.rule, self._template
        local = self._world.ingredients(template)
        asked = replace(
            local,
            params={name: value for name, value in local.params.items() if name not in rule.space},
            inputs=input_digests(template, done, self._world) or {},
        )
        parts = [digest(asked), rule.sampler, repr(dict(rule.space)), rule.metric, rule.direction, rule.seed]
        if rule.sampler == "grid":
            parts.append(repr(rule.points))
        return f"{template.stage.key}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]}"

    def _recall(self, study: Study) -> None:
        """Take up what an earlier run of the same search has found."""
        unfinished: dict[str, dict[str, Any]] = {}
        for trial in study.get_trials(deepcopy=False):
            if not trial.params:
                continue
            point = self._point(trial.params)
            key = self._variant(point).key
            if not self._take_up(trial, key, point):
                unfinished[key] = dict(trial.params)
        self._again = [params for key, params in unfinished.items() if key not in self._values]
        self._left = self.rule.trials - len(self._values)
        if self._values:
            self._note(f"{self._template.stage.key}: {len(self._values)} variants are known from before")

    def _take_up(self, trial: FrozenTrial, key: str, point: dict[str, ParamValue]) -> bool:
        """Take up a trial that has ended with something to learn from; tell whether it has."""
        how = trial.state.name
        if how == "RUNNING":
            self._end(trial.number, "FAIL")
        if how == "COMPLETE" and key not in self._values:
            self._earlier.append(point)
            self._values[key] = trial.value
        if how == "PRUNED" and key not in self._values:
            self.pruned_before.add(key)
            self._values[key] = None
        return how in ("COMPLETE", "PRUNED")


def _sampler(rule: Rule, turn: str) -> Any:
    from optuna.samplers import RandomSampler, TPESampler

    text = f"{rule.seed} {turn}"
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    return TPESampler(seed=seed) if rule.sampler == "tpe" else RandomSampler(seed=seed)
