from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nbtools.pipeline.dag import Dag, build
from nbtools.pipeline.plan import Action, Step
from nbtools.pipeline.priority import by_longest_chain
from nbtools.pipeline.spec import Binding, Dataset, Location, Pipeline, Spec, Stage

HERE = Location("pipelines.yaml", 1, 1)


def _dag(edges: dict[str, list[str]]) -> Dag:
    """Return the DAG in which each stage reads what the stages in its list write."""
    stages = tuple(
        Stage(
            "p",
            name,
            f"{name}.ipynb",
            HERE,
            tuple(Binding(f"of_{other}", f"of_{other}", HERE) for other in needed),
            (Binding(f"of_{name}", f"of_{name}", HERE),),
        )
        for name, needed in edges.items()
    )
    datasets = {f"of_{name}": Dataset(f"of_{name}", name, HERE) for name in edges}
    return build(Spec("x", (Pipeline("p", stages),), datasets))


def _steps(dag: Dag, *, idle: frozenset[str] = frozenset()) -> list[Step]:
    return [
        Step(variant, Action.NOTHING if key in idle else Action.RUN, ())
        for key, variant in dag.variants.items()
    ]


def _order(steps: list[Step], durations: dict[str, float]) -> list[str]:
    named = {f"p.{name}": seconds for name, seconds in durations.items()}
    return [step.key.removeprefix("p.") for step in by_longest_chain(steps, named)]


def test_the_longest_remaining_chain_goes_first() -> None:
    steps = _steps(_dag({"short": [], "long": [], "middle": ["long"], "end": ["middle", "short"]}))
    assert _order(steps, dict.fromkeys(("short", "long", "middle", "end"), 1.0)) == [
        "long",
        "short",
        "middle",
        "end",
    ]


def test_a_slow_stage_goes_before_a_chain_of_quick_ones() -> None:
    steps = _steps(_dag({"a": [], "b": ["a"], "slow": []}))
    assert _order(steps, {"a": 1.0, "b": 1.0, "slow": 60.0})[0] == "slow"


def test_a_stage_that_has_never_run_is_taken_for_an_average_one() -> None:
    steps = _steps(_dag({"quick": [], "new": [], "slow": []}))
    assert _order(steps, {"quick": 1.0, "slow": 9.0}) == ["slow", "new", "quick"]


def test_what_does_not_run_takes_no_time() -> None:
    steps = _steps(_dag({"idle": [], "after": ["idle"], "other": []}), idle=frozenset({"p.idle"}))
    assert _order(steps, {"idle": 100.0, "after": 1.0, "other": 2.0}) == ["other", "idle", "after"]


@given(
    st.lists(st.lists(st.integers(0, 7), max_size=3), min_size=1, max_size=8),
    st.lists(st.floats(0, 100), min_size=8, max_size=8),
)
def test_nothing_stands_before_what_it_needs(needs: list[list[int]], seconds: list[float]) -> None:
    edges = {
        f"s{number}": [f"s{other}" for other in sorted(set(needed)) if other < number]
        for number, needed in enumerate(needs)
    }
    steps = _steps(_dag(edges))
    order = _order(steps, {name: seconds[number] for number, name in enumerate(edges)})
    assert sorted(order) == sorted(edges)
    assert all(order.index(other) < order.index(name) for name, needed in edges.items() for other in needed)
