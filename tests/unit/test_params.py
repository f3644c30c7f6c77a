from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from nbtools.errors import NotebookError, UsageError
from nbtools.pipeline.load import parse_spec
from nbtools.pipeline.notebook import NotebookFacts
from nbtools.pipeline.params import Overrides, check_notebooks, check_overrides, resolve, why_wrong_kind
from nbtools.pipeline.spec import Secret, Spec, Stage

TEXT = """\
version: 1
project: x
params: {seed: 1, alpha: 0.1, token: {secret: API_TOKEN}}
data: {table: t.csv}
pipelines:
  train:
    params: {seed: 2}
    stages:
      fit: {notebook: fit.ipynb, inputs: [table], params: {alpha: 0.2}}
      sweep: {notebook: sweep.ipynb, matrix: {alpha: [1, 2]}}
  deploy:
    stages:
      ship: {notebook: ship.ipynb}
"""


def _facts(**parameters: str) -> NotebookFacts:
    return NotebookFacts(("x",), 1, parameters)


FACTS = {
    "train.fit": _facts(seed="int", alpha="float", table="str", own="int"),
    "train.sweep": _facts(alpha="int", seed="int"),
    "deploy.ship": _facts(seed="int", token="str"),
}


def _stage(spec: Spec, key: str) -> Stage:
    return next(stage for stage in spec.stages() if stage.key == key)


def _resolved(key: str, *overrides: Overrides) -> dict[str, Any]:
    spec = parse_spec(TEXT)
    return resolve(_stage(spec, key), FACTS[key], spec, overrides)


def _check(text: str, facts: Mapping[str, NotebookFacts]) -> list[tuple[str, str, str]]:
    """Return what is wrong with the notebooks: message, place and advice."""
    try:
        check_notebooks(parse_spec(text), facts)
    except NotebookError as error:
        return [(item.message, item.where, item.fix) for item in error.problems]
    return []


def _refused(values: Mapping[str, Any], *keys: str) -> list[tuple[str, str, str]]:
    """Return what is wrong with the overrides, for a run of the stages ``keys`` (all if none)."""
    spec = parse_spec(TEXT)
    stages = [stage for stage in spec.stages() if not keys or stage.key in keys]
    try:
        check_overrides([Overrides(values)], stages, FACTS, spec)
    except UsageError as error:
        return [(item.message, item.where, item.fix) for item in error.problems]
    return []


# Layers


def test_a_later_layer_wins_over_an_earlier_one() -> None:
    file, typed = Overrides({"seed": 3, "alpha": 0.3}, "params.yaml"), Overrides({"alpha": 0.4})
    assert _resolved("train.fit") == {"seed": 2, "alpha": 0.2}
    assert _resolved("train.fit", file) == {"seed": 3, "alpha": 0.3}
    assert _resolved("train.fit", file, typed) == {"seed": 3, "alpha": 0.4}
    assert _resolved("deploy.ship")["seed"] == 1


def test_a_stage_receives_only_what_its_notebook_declares() -> None:
    assert set(_resolved("deploy.ship")) == {"seed", "token"}
    assert "own" not in _resolved("train.fit")


def test_a_dataset_variable_is_no_param() -> None:
    assert "table" not in _resolved("train.fit", Overrides({"table": "elsewhere.csv"}))


def test_a_param_of_the_matrix_is_left_to_the_variants() -> None:
    assert _resolved("train.sweep", Overrides({"alpha": 3})) == {"seed": 2}


def test_a_secret_stays_a_name() -> None:
    assert _resolved("deploy.ship")["token"] == Secret("API_TOKEN")


@pytest.mark.parametrize(
    ("key", "reached"),
    [
        ("seed", {"train.fit", "train.sweep", "deploy.ship"}),
        ("train.seed", {"train.fit", "train.sweep"}),
        ("fit.seed", {"train.fit"}),
        ("train.fit.seed", {"train.fit"}),
        ("ship.seed", {"deploy.ship"}),
    ],
)
def test_a_scope_limits_an_override(key: str, reached: set[str]) -> None:
    given = Overrides({key: 99})
    assert {stage for stage in FACTS if _resolved(stage, given)["seed"] == 99} == reached
    assert _refused({key: 99}) == []


# Overrides


