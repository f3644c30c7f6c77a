from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nbtools.errors import Problem, SpecError
from nbtools.pipeline.load import load, parse_spec
from nbtools.pipeline.spec import Location, Secret, Spec

DESIGN = """\
version: 1
project: airline-delay
params: {seed: 13, sample: 0.1, token: {secret: API_TOKEN}}
data:
  flights: data/flights.parquet
  train_set: {path: data//./train.parquet, schema: "schemas.py:TrainSet", description: "January", owner: me}
  candidate: "models/{alpha}-{l1_ratio}"
  best: models/best/
defaults: {timeout: 30m, retries: 2, python: .venv/bin/python}
tracking: sqlite:///x.db
pipelines:
  data:
    params: {seed: 14}
    stages:
      ingest: {notebook: notebooks/01 ingest.ipynb, outputs: [flights]}
      features: {notebook: notebooks/02.ipynb, inputs: [flights], outputs: [train_set], after: [ingest]}
  train:
    stages:
      fit:
        notebook: notebooks/03.ipynb
        inputs: {train: train_set}
        outputs: [candidate]
        matrix: {alpha: [0, 0.2], l1_ratio: [0.5]}
        timeout: 90
        retries: 0
        cwd: notebooks
      evaluate: {notebook: notebooks/04.ipynb, inputs: {candidates: candidate}, outputs: [best], after: [data.ingest]}
"""


def _problems(text: str) -> list[Problem]:
    with pytest.raises(SpecError) as caught:
        parse_spec(textwrap.dedent(text))
    return list(caught.value.problems)


def _document(stages: str = "", data: str = "", more: str = "") -> str:
    """Return a document whose stages begin in line 7 and whose data stand in line 4."""
    lines = textwrap.indent(textwrap.dedent(stages or "only: {notebook: a.ipynb}").strip("\n"), "      ")
    return (
        f"version: 1\nproject: small\n{more}\ndata: {{{data}}}\npipelines:\n  p: {{stages: {{}}}}\n".replace(
            "  p: {stages: {}}\n", f"  p:\n    stages:\n{lines}\n"
        )
    )


# What is right


def test_the_designs_example_is_read_in_full() -> None:
    spec = parse_spec(DESIGN)
    assert [stage.key for stage in spec.stages()] == [
        "data.ingest", "data.features", "train.fit", "train.evaluate",
    ]  # fmt: skip
    assert spec.params == {"seed": 13, "sample": 0.1, "token": Secret("API_TOKEN")}
    assert spec.pipelines[0].params == {"seed": 14}
    assert spec.tracking.uri == "sqlite:///x.db"
    train_set = spec.datasets["train_set"]
    assert (train_set.path, str(train_set.schema), train_set.owner) == (
        "data/train.parquet", "schemas.py:TrainSet", "me",
    )  # fmt: skip
    assert spec.datasets["candidate"].placeholders == ("alpha", "l1_ratio")
    assert spec.datasets["best"].path == "models/best"


def test_a_stage_says_what_defaults_do_not() -> None:
    ingest, _, fit, _ = parse_spec(DESIGN).stages()
    assert (ingest.timeout_s, ingest.retries, ingest.python, ingest.cwd) == (1800, 2, ".venv/bin/python", "")
    assert (fit.timeout_s, fit.retries, fit.cwd) == (90, 0, "notebooks")
    assert dict(fit.matrix) == {"alpha": (0, 0.2), "l1_ratio": (0.5,)}
    assert [(item.variable, item.dataset) for item in fit.inputs] == [("train", "train_set")]


def test_places_of_stages_datasets_and_params_are_kept() -> None:
    spec = parse_spec(DESIGN)
    assert spec.place("params.sample") == Location("pipelines.yaml", 3, 20)
    assert spec.datasets["flights"].location == Location("pipelines.yaml", 5, 3)
    assert next(iter(spec.stages())).location == Location("pipelines.yaml", 15, 7)


# What is wrong, each with its place


