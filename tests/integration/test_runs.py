"""Finding and comparing runs in a real MLflow store, which other tests can give another address."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param

import nbtools
from nbtools.cli.main import code_of
from nbtools.errors import OperationError, UsageError
from nbtools.tracking.address import StoreAddress, sqlite_address
from nbtools.tracking.experiments import Experiments
from nbtools.tracking.template import ensure_store
from tests.projects import SmallProject, notebook

ALPHAS = (0.0, 0.2, 0.5)
RATIOS = (0.0, 0.5)
START = 1_790_000_000_000
RUNS = ("20261124-120000-aa11", "20261124-130000-bb22")


@dataclass
class Store:
    """A store at an address, and a project that keeps its runs there."""

    address: StoreAddress
    project: SmallProject
    client: MlflowClient
    experiment_id: str

    def make(
        self,
        name: str,
        tags: dict[str, str],
        *,
        params: dict[str, str] | None = None,
        metrics: Sequence[tuple[str, float, int]] = (),
        at: int = 0,
        status: str = "FINISHED",
        experiment_id: str = "",
    ) -> str:
        """Make a run that began ``at`` seconds after the others, and return its id."""
        run_id = self.client.create_run(
            experiment_id or self.experiment_id, START + at * 1000, {"mlflow.user": "ada", **tags}, name
        ).info.run_id
        self.client.log_batch(
            run_id,
            [Metric(key, value, START, step) for key, value, step in metrics],
            [Param(key, value) for key, value in (params or {}).items()],
        )
        self.client.set_terminated(run_id, status, START + at * 1000 + 2500)
        return str(run_id)

    def stage(self, run: str, stage: str, parent: str = "", **options: Any) -> str:
        """Make the run of a stage, as the tracker does."""
        tags = {
            "nbtools.run": run,
            "nbtools.stage": stage,
            "nbtools.attempt": "1",
            "nbtools.notebook": f"{stage.partition('.')[2].partition('[')[0]}.ipynb",
            "mlflow.source.name": "fit.ipynb",
            "mlflow.source.git.commit": "c0ffee" * 6,
            **({"mlflow.parentRunId": parent} if parent else {}),
            **options.pop("tags", {}),
        }
        return self.make(stage.partition(".")[2], tags, **options)

    def attach(self, run_id: str, *cells: str) -> None:
        """Log an executed notebook."""
        text = json.dumps(notebook(*cells, params="alpha = 1"))
        self.client.log_text(run_id, text, "notebook/fit.ipynb")

    def experiments(self) -> Experiments:
        """Return what reads the store."""
        return Experiments(self.address)


def fill(store: Store) -> None:
    """Two runs of a pipeline, the first with six variants of ``fit``, and runs of others in the same experiment."""
    first = store.make(
        "everything aa11",
        {"nbtools.run": RUNS[0], "nbtools.targets": "everything"},
        params={"seed": "13"},
        at=0,
    )
    for number, (alpha, ratio) in enumerate((alpha, ratio) for alpha in ALPHAS for ratio in RATIOS):
        fitted = store.stage(
            RUNS[0],
            f"train.fit[alpha={alpha},l1_ratio={ratio}]",
            first,
            params={"alpha": str(alpha), "l1_ratio": str(ratio), "seed": "13"},
            metrics=[("rmse", 40 - 10 * alpha + ratio, 0), ("r2", 0.2 + alpha / 10, 0)]
            + [("loss", 1 / (step + 1 + alpha), step) for step in range(4)],
            at=number + 1,
            tags={"nbtools.input.train_set": "d1" * 32, "nbtools.fingerprint": f"f{number}"},
        )
        dataset = Dataset("train_set", "d1" * 18, "local", "{}")
        store.client.log_inputs(fitted, [DatasetInput(dataset, [InputTag("mlflow.data.context", "input")])])
    prepared = store.stage(
        RUNS[0], "data.prepare", first, metrics=[("rows", 100, 0)], at=9, tags={"nbtools.fingerprint": "p0"}
    )
    second = store.make("everything bb22", {"nbtools.run": RUNS[1], "nbtools.targets": "everything"}, at=100)
    plan = {"stages": {"data.prepare": {"outcome": "up to date", "fingerprint": "p0"}}}
    store.client.log_dict(second, plan, "plan.json")
    failed = store.stage(
        RUNS[1], "train.evaluate", second, metrics=[("r2", 0.99, 0)], at=101, status="FAILED"
    )
    again = store.stage(
        RUNS[1],
        "train.evaluate",
        second,
        params={"alpha": "it's <b>"},
        metrics=[("r2", math.nan, 0), ("odd metric", 3.0, 0)],
        at=102,
        tags={"nbtools.attempt": "2"},
    )
    store.make("by hand", {}, metrics=[("r2", 0.9, 0)], at=103)
    assert len({first, prepared, second, failed, again}) == 5


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> StoreAddress:
    """Where MLflow keeps the runs of these tests."""
    found = sqlite_address(tmp_path_factory.mktemp("store") / "mlflow.db", experiment="small")
    assert found.database is not None
    ensure_store(found.database, lambda _: None)
    return found


@pytest.fixture(scope="module")
def store(address: StoreAddress, tmp_path_factory: pytest.TempPathFactory) -> Store:
    project = SmallProject(tmp_path_factory.mktemp("runs"))
    project.spec(f"""
        tracking: {address.uri}
        pipelines: {{train: {{stages: {{fit: {{notebook: fit.ipynb}}}}}}}}
    """)
    client = MlflowClient(address.uri, address.uri)
    experiment = client.create_experiment("small", artifact_location=address.artifacts or None)
    made = Store(address, project, client, experiment)
    fill(made)
    return made


@dataclass
class Said:
    code: int
    out: str
    err: str


def command(store: Store, capsys: pytest.CaptureFixture[str], *words: str) -> Said:
    """Run ``nbtools`` in this process, which has imported MLflow already."""
    capsys.readouterr()
    code = code_of(["-C", str(store.project.root), *words])
    said = capsys.readouterr()
    return Said(code, said.out, said.err)


def ask(store: Store, *arguments: Any, **options: Any) -> pd.DataFrame:
    return nbtools.runs(*arguments, project=store.project.root, **options)


# Searching

FILTERS = [
    "",
    "metrics.r2 > 0.24 and params.alpha = '0.5'",
    "metrics.r2 != 0.2",
    "metrics.r2 <= 0.5",
    "params.alpha LIKE '0.%' AND tags.`nbtools.run` = '20261124-120000-aa11'",
    "params.l1_ratio IS NULL",
    "tags.`mlflow.parentRunId` IS NOT NULL and metrics.loss < 1",
    "attributes.status = 'FAILED'",
    "attributes.start_time > 1790000003000",
    "run_name ILIKE 'FIT%'",
    "datasets.name = 'train_set' and metrics.rmse > 36",
    "dataset.context = 'input' AND datasets.digest != 'x'",
    "metrics.`odd metric` >= 3",
    "metrics.nowhere > 0",
]
ORDERS = [
    [],
    ["metrics.r2 desc"],
    ["metrics.r2"],
    ["params.alpha desc", "metrics.rmse"],
    ["attributes.start_time asc"],
    ["tags.`nbtools.stage`"],
    ["metrics.nowhere desc"],
]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    conditions=st.lists(st.sampled_from(FILTERS), max_size=3, unique=True),
    orders=st.sampled_from(ORDERS),
    limit=st.integers(1, 15),
)
def test_search_is_mlflows_own(store: Store, conditions: list[str], orders: list[str], limit: int) -> None:
    text = " AND ".join(filter(None, conditions))
    theirs = store.client.search_runs([store.experiment_id], text, order_by=orders, max_results=limit)

    ours = store.experiments().search(text, level="all", sort=orders, limit=limit)

    assert [run.run_id for run in ours] == [run.info.run_id for run in theirs]
    assert [run.params for run in ours] == [run.data.params for run in theirs]
    assert [repr(sorted(run.metrics.items())) for run in ours] == [
        repr(sorted(run.data.metrics.items())) for run in theirs
    ]


def test_frame_has_a_row_for_each_run_of_a_stage_and_a_column_for_each_param_and_metric(store: Store) -> None:
    found = ask(store, "metrics.r2 > 0.24 and params.alpha = '0.5'", sort="metrics.rmse")
    assert list(found["name"]) == ["fit[alpha=0.5,l1_ratio=0.0]", "fit[alpha=0.5,l1_ratio=0.5]"]
    assert list(found["metrics.rmse"]) == [35.0, 35.5]
    assert set(found.columns) >= {"time", "user", "source", "version", "params.l1_ratio", "metrics.loss"}
    first = found.iloc[0]
    assert (first["user"], first["source"], first["version"]) == ("ada", "fit.ipynb", "c0ffee" * 6)
    assert (first["stage"], first["run"], first["duration_s"]) == (f"train.{first['name']}", RUNS[0], 2.5)
    assert first["time"] == pd.Timestamp(START + 5000, unit="ms", tz="UTC")


def test_columns_are_the_chosen_ones_in_the_chosen_order(store: Store) -> None:
    found = ask(store, metrics=["rmse", "nowhere", "r2"], params=["l1_ratio"], limit=2)
    assert list(found.columns)[-4:] == ["params.l1_ratio", "metrics.rmse", "metrics.nowhere", "metrics.r2"]
    assert found["metrics.nowhere"].isna().all()


def test_level_says_which_runs_are_meant(store: Store) -> None:
    assert set(ask(store, level="pipeline")["run"]) == set(RUNS)
    assert "by hand" in set(ask(store, level="all")["name"])
    assert "by hand" not in set(ask(store, level="stage")["name"])


def test_pages_are_read_as_they_are_taken(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nbtools.tracking.experiments.PAGE", 4)
    pages = store.experiments().pages(level="all")
    assert len(next(pages)) == 4
    rest = [run.run_id for page in pages for run in page]
    assert len(set(rest)) == len(rest) == len(ask(store, level="all")) - 4


def test_csv_and_json_hold_the_same_runs(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["runs", "search", "metrics.r2 >= 0", "--sort", "metrics.rmse", "--limit", "3"]
    rows = list(csv.DictReader(io.StringIO(command(store, capsys, *words, "--csv", "-").out)))
    records = json.loads(command(store, capsys, *words, "--json").out)
    assert [row["run_id"] for row in rows] == [record["run_id"] for record in records]
    assert [float(row["metrics.rmse"]) for row in rows] == [record["metrics"]["rmse"] for record in records]
    assert rows[0]["params.alpha"] == records[0]["params"]["alpha"] == "0.5"


def test_table_shows_the_columns_that_were_asked_for(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    done = command(
        store,
        capsys,
        "runs",
        "search",
        "metrics.rmse > 0",
        "--filter-metrics",
        "rmse,r2",
        "--filter-params",
        "alpha",
    )
    headers, *rows = done.out.splitlines()
    assert headers.split() == ["run", "time", "name", "user", "source", "version", "alpha", "rmse", "r2"]
    assert len(rows) == len(ALPHAS) * len(RATIOS)


def test_nothing_found_names_what_is_misspelt(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    done = command(store, capsys, "runs", "search", "metrics.rmsee > 0")
    assert (done.code, done.out) == (0, "no runs\n")
    assert "no run has a metric 'rmsee'; did you mean 'rmse'?" in done.err


@pytest.mark.parametrize(
    ("text", "column", "said"),
    [
        ("metrics.r2 > 0 and params.alpha = 0.5", 20, "params.NAME takes"),
        ("metrics.r2 LIKE 'a'", 1, "metrics.NAME takes"),
        ("metrics.r2 > 0 and params.alpha > '0.5'", 20, "params.NAME takes"),
        ("metrics.r2 > 0 or metrics.r2 < 1", 16, "no OR"),
        ("metrics.r2 > 0 AND foo.bar = 'x'", 20, "they begin with"),
        ("params.`a and b` = 'x or y' and nonsense", 33, "joined by AND"),
        ("attributes.colour = 'x'", 1, "attributes.start_time"),
        ("params.alpha = 'x", 1, "params.NAME takes"),
        ("metrics.r2 > 0; metrics.r2 > 1", 1, "joined by AND"),
        ("(((", 1, "joined by AND"),
        ("metrics.r2 >", 1, "metrics.NAME takes"),
    ],
)
def test_wrong_filter_is_shown_with_its_place_and_what_is_allowed(
    store: Store, text: str, column: int, said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        ask(store, text)
    assert f"filter, column {column}:" in str(caught.value)
    assert said in str(caught.value)
    assert caught.value.exit_code == 2


WORDS = [
    "metrics.a",
    "params.b",
    "=",
    ">",
    "'",
    '"',
    "`",
    "and",
    "or",
    "(",
    ")",
    "NULL",
    "is",
    "in",
    "not",
    "1",
    "'x'",
    ",",
]


@given(text=st.text(max_size=30) | st.lists(st.sampled_from(WORDS)).map(" ".join))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_a_filter_or_the_users_mistake(store: Store, text: str) -> None:
    with contextlib.suppress(UsageError):
        store.experiments().search(text, limit=1)


@pytest.mark.parametrize("order", ["metrics.r2 down", "colour", "datasets.name", ""])
def test_wrong_order_is_the_users_mistake(store: Store, order: str) -> None:
    with pytest.raises(UsageError, match="cannot order by"):
        ask(store, sort=[order])


def test_experiments_are_named_and_unknown_and_deleted_ones_are_mistakes(store: Store) -> None:
    other = store.client.create_experiment("other")
    store.make("there", {}, experiment_id=other)
    assert list(ask(store, level="all", experiments="other")["name"]) == ["there"]
    assert {"there", "by hand"} <= set(ask(store, level="all", experiments=["other", "small"])["name"])
    with pytest.raises(UsageError, match=r"no experiment 'smal'(.|\n)*did you mean 'small'"):
        ask(store, experiments="smal")
    gone = store.make("gone", {}, experiment_id=other)
    store.client.delete_experiment(other)
    with pytest.raises(UsageError, match=r"'other' has been deleted(.|\n)*mlflow experiments restore"):
        ask(store, experiments="other")
    with pytest.raises(UsageError, match="belongs to the experiment 'other', which has been deleted"):
        nbtools.compare([gone, "latest"], project=store.project.root)


def test_project_without_a_store_has_no_runs_and_gets_none(tmp_path: Path) -> None:
    project = SmallProject(tmp_path)
    project.spec("pipelines: {p: {stages: {s: {notebook: n.ipynb}}}}")
    assert nbtools.runs(project=tmp_path).empty
    with pytest.raises(UsageError, match="there is no run in MLflow yet"):
        nbtools.compare(["latest", "latest~1"], project=tmp_path)
    assert not (tmp_path / ".nbtools").exists()


def test_damaged_store_is_an_operators_matter(tmp_path: Path) -> None:
    project = SmallProject(tmp_path)
    project.spec("pipelines: {p: {stages: {s: {notebook: n.ipynb}}}}")
    project.write(".nbtools/mlflow.db", "this is no database")
    with pytest.raises(OperationError, match="cannot be read"):
        nbtools.runs(project=tmp_path)


# The best


def test_best_is_by_direction_among_runs_that_finished_with_a_number(store: Store) -> None:
    root = store.project.root
    assert nbtools.best("r2", project=root).metrics["r2"] == 0.25
    assert nbtools.best("rmse", direction="min", project=root).metrics["rmse"] == 35.0
    assert (
        nbtools.best("rmse", direction="min", filter_string="params.alpha = '0.0'", project=root).metrics[
            "rmse"
        ]
        == 40
    )
    assert nbtools.best("odd metric", project=root).metrics["odd metric"] == 3
    with pytest.raises(UsageError, match=r"has a metric 'rmsee'(.|\n)*did you mean 'rmse'"):
        nbtools.best("rmsee", project=root)
    with pytest.raises(UsageError, match="no finished run"):
        nbtools.best("r2", filter_string="params.alpha = '7'", project=root)
    with pytest.raises(UsageError, match="filter, column 1"):
        nbtools.best("r2", filter_string="r2 >", project=root)


# Names of runs


def named(store: Store, *names: str) -> list[str]:
    return [run.name for run in nbtools.compare(names, project=store.project.root).runs]


def test_runs_are_named_by_run_and_stage(store: Store) -> None:
    assert named(store, "latest", "latest~1") == ["everything bb22", "everything aa11"]
    assert named(store, "aa11", RUNS[1]) == ["everything aa11", "everything bb22"]
    assert named(store, "latest:prepare", "bb22:train.evaluate") == ["prepare", "evaluate"]
    assert len(named(store, "latest:fit")) == len(ALPHAS) * len(RATIOS)
    assert (
        named(store, "latest:evaluate", "aa11:fit[alpha=0.5,l1_ratio=0.0]")[1]
        == "fit[alpha=0.5,l1_ratio=0.0]"
    )


def test_run_is_named_by_the_beginning_of_its_mlflow_id(store: Store) -> None:
    runs = store.experiments().search(level="all", limit=2)
    assert named(store, runs[0].run_id[:12], runs[1].run_id) == [runs[0].name, runs[1].name]


def test_last_attempt_of_a_stage_is_meant(store: Store) -> None:
    found = nbtools.compare(["bb22:evaluate", "latest:prepare"], project=store.project.root)
    assert found.runs[0].status == "FINISHED"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("zz99", "no run 'zz99'"),
        ("abcdef012345", "no run 'abcdef012345'"),
        ("20261124", "could mean"),
        ("20261124:fit", "could mean the runs"),
        ("latest~7", "there are only 2 runs"),
        ("latest:fitt", "did you mean 'fit'"),
        ("bb22:fit", "executed no stage 'fit'"),
        ("latest:prepare~1", "no run has executed"),
        ("aa11~1", "names no run"),
        ("a b", "names no run"),
        ("", "names no run"),
        ("latest:it's%", "no run has executed"),
    ],
)
def test_name_that_means_no_run_or_several_is_the_users_mistake(store: Store, name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        named(store, name, "latest")


def test_deleted_run_is_named_as_such(store: Store) -> None:
    gone = store.make("gone", {})
    store.client.delete_run(gone)
    for name in (gone, gone[:14]):
        with pytest.raises(UsageError, match=r"has been deleted(.|\n)*mlflow runs restore"):
            named(store, name, "latest")


def test_one_run_cannot_be_compared(store: Store) -> None:
    with pytest.raises(UsageError, match="takes two runs"):
        named(store, "latest", "bb22")


# Comparing


@pytest.fixture(scope="module")
def versions(store: Store) -> tuple[str, str]:
    """Two versions of a stage that differ in everything."""
    made = []
    for number, (cell, pandas) in enumerate([("fit(1)", "3.0"), ("fit(2)\nlog('<script>')", "3.1")]):
        run_id = store.stage(
            f"20261125-00000{number}-cc{number}{number}",
            "train.other",
            params={"alpha": f"<i>{number}", "same": "1"},
            metrics=[("auc", 0.5 + number / 4, 0), *(("loss", number + step, step) for step in range(3))],
            at=200 + number,
            tags={
                "nbtools.notebook_digest": str(number),
                "nbtools.input.train_set": f"{number}" * 64,
                "nbtools.output.model": "e" * 64,
            },
        )
        store.attach(run_id, "import pandas", cell, "print('end')")
        manifest = {
            "schema": "nbtools/stage-run/1",
            "packages": {"pandas": pandas, "numpy": "2"},
            "python": "3.11",
        }
        store.client.log_dict(run_id, manifest, "manifest.json")
        made.append(run_id)
    return made[0], made[1]


def test_comparison_shows_what_differs_and_only_that(store: Store, versions: tuple[str, str]) -> None:
    found = nbtools.compare(versions, project=store.project.root)
    shown = {(item.kind, item.name): item for item in found.differences}
    assert set(shown) == {
        ("run", "nbtools run"),
        ("param", "alpha"),
        ("metric", "auc"),
        ("metric", "loss"),
        ("data", "input train_set"),
        ("package", "pandas"),
    }
    assert shown["metric", "auc"].values == (0.5, 0.75)
    assert shown["metric", "auc"].changes == (0.0, 0.25)
    assert shown["package", "pandas"].values == ("3.0", "3.1")
    (code,) = found.code
    (cell,) = code.cells
    assert (cell.kind, cell.number) == ("changed", 3)
    assert "-fit(1)" in cell.diff
    assert "+fit(2)" in cell.diff
    assert found.notes == ()


def test_stages_of_pipelines_are_compared_by_name_and_reused_ones_count(store: Store) -> None:
    found = nbtools.compare([RUNS[0], RUNS[1]], project=store.project.root)
    assert found.same >= 1  # the metric of the stage that the second run found up to date
    assert not [item for item in found.differences if item.name.startswith("data.prepare")]
    assert any("train.evaluate" in note for note in found.notes)


def test_json_of_a_comparison_is_json(
    store: Store, versions: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    done = command(store, capsys, "runs", "compare", *versions, "latest:evaluate", "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert {run["run_id"] for run in record["runs"]} > set(versions)


def test_page_needs_no_network_and_no_script_and_escapes_every_text(
    store: Store, versions: tuple[str, str], tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    nbtools.compare([*versions, "latest:evaluate"], html=page, project=store.project.root)
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<i>" not in text
    assert "&lt;i&gt;" in text
    for word in ("src=", "@import", "<link"):
        assert word not in text
    assert "History of loss" in text
    assert text.count("<svg") >= 3


# Pictures


def test_pictures_are_shown_by_a_notebook_and_by_nbconvert_without_a_network(store: Store) -> None:
    from nbclient import NotebookClient
    from nbconvert import HTMLExporter

    source = f"""
        import nbtools
        root = {str(store.project.root)!r}
        frame = nbtools.runs("metrics.rmse > 0", project=root)
        nbtools.plots.heat_map(frame, "alpha", "l1_ratio", "rmse")
        ---
        nbtools.plots.parallel_coordinates(frame, "rmse")
        ---
        nbtools.plots.metric_history("latest:fit", "loss", project=root)
        ---
        nbtools.plots.scatter(frame, "alpha", "r2", color="rmse")
    """
    executed = nbformat.from_dict(notebook(*source.split("---"), params=None))
    NotebookClient(executed, kernel_name="python3", timeout=120).execute()
    html, _ = HTMLExporter(embed_images=True).from_notebook_node(executed)
    pictures = [[output.data for output in cell.outputs] for cell in executed.cells]
    assert [len(outputs) for outputs in pictures] == [1, 1, 1, 1]  # once each
    assert all("image/png" in outputs[0] for outputs in pictures)
    assert html.count('src="data:image/png;base64,') == 4


def test_picture_of_what_is_not_there_is_the_users_mistake(store: Store) -> None:
    found = ask(store, "metrics.rmse > 0")
    with pytest.raises(UsageError, match=r"no metric 'rmsee'(.|\n)*did you mean 'rmse'"):
        nbtools.plots.heat_map(found, "alpha", "l1_ratio", "rmsee")
    with pytest.raises(UsageError, match="none of the runs has a metric 'los'"):
        nbtools.plots.metric_history("latest:fit", "los", project=store.project.root)
    with pytest.raises(UsageError, match="nothing to draw"):
        nbtools.plots.parallel_coordinates(found.head(1))


def test_odd_texts_and_values_are_drawn(store: Store) -> None:
    frame = pd.DataFrame(
        {
            "run_id": ["a" * 32, "b" * 32, "_" * 32],
            "params.k": ["$\\frac{x}", "<&\x00", None],
            "params.n": ["1", "2", "inf"],
            "metrics.m": [1.0, math.nan, 3.0],
        }
    )
    from nbtools.reports.plots import as_svg

    pictures = [nbtools.plots.parallel_coordinates(frame, "m"), nbtools.plots.scatter(frame, "k", "m", "n")]
    for svg in map(as_svg, pictures):
        assert "\x00" not in svg
        assert "<&" not in svg


def test_mistake_on_the_command_line_ends_with_code_2(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    done = command(store, capsys, "runs", "compare", "nowhere", "latest")
    assert (done.code, done.out) == (2, "")
    assert "MLflow has no run 'nowhere'" in done.err
