"""What concerns several parts of pipelines.yaml together: paths, patterns, writers, cycles; and its JSON Schema."""

from __future__ import annotations

import textwrap
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nbtools.errors import Problem, SpecError
from nbtools.pipeline.document import json_schema
from nbtools.pipeline.load import parse_spec
from nbtools.pipeline.spec import Resources

SCHEMA = jsonschema.Draft202012Validator(json_schema())


def _text(stages: str, data: str = "") -> str:
    """Return a document with its data in line 3 and its first stage in line 7."""
    body = textwrap.indent(textwrap.dedent(stages).strip("\n"), "      ")
    return f"version: 1\nproject: x\ndata: {{{data}}}\npipelines:\n  p:\n    stages:\n{body}\n"


def _problems(text: str) -> list[Problem]:
    try:
        parse_spec(text)
    except SpecError as error:
        return list(error.problems)
    return []


def _one(text: str) -> Problem:
    (problem,) = _problems(text)
    return problem


# Paths


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../x.csv", "leads out of the project"),
        ("a/../../x.csv", "leads out of the project"),
        ("..", "leads out of the project"),
        ("/etc/passwd", "no path relative to the project"),
        ("~/x.csv", "no path relative to the project"),
        ("C:/x.csv", "no path relative to the project"),
        ("C:\\x.csv", "no path relative to the project"),
        ("a\\b.csv", "backslash"),
        ("a/\x01", "control character"),
        (".", "is the project itself"),
        ("a/..", "is the project itself"),
        (".nbtools/x.csv", "not for data"),
        ("./.git/config", "not for data"),
    ],
)
def test_paths_outside_the_project_are_refused_wherever_one_may_stand(path: str, reason: str) -> None:
    quoted = '"' + path.replace("\\", "\\\\").replace("\x01", "\\x01") + '"'
    stage = "a: {notebook: a.ipynb}"
    in_data = _one(_text(stage, f"x: {quoted}"))
    assert reason in in_data.message
    assert (in_data.where, in_data.path) == ("pipelines.yaml:3:8", "data.x")
    if path not in (".", "a/.."):
        inner = quoted[:-1]
        assert reason in _problems(_text(stage, f'x: {{path: a, schema: {inner}/s.py:X"}}'))[0].message
        assert reason in _problems(_text(f'a: {{notebook: {inner}/n.ipynb"}}'))[0].message
    if path != ".":
        assert reason in _one(_text(f"a: {{notebook: a.ipynb, cwd: {quoted}}}")).message


@pytest.mark.parametrize(
    "path", ["data/x.csv", "...", "a..b/c", "Ünïcode and spaces/数据.csv", ".hidden", "a:b"]
)
def test_paths_inside_the_project_are_fine(path: str) -> None:
    assert _problems(_text("a: {notebook: a.ipynb}", f'x: "{path}"')) == []


# Patterns


@pytest.mark.parametrize(
    "pattern", ["m/{", "m/}", "m/{}", "m/{a:3}", "m/{a!r}", "m/{{a}}", "m/{a.b}", "m/{a[0]}", "m/{0}"]
)
def test_patterns_hold_nothing_but_names(pattern: str) -> None:
    problem = _problems(_text("s: {notebook: a.ipynb, outputs: [x], matrix: {a: [1]}}", f'x: "{pattern}"'))[0]
    assert "is no pattern" in problem.message
    assert problem.where == "pipelines.yaml:3:8"