@pytest.mark.parametrize(
    ("text", "where", "path", "message", "fix"),
    [
        (
            _document("fit: {notebook: a.ipynb, timout: 3}"),
            "8:32", "pipelines.p.stages.fit.timout", "unknown key 'timout'", "'timeout'",
        ),
        (_document(more="paramz: {}"), "3:1", "paramz", "unknown key 'paramz'", "'params'"),
        (_document(data="x: {path: a, schem: b}"), "4:21", "data.x.schem", "unknown key 'schem'", "'schema'"),
        (_document(more="tracking: {url: x}"), "3:12", "tracking.url", "unknown key 'url'", "'uri'"),
        (_document(more="defaults: {retry: 1}"), "3:12", "defaults.retry", "unknown key", "'retries'"),
        (
            _document("fit: {notebook: a.ipynb, inputs: [flight]}", "flights: f.csv"),
            "8:41", "pipelines.p.stages.fit.inputs[0]", "unknown dataset 'flight'", "'flights'",
        ),
        (
            _document("fit: {notebook: a.ipynb, outputs: {out: flight}}", "flights: f.csv"),
            "8:42", "pipelines.p.stages.fit.outputs.out", "unknown dataset 'flight'", "'flights'",
        ),
        (
            _document("fit: {notebook: a.ipynb}\neval: {notebook: b.ipynb, after: [fitt]}"),
            "9:41", "pipelines.p.stages.eval.after[0]", "unknown stage 'fitt'", "'fit'",
        ),
        (
            _document("fit: {notebook: a.ipynb, inputs: [x, x]}", "x: f.csv"),
            "8:44", "pipelines.p.stages.fit.inputs[1]", "'x' is listed twice", "remove",
        ),
        (
            _document("fit: {notebook: a.ipynb, inputs: [x], params: {x: 1}}", "x: f.csv"),
            "8:54", "pipelines.p.stages.fit.params.x", "stands under both inputs and params", "rename",
        ),
        (_document("fit: {notebook: a.py}"), "8:13", "pipelines.p.stages.fit.notebook", "no notebook", ".ipynb"),
        (_document("fit: {inputs: []}"), "8:7", "pipelines.p.stages.fit.notebook", "'notebook' is missing", "add"),
        (_document("1fit: {notebook: a.ipynb}"), "8:7", "pipelines.p.stages.1fit", "is no name", "letters"),
        (_document("fit: [a]"), "8:7", "pipelines.p.stages.fit", "must be a mapping", ""),
        (_document("fit: {notebook: 3}"), "8:13", "pipelines.p.stages.fit.notebook", "must be a text, not 3", ""),
        (_document(more="params: [a]"), "3:1", "params", "must be a mapping (name: value), not ['a']", ""),
        (_document(more="params: {class: 1}"), "3:10", "params.class", "Python keyword", "variable"),
        (_document(more="params: {a-b: 1}"), "3:10", "params.a-b", "not a Python identifier", "variable"),
        (_document(more="params: {t: {secret: a b}}"), "3:10", "params.t", "names one environment", "ENV_NAME"),
        (_document(more="params: {t: {secret: A, x: 1}}"), "3:10", "params.t", "names one environment", ""),
        (_document(data="my-data: a.csv"), "4:8", "data.my-data", "not a Python identifier", ""),
        (_document(data="x: {path: 3}"), "4:12", "data.x.path", "must be a text", ""),
        (_document(data="x: {owner: me}"), "4:8", "data.x.path", "'path' is missing", "add path"),
        (_document(data="x: ''"), "4:8", "data.x.path", "a text that is not empty", ""),
        (_document(data="x: {path: a, schema: TrainSet}"), "4:21", "data.x.schema", "names no schema", "schemas.py:"),
        (_document(data="x: {path: a, digest: abc}"), "4:21", "data.x.digest", "'abc' is no SHA-256", "sha256sum"),
        (_document(data="x: a.csv, y: ./a.csv"), "4:18", "data.y", "'y' and 'x' are the same path", "one"),
        (_document(data="x: a, y: a/b.csv"), "4:14", "data.y", "lies inside the dataset 'x'", ""),
        (_document("fit: {notebook: a.ipynb, timeout: soon}"), "8:32", "", "is no duration", ""),
        (_document("fit: {notebook: a.ipynb, timeout: -3}"), "8:32", "", "longer than nothing", ""),
        (_document("fit: {notebook: a.ipynb, retries: -1}"), "8:32", "", "greater than or equal to 0", ""),
        (_document("fit: {notebook: a.ipynb, retries: true}"), "8:32", "", "a whole number", ""),
        (_document("fit: {notebook: a.ipynb, after: x}"), "8:32", "", "must be a list", ""),
        (
            _document("fit: {notebook: a.ipynb, matrix: {k: []}}"),
            "8:41", "pipelines.p.stages.fit.matrix.k", "has no values", "at least one",
        ),
        (
            _document("fit: {notebook: a.ipynb, outputs: [x]}", "x: a.ipynb"),
            "8:32", "pipelines.p.stages.fit.outputs", "would replace the notebook a.ipynb", "another path",
        ),
        (
            _document("fit: {notebook: nb/a.ipynb, outputs: [x]}", "x: nb"),
            "8:35", "pipelines.p.stages.fit.outputs", "would replace the notebook nb/a.ipynb", "another path",
        ),
        ("version: 2\nproject: x\npipelines: {p: {stages: {a: {notebook: a.ipynb}}}}", "1:1", "version", "reads version 1", "write version: 1"),
        ("version: true\nproject: x\npipelines: {p: {stages: {a: {notebook: a.ipynb}}}}", "1:1", "version", "whole", ""),
        ("project: x\npipelines: {p: {stages: {a: {notebook: a.ipynb}}}}", "1:1", "version", "is missing", "add"),
        ("version: 1\nproject: x\npipelines: {}", "3:1", "pipelines", "at least one entry", ""),
        ("version: 1\nproject: x\npipelines: {p: {}}", "3:13", "pipelines.p.stages", "'stages' is missing", "add"),
        ("version: 1\nproject: x", "1:1", "pipelines", "'pipelines' is missing", "add"),
        ("[version]", "1:1", "", "must be a mapping", ""),
        ("just text", "1:1", "", "must be a mapping", ""),
    ],
)  # fmt: skip
def test_a_mistake_has_place_path_and_advice(
    text: str, where: str, path: str, message: str, fix: str
) -> None:
    (problem,) = _problems(text)
    assert problem.where == f"pipelines.yaml:{where}"
    assert problem.path == path or not path
    assert message in problem.message
    assert fix in problem.fix


