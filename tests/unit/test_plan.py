from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbtools.pipeline.dag import Dag, Variant, build
from nbtools.pipeline.fingerprint import Ingredients
from nbtools.pipeline.plan import Action, Completion, Plan, Step, Surroundings, decide, plan
from nbtools.pipeline.spec import Binding, Dataset, Location, Pipeline, Spec, Stage

HERE = Location("pipelines.yaml", 1, 1)


def _dag(stages: Mapping[str, tuple[Sequence[str], Sequence[str]]]) -> Dag:
    """Return the DAG of stages with their inputs and outputs."""
    names = {name for reads, writes in stages.values() for name in (*reads, *writes)}
    found = tuple(
        Stage(
            "p",
            key,
            f"{key}.ipynb",
            HERE,
            tuple(Binding(name, name, HERE) for name in reads),
            tuple(Binding(name, name, HERE) for name in writes),
        )
        for key, (reads, writes) in stages.items()
    )
    return build(Spec("x", (Pipeline("p", found),), {name: Dataset(name, name, HERE) for name in names}))


CHAIN = {"first": (["raw"], ["table"]), "second": (["table"], ["model"]), "third": (["model"], [])}


@dataclass
class World:
    """A workspace in memory. ``results`` says what a stage writes, given what it is made of."""

    dag: Dag
    files: dict[str, str] = field(default_factory=lambda: {"raw": "raw 1"})
    local: dict[str, Ingredients] = field(default_factory=dict)
    store: set[str] = field(default_factory=set)
    completions: dict[str, Completion] = field(default_factory=dict)
    latest: dict[str, Completion] = field(default_factory=dict)
    constant: set[str] = field(default_factory=set)

    def surroundings(self) -> Surroundings:
        return Surroundings(
            ingredients=lambda variant: self.local.get(variant.key, Ingredients((f"code of {variant.key}",))),
            digest_of=self.files.get,
            completion_of=self.completions.get,
            latest_of=self.latest.get,
            is_stored=self.store.__contains__,
        )

    def plan(self, keys: Sequence[str] = (), forced: Sequence[str] = ()) -> Plan:
        wanted = self.dag.ancestors(keys or self.dag.variants)
        return plan(self.dag, wanted, self.surroundings(), forced=forced)

    def change(self, key: str, **changes: Any) -> None:
        before = self.local.get(key, Ingredients((f"code of {key}",)))
        self.local[key] = replace(before, **changes)

    def run(self) -> list[str]:
        """Do as a run does: decide again at each stage's turn; return what ran."""
        done: dict[str, Step] = {}
        ran = []
        for key, variant in self.dag.variants.items():
            step = decide(variant, done, self.surroundings())
            if step.action is Action.RUN:
                ran.append(key)
                step = self._complete(variant, step)
            elif step.completion:
                self.files.update(
                    {item.path: step.completion.outputs[item.variable] for item in variant.outputs}
                )
                self.latest[key] = step.completion
            done[key] = replace(step, action=Action.NOTHING)
        return ran

    def _complete(self, variant: Variant, step: Step) -> Step:
        assert step.ingredients is not None
        said = "always the same" if variant.key in self.constant else step.fingerprint
        outputs = {item.variable: f"{item.variable} from {said}" for item in variant.outputs}
        completion = Completion(variant.key, step.fingerprint, step.ingredients, outputs)
        self.completions[step.fingerprint] = self.latest[variant.key] = completion
        self.store.update(outputs.values())
        self.files.update({item.path: outputs[item.variable] for item in variant.outputs})
        return replace(step, completion=completion)


def _done() -> World:
    world = World(_dag(CHAIN))
    world.run()
    return world


def _actions(found: Plan) -> dict[str, str]:
    return {step.key.removeprefix("p."): step.action.value for step in found.steps}


def _reasons(found: Plan) -> dict[str, str]:
    return {step.key.removeprefix("p."): step.reason for step in found.steps}


def test_plan_runs_what_has_never_run() -> None:
    found = World(_dag(CHAIN)).plan()
    assert set(_reasons(found).values()) == {"it has not run yet"}
    assert found.to_run() == found.steps


def test_plan_has_nothing_to_do_after_a_run() -> None:
    found = _done().plan()
    assert set(_actions(found).values()) == {"up to date"}
    assert set(_reasons(found).values()) == {"nothing changed"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"code": ("other",)}, "1 cell changed"),
        ({"params": {"seed": 2}}, "param seed = 2 is new"),
        ({"modules": {"helpers.py": "1"}}, "module helpers.py is new"),
        ({"packages": {"numpy": "2"}}, "package numpy is new"),
        ({"python": "CPython 3.12"}, "Python:  → CPython 3.12"),
        ({"outputs": {"table": ".csv"}}, "output table is declared otherwise"),
        ({"version": 99}, "this version of nbtools counts other things"),
        ({"code": ("other",), "params": {"seed": 2}}, "1 cell changed; param seed = 2 is new"),
    ],
)
def test_plan_gives_the_reason_for_each_kind_of_change(changes: dict[str, Any], reason: str) -> None:
    world = _done()
    world.change("p.first", **changes)
    assert _reasons(world.plan())["first"] == reason