@pytest.mark.parametrize(
    ("stage", "data", "message", "fix"),
    [
        ("matrix: {alpha: [1]}", "m/{alpa}", "has {alpa}, no matrix param", "did you mean 'alpha'?"),
        ("matrix: {}", "m/{alpha}", "has {alpha}, no matrix param", "no matrix param to choose from"),
        ("matrix: {a: [1], b: [1]}", "m/{a}", "other values of 'b' would write the same 'x'", "put {b} into"),
        ("matrix: {a: [1]}", "m/x", "other values of 'a' would write the same 'x'", "put {a} into"),
        (
            "matrix: {a: [x, x-y], b: [y-z, z]}",
            "m/{a}-{b}",
            "are the same path 'm/x-y-z'",
            "change the pattern",
        ),
        ("matrix: {a: [best]}", "m/{a}", "are the same path 'm/best'", "change the pattern"),
        ("matrix: {a: [1, '1']}", "m/{a}", "would make variants of the same name", "remove"),
        ("matrix: {a: ['x y', 'x_y']}", "m/{a}", "would make variants of the same name", "remove"),
    ],
)
def test_every_variant_writes_a_path_of_its_own(stage: str, data: str, message: str, fix: str) -> None:
    problems = _problems(
        _text(f"s: {{notebook: a.ipynb, outputs: [x], {stage}}}", f'x: "{data}", best: m/best')
    )
    assert any(message in item.message and fix in item.fix for item in problems), problems


def test_a_pattern_that_no_stage_writes_is_refused() -> None:
    problem = _one(_text("s: {notebook: a.ipynb, inputs: [x]}", 'x: "m/{a}"'))
    assert problem.message == "the pattern 'm/{a}' is written by no stage"


@pytest.mark.parametrize("value", ["2013-01-01", "[1, {a: null}]", ".inf", "true"])
def test_matrix_values_may_be_anything_that_reaches_a_notebook(value: str) -> None:
    spec = parse_spec(_text(f"s: {{notebook: a.ipynb, matrix: {{k: [{value}]}}}}"))
    assert len(next(iter(spec.stages())).matrix["k"]) == 1


# Stages together


def test_two_stages_that_write_one_dataset_are_refused() -> None:
    text = _text("a: {notebook: a.ipynb, outputs: [x]}\nb: {notebook: b.ipynb, outputs: [x]}", "x: x.csv")
    problem = _one(text)
    assert problem.message == "the dataset 'x' is written by p.a too"
    assert problem.where == "pipelines.yaml:8:30"


@pytest.mark.parametrize("path", [".gitignore", "data/.gitattributes"])
def test_a_file_of_gits_is_no_dataset(path: str) -> None:
    assert "is a file of git's" in _one(_text("a: {notebook: a.ipynb}", f"x: {path}")).message


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("pipelines.yaml", "replace pipelines.yaml"),
        ("a.ipynb", "replace the notebook a.ipynb"),
        ("rules", "replace the schema rules/schemas.py"),
    ],
)
def test_what_the_project_is_made_of_is_no_output(path: str, file: str) -> None:
    data = f"o: {path}, i: {{path: i.csv, schema: 'rules/schemas.py:Table'}}"
    problem = _one(_text("a: {notebook: a.ipynb, inputs: [i], outputs: [o]}", data))
    assert file in problem.message


def test_a_stage_that_writes_one_dataset_twice_is_refused() -> None:
    problem = _one(_text("a: {notebook: a.ipynb, outputs: {one: x, two: x}}", "x: x.csv"))
    assert problem.message == "the dataset 'x' is written twice by this stage"


@pytest.mark.parametrize(
    ("stages", "chains"),
    [
        ("a: {notebook: a.ipynb, inputs: [x], outputs: {y: x}}", ["p.a → p.a"]),
        (
            """
            a: {notebook: a.ipynb, inputs: [y], outputs: [x]}
            b: {notebook: b.ipynb, inputs: [x], outputs: [y]}
            c: {notebook: c.ipynb, inputs: [y]}
            """,
            ["p.a → p.b → p.a", "p.b → p.a → p.b"],
        ),
        (
            "a: {notebook: a.ipynb, outputs: [x], after: [b]}\nb: {notebook: b.ipynb, inputs: [x]}",
            ["p.a → p.b → p.a", "p.b → p.a → p.b"],
        ),
        ("a: {notebook: a.ipynb, after: [p.a]}", ["p.a → p.a"]),
    ],
)
def test_a_cycle_is_shown_as_the_cycle(stages: str, chains: list[str]) -> None:
    problem = _one(_text(stages, "x: x.csv, y: y.csv"))
    assert problem.message.removeprefix("these stages wait for each other: ") in chains
    assert problem.where in ("pipelines.yaml:7:7", "pipelines.yaml:8:7")