def test_all_mistakes_are_reported_at_once_in_reading_order() -> None:
    found = _problems("""\
        project: 3
        params: {a-b: 1}
        params: {c: 1}
        data: {x: ../x.csv, y: {pth: y.csv}}
        pipelines:
          p:
            stages:
              fit: {inputs: [z], timout: 1}
              eval: {notebook: b.ipynb, inputs: [q], after: [fit, nothing]}
    """)
    assert [(item.where.partition(":")[2], item.path) for item in found] == [
        ("1:1", "version"),
        ("1:1", "project"),
        ("2:10", "params.a-b"),
        ("3:1", "params"),
        ("4:8", "data.x"),
        ("4:21", "data.y.path"),
        ("4:25", "data.y.pth"),
        ("8:7", "pipelines.p.stages.fit.notebook"),
        ("8:22", "pipelines.p.stages.fit.inputs[0]"),
        ("8:26", "pipelines.p.stages.fit.timout"),
        ("9:42", "pipelines.p.stages.eval.inputs[0]"),
        ("9:59", "pipelines.p.stages.eval.after[1]"),
    ]


def test_one_mistake_causes_no_others() -> None:
    found = _problems(
        _document(
            """
            fit: {outputs: [models], matrix: {k: [1, 2]}}
            eval: {notebook: b.ipynb, inputs: [models], after: [fit]}
            """,
            'models: "models/{k}"',
        )
    )
    assert [item.message for item in found] == ["'notebook' is missing here"]


# Files


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"# only a comment\n", "the file is empty"),
        (b"\xff\xfe\x00\x01binary", "not UTF-8 text"),
        (b"\x00\x01\x02", "the character U+0000 is not allowed"),
        (b"version: 1\n\tproject: x\n", "a tab indents this line"),
        (b"version: [", "not valid YAML"),
        (b"x" * 20_000_001, "too large"),
    ],
)
def test_files_that_hold_no_project_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "pipelines.yaml"
    file.write_bytes(content)
    with pytest.raises(SpecError, match=r"pipelines\.yaml") as caught:
        load(file)
    assert message in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="there is no such file"):
        load(tmp_path / "pipelines.yaml")
    (tmp_path / "pipelines.yaml").mkdir()
    with pytest.raises(SpecError, match="a folder, not a file"):
        load(tmp_path / "pipelines.yaml")


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_bytes(b"\xef\xbb\xbf" + DESIGN.replace("\n", "\r\n").encode())
    assert load(tmp_path / "p.yaml").project == "airline-delay"


@given(
    st.lists(
        st.sampled_from(
            [*DESIGN.splitlines(keepends=True), "  x: 1\n", "- a\n", "\t", "data: 3\n", "*a\n", "é"]
        )
    ).map("".join)
)
@example("pipelines: {p: {stages: {notebook: {notebook: 3}}}}")
@example("pipelines: {p: {stages: {fit: {notebook: a.ipynb, inputs: [[1]], after: [{}], matrix: {a: 1}}}}}")
def test_any_text_is_a_spec_or_has_problems(text: str) -> None:
    try:
        spec, problems = parse_spec(text), []
    except SpecError as error:
        spec, problems = None, list(error.problems)
    assert isinstance(spec, Spec) or problems
    assert all(problem.where.startswith("pipelines.yaml") for problem in problems)
