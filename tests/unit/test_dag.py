from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbtools.errors import UsageError
from nbtools.pipeline.dag import Dag, build, cycle, path_part, select
from nbtools.pipeline.spec import Binding, Dataset, Location, Pipeline, Spec, Stage

HERE = Location("pipelines.yaml", 1, 1)


def _stage(
    name: str, inputs: Sequence[str] = (), outputs: Sequence[str] = (), pipeline: str = "p", **more: Any
) -> Stage:
    return Stage(
        pipeline,
        name,
        f"{name}.ipynb",
        HERE,
        tuple(Binding(item, item, HERE) for item in inputs),
        tuple(Binding(item, item, HERE) for item in outputs),
        **more,
    )


def _spec(*stages: Stage, **patterns: str) -> Spec:
    names = {item.dataset for stage in stages for item in (*stage.inputs, *stage.outputs)}
    datasets = {name: Dataset(name, f"{name}.csv", HERE) for name in names}
    for name, path in patterns.items():
        datasets[name] = Dataset(name, path, HERE, placeholders=("k",))
    pipelines = tuple(
        Pipeline(name, tuple(stage for stage in stages if stage.pipeline == name))
        for name in dict.fromkeys(stage.pipeline for stage in stages)
    )
    return Spec("x", pipelines, datasets)


def _dag(*stages: Stage, **patterns: str) -> Dag:
    return build(_spec(*stages, **patterns))


DATA_AND_TRAIN = (
    _stage("evaluate", ["model"], ["report"], "train"),
    _stage("fit", ["table"], ["model"], "train"),
    _stage("ingest", ["raw"], ["table"], "data"),
    _stage("check", ["table"], [], "data"),
)


# Order


def test_a_reader_comes_after_its_writer_across_pipelines_and_whatever_the_order_of_writing() -> None:
    order = list(_dag(*DATA_AND_TRAIN).variants)
    assert order == ["data.ingest", "train.fit", "data.check", "train.evaluate"]


def test_independent_stages_stay_as_they_are_written() -> None:
    assert list(_dag(_stage("c"), _stage("a"), _stage("b")).variants) == ["p.c", "p.a", "p.b"]


def test_after_orders_stages_that_share_no_data() -> None:
    dag = _dag(_stage("a", after=("b", "q.c")), _stage("b"), _stage("c", pipeline="q"))
    assert list(dag.variants) == ["p.b", "q.c", "p.a"]
    assert dag.variants["p.a"].upstream == ("p.b", "q.c")


def test_external_data_have_no_producer() -> None:
    (item,) = _dag(*DATA_AND_TRAIN).variants["data.ingest"].inputs
    assert (item.paths, item.producers, item.many) == (("raw.csv",), (), False)


def test_a_cycle_is_found_and_its_absence_too() -> None:
    ring = (_stage("a", ["y"], ["x"]), _stage("b", ["x"], ["y"]), _stage("c", ["x"]))
    assert {stage.name for stage in cycle(ring)} == {"a", "b"}
    assert cycle(DATA_AND_TRAIN) == ()


@st.composite
def _random_stages(draw: st.DrawFn) -> tuple[Stage, ...]:
    """Stages that read what earlier ones write or wait for them, in any order of writing."""
    count = draw(st.integers(1, 8))
    stages: list[Stage] = []
    for number in range(count):
        earlier = st.sets(st.integers(0, number - 1), max_size=3) if number else st.just(set())
        reads, waits = draw(earlier), draw(earlier)
        stages.append(
            _stage(
                f"s{number}",
                [f"d{other}" for other in sorted(reads)],
                [f"d{number}"],
                draw(st.sampled_from(["p", "q"])),
                after=tuple(stages[other].key for other in sorted(waits)),
                matrix={"k": (1, 2)} if draw(st.booleans()) else {},
            )
        )
    return tuple(draw(st.permutations(stages)))


def _random_dag(stages: tuple[Stage, ...]) -> Dag:
    patterned = {
        item.dataset: f"{item.dataset}/{{k}}" for stage in stages if stage.matrix for item in stage.outputs
    }
    return _dag(*stages, **patterned)


@given(_random_stages())
def test_every_stage_comes_after_what_it_needs(stages: tuple[Stage, ...]) -> None:
    dag = _random_dag(stages)
    order = list(dag.variants)
    writers = {item.dataset: stage.key for stage in stages for item in stage.outputs}
    for key, variant in dag.variants.items():
        needed = {writers[item.dataset] for item in variant.stage.inputs} | set(variant.stage.after)
        assert {dag.variants[other].stage.key for other in variant.upstream} == needed
        assert all(order.index(other) < order.index(key) for other in variant.upstream)
    assert len(order) == sum(2 if stage.matrix else 1 for stage in stages)