@given(st.integers(2, 6), st.integers(0, 2))
def test_a_cycle_names_exactly_the_stages_that_are_in_it(length: int, bystanders: int) -> None:
    ring = [
        f"s{n}: {{notebook: a.ipynb, inputs: [d{n}], outputs: [d{(n + 1) % length}]}}" for n in range(length)
    ]
    others = [f"t{n}: {{notebook: a.ipynb, inputs: [d0]}}" for n in range(bystanders)]
    data = ", ".join(f"d{n}: d{n}.csv" for n in range(length))
    shown = _one(_text("\n".join(others + ring), data)).message.rpartition(": ")[2].split(" → ")
    assert shown[0] == shown[-1]
    start = int(shown[0].removeprefix("p.s"))
    assert shown[:-1] == [f"p.s{(start + n) % length}" for n in range(length)]


# JSON Schema


def test_the_schema_is_valid_and_closed() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    assert not SCHEMA.is_valid({"version": 1, "project": "x", "pipelines": {"p": {"stages": {}}}})
    assert not SCHEMA.is_valid({"version": 1, "project": "x", "pipelines": {}, "extra": 1})


STAGES = st.fixed_dictionaries(
    {"notebook": st.sampled_from(["a.ipynb", "nb/b.ipynb", "", "b.py", 3])},
    optional={
        "inputs": st.sampled_from([[], ["x"], {"v": "x"}, ["nope"], "x", None]),
        "outputs": st.sampled_from([[], ["y"], {"w": "y"}, ["x"], ["m"]]),
        "params": st.sampled_from([{}, {"k": 1}, {"k": {"secret": "ENV"}}, {"a-b": 1}, [1], None]),
        "matrix": st.sampled_from([{}, {"k": [1, 2]}, {"k": []}, {"k": 1}]),
        "after": st.sampled_from([[], ["a"], ["q"], "a"]),
        "timeout": st.sampled_from([30, "1h30m", "45s", " 1 m ", 0, "soon", None, 1.5, True]),
        "retries": st.sampled_from([0, 3, -1, 101, None, "1", 1.5]),
        "python": st.sampled_from([".venv/bin/python", None, 3]),
        "cwd": st.sampled_from(["", ".", "notebooks", "../out", None]),
        "description": st.sampled_from(["what it does", "", None]),
        "typo": st.just(1),
    },
)
DOCUMENTS = st.fixed_dictionaries(
    {
        "version": st.sampled_from([1, 1, 1, 2, "1"]),
        "project": st.sampled_from(["x", "Ünï", "", 3]),
        "pipelines": st.dictionaries(
            st.sampled_from(["p", "train", "1x"]),
            st.fixed_dictionaries(
                {"stages": st.dictionaries(st.sampled_from(["a", "b-c"]), STAGES, max_size=2)},
                optional={"params": st.just({"k": 2}), "description": st.just("d")},
            ),
            max_size=2,
        ),
    },
    optional={
        "params": st.sampled_from([{}, {"größe": [1, None, {"a": 1.5}]}, {"class": 1}, None]),
        "data": st.sampled_from(
            [
                {"x": "x.csv", "y": {"path": "y.csv", "schema": "s.py:Y", "owner": "me"}},
                {"x": "x.csv", "y": {"path": "y", "schema": None}, "m": "m/{k}"},
                {"x": 3},
                {"x": {"path": "a", "what": 1}},
            ]
        ),
        "defaults": st.sampled_from(
            [{}, {"timeout": "30m", "retries": 1, "python": "py", "cwd": "nb"}, {"x": 1}]
        ),
        "tracking": st.sampled_from(["sqlite:///x", {"uri": "http://x", "experiment": "e"}, {"url": 1}, 3]),
    },
)


def _parts(value: Any) -> list[tuple[Any, ...]]:
    return [tuple(error.absolute_path) for error in SCHEMA.iter_errors(value)]


@given(DOCUMENTS)
def test_the_schema_accepts_what_load_accepts(document: dict[str, Any]) -> None:
    if not _problems(yaml.safe_dump(document, allow_unicode=True)):
        assert _parts(document) == []