@pytest.mark.parametrize(
    ("values", "message", "fix"),
    [
        ({"sed": 1}, "unknown param 'sed'", "did you mean 'seed'?"),
        ({"fit.alpa": 1}, "unknown param 'alpa'", "did you mean 'alpha'?"),
        ({"fitt.alpha": 1}, "no stage or pipeline of this run is called 'fitt'", "did you mean 'fit'?"),
        ({"table": "x"}, "unknown param 'table'", "valid params"),
        ({"seed": "ten"}, "train.fit: a whole number is expected, not 'ten'", ""),
        ({"fit.seed": True}, "train.fit: a whole number is expected, not True", ""),
        ({"fit.seed": 1.0}, "train.fit: a whole number is expected, not 1.0", ""),
        ({"fit.alpha": [1]}, "train.fit: a number is expected, not [1]", ""),
        ({"seed": (1,)}, "a tuple would arrive as a string", ""),
        ({"learning-rate": 1}, "'learning-rate' is not a Python identifier", ""),
        ({"fit.": 1}, "'' is not a Python identifier", ""),
        ({"sweep.alpha": 3}, "'alpha' is spread by the matrix of train.sweep", "change the matrix"),
        (
            {"token": "s3cret"},
            "'token' is a secret and must not be written down",
            "set the environment variable API_TOKEN",
        ),
    ],
)
def test_an_override_that_does_not_fit_is_refused(values: dict[str, Any], message: str, fix: str) -> None:
    problem, *_ = _refused(values)
    assert problem[0] == message
    assert problem[1] == f"-p {next(iter(values))}"
    assert fix in problem[2]
    assert "s3cret" not in str(problem)


def test_all_overrides_that_do_not_fit_are_named() -> None:
    assert len(_refused({"sed": 1, "fit.alpha": "x", "token": "s"})) == 3


def test_a_param_of_a_stage_that_does_not_run_is_told_apart_from_an_unknown_one() -> None:
    (problem,) = _refused({"token": "x"}, "train.fit")
    assert problem[0] == "no stage of this run has a param 'token'"
    assert problem[2] == "deploy.ship declares it, but is not part of this run"


def test_overrides_that_fit_pass() -> None:
    assert _refused({"seed": 5, "fit.alpha": 1, "fit.own": None}) == []


# Notebooks


def test_notebooks_that_declare_everything_pass() -> None:
    assert _check(TEXT, FACTS) == []


def test_what_a_notebook_does_not_declare_is_told_with_the_cell() -> None:
    facts = {**FACTS, "train.fit": NotebookFacts(("x", "y"), 2, {"alpa": "float", "seed": "int"})}
    (alpha, where, fix), (table, _, _) = _check(TEXT, facts)
    assert alpha == "the parameters cell of fit.ipynb does not set 'alpha'"
    assert where == "pipelines.yaml:9:7"
    assert fix == "add alpha = … to code cell 2 (tagged parameters) of fit.ipynb; did you mean 'alpa'?"
    assert table == "the parameters cell of fit.ipynb does not set 'table'"


def test_a_notebook_without_a_parameters_cell_is_told_how_to_get_one() -> None:
    found = _check(TEXT, {**FACTS, "train.sweep": NotebookFacts(("x",))})
    assert "sweep.ipynb has no such cell: tag the one" in found[0][2]


def test_a_param_that_no_notebook_declares_is_told_with_its_place_and_the_nearest() -> None:
    ((message, where, fix),) = _check(TEXT.replace("seed: 1,", "seed: 1, sead: 1,"), FACTS)
    assert message == "no notebook declares the param 'sead' in its parameters cell"
    assert where == "pipelines.yaml:3:19"
    assert fix == "did you mean 'seed'?"


@pytest.mark.parametrize(
    ("old", "new", "message", "where"),
    [
        ("seed: 2", "seed: two", "param 'seed' of train.fit: a whole number is expected, not 'two'", "7:14"),
        ("alpha: 0.2", "alpha: [1]", "param 'alpha' of train.fit: a number is expected, not [1]", "9:60"),
        ("[1, 2]", "[1, x]", "param 'alpha' of train.sweep: a whole number is expected, not 'x'", "10:47"),
        ("alpha: 0.2", "alpha: {secret: A}", "param 'alpha' of train.fit: a secret needs a text", "9:60"),
    ],
)
def test_a_param_of_the_wrong_kind_is_told_with_its_place(
    old: str, new: str, message: str, where: str
) -> None:
    found = _check(TEXT.replace(old, new), FACTS)
    assert any(item[0].startswith(message) and item[1] == f"pipelines.yaml:{where}" for item in found), found


@pytest.mark.parametrize(
    ("value", "kind", "fits"),
    [
        (1, "int", True), (1, "float", True), (1.0, "int", False), (True, "int", False), (1, "bool", False),
        (None, "int", True), ("x", "", True), ([1], "list", True), ({}, "list", False), ("1", "int", False),
        (Secret("A"), "str", True),
    ],
)  # fmt: skip
def test_kinds_fit_as_a_notebook_would_see_them(value: Any, kind: str, fits: bool) -> None:
    assert (why_wrong_kind(value, kind) == "") == fits