@given(_random_stages(), st.data())
def test_ancestors_are_closed_and_ordered_and_mirror_descendants(
    stages: tuple[Stage, ...], data: st.DataObject
) -> None:
    dag = _random_dag(stages)
    order = list(dag.variants)
    key = data.draw(st.sampled_from(order))
    found = dag.ancestors([key])
    assert key in found
    assert list(found) == sorted(found, key=order.index)
    assert all(set(dag.variants[other].upstream) <= set(found) for other in found)
    assert dag.ancestors(found) == found
    assert set(found) == {other for other in order if key in dag.descendants([other])}


# Variants


def _fits() -> Dag:
    return _dag(
        _stage("fit", ["table"], ["model"], matrix={"k": (0, 0.5, "a b")}),
        _stage("best", ["model"]),
        model="models/{k}",
    )


def test_a_matrix_makes_a_variant_of_each_point_with_its_own_path() -> None:
    dag = _fits()
    assert list(dag.variants)[:3] == ["p.fit[k=0]", "p.fit[k=0.5]", "p.fit[k=a b]"]
    assert [variant.outputs[0].path for variant in list(dag.variants.values())[:3]] == [
        "models/0", "models/0.5", "models/a_b",
    ]  # fmt: skip
    assert dag.variants["p.fit[k=0.5]"].point == {"k": 0.5}


def test_a_reader_of_a_pattern_receives_all_variants() -> None:
    (item,) = _fits().variants["p.best"].inputs
    assert item.many
    assert item.paths == ("models/0", "models/0.5", "models/a_b")
    assert item.producers == ("p.fit[k=0]", "p.fit[k=0.5]", "p.fit[k=a b]")


def test_a_reader_of_a_pattern_with_one_variant_receives_a_list_too() -> None:
    dag = _dag(_stage("fit", [], ["m"], matrix={"k": (1,)}), _stage("best", ["m"]), m="m/{k}")
    assert dag.variants["p.best"].inputs[0].many


def test_several_matrix_params_make_their_product() -> None:
    dag = _dag(_stage("fit", matrix={"a": (1, 2), "b": (True, None)}))
    assert list(dag.variants) == [
        "p.fit[a=1,b=True]", "p.fit[a=1,b=None]", "p.fit[a=2,b=True]", "p.fit[a=2,b=None]",
    ]  # fmt: skip


@given(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()))
def test_a_part_of_a_path_never_leads_elsewhere(value: Any) -> None:
    part = path_part(value)
    assert "/" not in part
    assert "\\" not in part
    assert part not in ("", ".", "..")


# Selection


@pytest.mark.parametrize(
    ("targets", "keys"),
    [
        ([], ["data.ingest", "train.fit", "data.check", "train.evaluate"]),
        (["train"], ["train.fit", "train.evaluate"]),
        (["fit"], ["train.fit"]),
        (["train.fit"], ["train.fit"]),
        (["model"], ["train.fit"]),
        (["report", "table"], ["data.ingest", "train.evaluate"]),
        (["fit", "model", "train.fit"], ["train.fit"]),
    ],
)
def test_targets_are_pipelines_stages_and_datasets(targets: list[str], keys: list[str]) -> None:
    assert list(select(_dag(*DATA_AND_TRAIN), targets)) == keys


def test_a_stage_with_a_matrix_means_all_its_variants_and_a_variant_itself() -> None:
    assert len(select(_fits(), ["fit"])) == 3
    assert select(_fits(), ["p.fit[k=0]"]) == ("p.fit[k=0]",)
    assert len(select(_fits(), ["model"])) == 3


@pytest.mark.parametrize(
    ("target", "message", "fix"),
    [
        ("fitt", "nothing is called 'fitt'", "did you mean 'fit'?"),
        ("tabel", "nothing is called 'tabel'", "did you mean 'table'?"),
        ("raw", "nothing is called 'raw'", "external data"),
        ("", "nothing is called ''", "valid targets"),
    ],
)
def test_an_unknown_target_is_refused_with_the_nearest(target: str, message: str, fix: str) -> None:
    with pytest.raises(UsageError) as caught:
        select(_dag(*DATA_AND_TRAIN), ["fit", target])
    (problem,) = caught.value.problems
    assert message in problem.message
    assert fix in problem.fix


def test_a_variant_may_be_written_without_its_pipeline() -> None:
    assert select(_fits(), ["fit[k=0.5]"]) == ("p.fit[k=0.5]",)


def test_a_name_with_several_meanings_is_refused_with_all_of_them() -> None:
    dag = _dag(_stage("fit", pipeline="a"), _stage("fit", pipeline="b"), _stage("x", [], ["a"], pipeline="c"))
    with pytest.raises(UsageError, match=r"'fit' could mean the stage a.fit, the stage b.fit"):
        select(dag, ["fit"])
    with pytest.raises(UsageError, match=r"'a' could mean the pipeline a, the dataset a"):
        select(dag, ["a"])
    assert select(dag, ["b.fit"]) == ("b.fit",)


def test_a_name_whose_meanings_are_the_same_stages_is_clear() -> None:
    dag = _dag(_stage("table", [], ["table"], pipeline="table"))
    assert select(dag, ["table"]) == ("table.table",)