@pytest.mark.parametrize("timeout", [30, 1.5, "45s", "1h30m", None])
@pytest.mark.parametrize("inputs", [[], ["x"], {"v": "x"}])
@pytest.mark.parametrize("tracking", ["sqlite:///x", {"uri": "http://x"}])
def test_load_and_schema_accept_every_way_to_write_it(timeout: Any, inputs: Any, tracking: Any) -> None:
    stage = {"notebook": "a.ipynb", "inputs": inputs, "timeout": timeout, "matrix": {"k": [1, "a"]}}
    document = {
        "version": 1, "project": "x", "tracking": tracking,
        "data": {"x": "x.csv", "y": {"path": "y.csv", "schema": "s.py:Y"}},
        "pipelines": {"p": {"stages": {"s": stage}}},
    }  # fmt: skip
    assert _problems(yaml.safe_dump(document)) == []
    assert _parts(document) == []


@pytest.mark.parametrize(
    "stage",
    [
        {},
        {"notebook": 3},
        {"notebook": ""},
        {"notebook": "a.ipynb", "typo": 1},
        {"notebook": "a.ipynb", "retries": -1},
    ],
)
def test_schema_and_load_refuse_the_same_shapes(stage: dict[str, Any]) -> None:
    document = {"version": 1, "project": "x", "pipelines": {"p": {"stages": {"s": stage}}}}
    assert _problems(yaml.safe_dump(document))
    assert _parts(document)


# Resources and gates

BOOKED = """
version: 1
project: x
data: {best: models/best}
defaults: {timeout: 30m, retries: 0, resources: {cpu: 1, memory: 2GiB}}
pipelines:
  train:
    stages:
      fit:
        {notebook: fit.ipynb, resources: {memory: 500MB}}
      evaluate:
        notebook: evaluate.ipynb
        outputs: [best]
        gates: ["r2 > 0.24", "rmse <= champion.rmse * 1.01"]
"""


def test_a_stage_takes_the_resources_it_does_not_set_from_the_defaults() -> None:
    stages = {stage.name: stage for stage in parse_spec(BOOKED).stages()}
    assert stages["fit"].resources == Resources(1, 500_000_000)
    assert stages["evaluate"].resources == Resources(1, 2 * 2**30)
    assert SCHEMA.is_valid(yaml.safe_load(BOOKED))


def test_gates_keep_their_order_and_place() -> None:
    *_, evaluate = parse_spec(BOOKED).stages()
    assert [gate.condition for gate in evaluate.gates] == ["r2 > 0.24", "rmse <= champion.rmse * 1.01"]
    assert str(evaluate.gates[1].location) == "pipelines.yaml:14:30"


@pytest.mark.parametrize(
    ("good", "bad", "message", "fix"),
    [
        ("cpu: 1", "cpu: zero", "this must be a number, not 'zero'", ""),
        ("cpu: 1", "cpu: 0", "greater than 0", ""),
        ("cpu: 1", "cpu: true", "this must be a number, not True", ""),
        ("cpu: 1", "cpus: 1", "unknown key 'cpus'", "did you mean 'cpu'?"),
        ("500MB", "2GB RAM", "'2GB RAM' is no size", ""),
        ("{memory: 500MB}", "{memery: 500MB}", "unknown key 'memery'", "did you mean 'memory'?"),
        ("r2 > 0.24", "r2 =< 0.24", "'r2 =< 0.24' is no gate", "write a comparison"),
        ("rmse <= champion.rmse * 1.01", "r2 > 0.24", "'r2 > 0.24' is listed twice", "remove one"),
        ("resources: {cpu", "gates: {cpu", "unknown key 'gates'", "valid keys: cell_timeout, cwd, python"),
    ],
)
def test_mistakes_in_resources_and_gates_are_named(good: str, bad: str, message: str, fix: str) -> None:
    (problem,) = _problems(BOOKED.replace(good, bad, 1))
    assert message in problem.message
    assert fix in problem.fix
    assert problem.where.startswith("pipelines.yaml:")