def test_plan_reruns_the_reader_of_changed_external_data() -> None:
    world = _done()
    world.files["raw"] = "raw 2"
    assert _reasons(world.plan())["first"] == "input raw changed"


def test_plan_leaves_open_what_stands_after_a_stage_that_runs() -> None:
    world = _done()
    world.change("p.first", code=("other",))
    found = world.plan()
    assert _actions(found) == {"first": "run", "second": "run", "third": "run"}
    assert _reasons(found)["second"] == "if p.first makes another result"
    assert _reasons(found)["third"] == "if p.second makes another result"
    assert found.step("p.second").fingerprint == ""


def test_plan_tells_a_stages_own_change_even_if_its_inputs_are_open() -> None:
    world = _done()
    world.change("p.first", code=("other",))
    world.change("p.second", params={"k": 1})
    assert _reasons(world.plan())["second"] == "param k = 1 is new"


def test_plan_leaves_stages_before_the_changed_one_alone() -> None:
    world = _done()
    world.change("p.third", code=("other",))
    assert _actions(world.plan()) == {"first": "up to date", "second": "up to date", "third": "run"}


def test_deciding_again_stops_early_when_a_changed_stage_makes_the_same_result() -> None:
    world = World(_dag(CHAIN), constant={"p.first"})
    world.run()
    world.change("p.first", code=("a faster way",))
    assert world.run() == ["p.first"]


def test_plan_restores_an_earlier_result_without_running() -> None:
    world = _done()
    before = dict(world.files)
    world.change("p.first", params={"seed": 2})
    assert world.run() == ["p.first", "p.second", "p.third"]
    world.change("p.first", params={})
    found = world.plan()
    assert _actions(found) == {"first": "restore", "second": "restore", "third": "up to date"}
    assert _reasons(found)["first"] == "an earlier result fits; table was changed"
    assert world.run() == []
    assert world.files == before


@pytest.mark.parametrize(
    ("present", "reason"), [(None, "table is missing"), ("by hand", "table was changed")]
)
def test_plan_restores_outputs_that_are_gone_or_changed(present: str | None, reason: str) -> None:
    world = _done()
    world.files.pop("table")
    if present:
        world.files["table"] = present
    found = world.plan()
    assert _actions(found) == {"first": "restore", "second": "up to date", "third": "up to date"}
    assert _reasons(found)["first"] == reason


def test_plan_runs_again_when_the_stored_copy_is_gone_too() -> None:
    world = _done()
    world.store.discard(world.files.pop("table"))
    found = world.plan()
    assert _actions(found)["first"] == "run"
    assert _reasons(found)["first"] == "table is missing and its stored copy is gone"
    assert found.step("p.first").completion is None


def test_plan_needs_no_stored_copy_of_what_is_there() -> None:
    world = _done()
    world.store.clear()
    assert set(_actions(world.plan()).values()) == {"up to date"}


def test_plan_runs_what_is_forced() -> None:
    found = _done().plan(forced=["p.first"])
    assert _actions(found)["first"] == "run"
    assert _reasons(found)["first"] == "forced"


def test_plan_runs_when_the_record_is_gone() -> None:
    world = _done()
    world.completions.clear()
    assert _reasons(world.plan())["first"] == "its record is gone"


def test_plan_names_all_missing_external_data_of_what_it_plans_for() -> None:
    dag = _dag({"a": (["x", "y"], ["t"]), "b": (["t", "z"], []), "c": (["other"], [])})
    world = World(dag, files={"y": "1"})
    assert [item.message for item in world.plan(["p.b"]).missing] == [
        "the dataset 'x' is missing: there is nothing at x",
        "the dataset 'z' is missing: there is nothing at z",
    ]
    assert _done().plan().missing == ()


@st.composite
def _worlds(draw: st.DrawFn) -> World:
    stages = {}
    for number in range(draw(st.integers(1, 7))):
        reads = draw(st.sets(st.integers(0, number - 1), max_size=3)) if number else set()
        stages[f"s{number}"] = ([f"d{other}" for other in sorted(reads)] or ["raw"], [f"d{number}"])
    dag = _dag(stages)
    return World(dag, constant=draw(st.sets(st.sampled_from(list(dag.variants)))))


@given(_worlds())
def test_a_plan_right_after_a_run_has_nothing_to_run(world: World) -> None:
    assert world.run() == list(world.dag.variants)
    assert {step.action for step in world.plan().steps} == {Action.NOTHING}


@given(_worlds(), st.data())
def test_a_run_after_a_change_runs_only_what_was_planned(world: World, data: st.DataObject) -> None:
    world.run()
    changed = data.draw(st.sampled_from(list(world.dag.variants)))
    world.change(changed, code=("changed",))
    planned = [step.key for step in world.plan().to_run()]
    assert planned == list(world.dag.descendants([changed]))
    ran = world.run()
    assert set(ran) <= set(planned)
    assert changed in ran
    assert {step.action for step in world.plan().steps} == {Action.NOTHING}


@given(_worlds(), st.data())
def test_switching_back_never_runs_anything(world: World, data: st.DataObject) -> None:
    world.run()
    files = dict(world.files)
    changed = data.draw(st.sampled_from(list(world.dag.variants)))
    world.change(changed, params={"seed": 2})
    world.run()
    world.change(changed, params={})
    assert world.run() == []
    assert world.files == files
