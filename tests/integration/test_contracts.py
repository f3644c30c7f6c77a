"""Contracts of datasets: what breaks its schema is refused, with dataset, column, check and example rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbtools.errors import DataError, SpecError
from nbtools.execution.events import Failure
from nbtools.execution.state import RunState
from tests.projects import SmallProject

SCHEMAS = """
    import pandera.pandas as pa
    from limits import MOST

    class Flights(pa.DataFrameModel):
        delay: float = pa.Field(ge=-60, le=MOST)
        carrier: str = pa.Field(isin=["AA", "UA"])

    totals = pa.DataFrameSchema({"delay": pa.Column(float)})
"""
SUMS = """
    import pandas as pd
    flights = pd.read_csv(flights)
    flights["delay"] = flights["delay"] * factor
    flights.to_parquet(clean)
"""
GOOD = "delay,carrier\n1.5,AA\n2.5,UA\n3.5,AA\n"
BAD = "delay,carrier\n1.5,AA\n-100,UA\n3.5,ZZ\n900,AA\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> SmallProject:
    """Return a project whose external and written datasets have schemas; tests leave it with good data."""
    project = SmallProject(tmp_path_factory.mktemp("contracts"))
    project.spec("""
        params: {factor: 2.0}
        data:
          flights: {path: data/flights.csv, schema: "contracts/schemas.py:Flights"}
          clean: {path: data/clean.parquet, schema: "contracts/schemas.py:Flights"}
          rest: {path: data/rest.parquet, schema: "contracts/schemas.py:totals"}
        pipelines:
          data:
            stages:
              clean: {notebook: clean.ipynb, inputs: [flights], outputs: [clean]}
              rest: {notebook: rest.ipynb, inputs: [clean], outputs: [rest]}
    """)
    project.write("contracts/schemas.py", SCHEMAS)
    project.write("contracts/limits.py", "MOST = 600")
    project.write("data/flights.csv", GOOD)
    project.notebook("clean.ipynb", SUMS, params="factor = 1.0\nflights = clean = ''")
    project.notebook(
        "rest.ipynb",
        "import pandas as pd\npd.read_parquet(clean).to_parquet(rest)",
        params="clean = rest = ''",
    )
    assert project.run().status == "passed"
    return project


def failure_of(state: RunState, stage: str) -> Failure:
    assert state.stages[stage].status == "failed"
    failure = state.stages[stage].failure
    assert failure is not None
    assert failure.kind == "contract"
    return failure


def test_external_dataset_that_breaks_its_schema_is_refused_before_the_notebook_runs(
    project: SmallProject,
) -> None:
    project.write("data/flights.csv", BAD)
    try:
        with pytest.raises(DataError) as caught:
            project.run()
    finally:
        project.write("data/flights.csv", GOOD)

    (problem,) = caught.value.problems
    assert (problem.where, problem.path) == ("pipelines.yaml:6:3", "data.flights.schema")
    said = problem.message
    assert said.startswith(
        "the dataset 'flights' (data/flights.csv) breaks its schema contracts/schemas.py:Flights"
    )
    assert "column 'delay': greater_than_or_equal_to(-60), 1 row" in said
    assert "column 'delay': less_than_or_equal_to(600), 1 row" in said
    assert "column 'carrier': isin(['AA', 'UA']), 1 row" in said
    rows = [line.split() for line in said.splitlines()]
    assert ["1", "-100.0", "UA"] in rows  # the row as it stands in the file
    assert ["2", "3.5", "ZZ"] in rows
    assert ["3", "900.0", "AA"] in rows
    assert set(project.actions().values()) == {"up to date"}


def test_written_dataset_that_breaks_its_schema_is_refused_and_the_good_one_stays(
    project: SmallProject,
) -> None:
    before = (project.root / "data/clean.parquet").read_bytes()

    failure = failure_of(project.run(params={"factor": 1000.0}), "data.clean")

    assert failure.message == (
        "the dataset 'clean' (data/clean.parquet) breaks its schema contracts/schemas.py:Flights"
    )
    assert "column 'delay': less_than_or_equal_to(600), 3 rows" in failure.traceback
    assert "2500.0" in failure.traceback
    assert failure.fix == "mend the data or the schema"
    assert (project.root / "data/clean.parquet").read_bytes() == before
    assert set(project.actions().values()) == {"up to date"}


def test_command_shows_what_breaks_a_schema(project: SmallProject) -> None:
    done = project.command("run", "--no-tracking", "-p", "factor=1000.0")
    assert done.returncode == 1
    assert done.stderr == ""
    for part in ("data.clean", "'clean' (data/clean.parquet)", "column 'delay'", "2500.0", "mend the data"):
        assert part in done.stdout


def test_missing_column_is_named(project: SmallProject) -> None:
    project.write("data/flights.csv", "late,carrier\n1,AA\n")
    try:
        with pytest.raises(DataError, match="missing columns: delay"):
            project.run("clean")
    finally:
        project.write("data/flights.csv", GOOD)


def test_changed_schema_checks_the_dataset_anew(project: SmallProject) -> None:
    # A module that the schema imports counts as well.
    project.write("contracts/limits.py", "MOST = 4")
    try:
        assert project.actions("clean") == {"data.clean": "run"}
        project.write("data/flights.csv", "delay,carrier\n1.0,AA\n")  # times two it holds, too
        assert project.run("clean").status == "passed"
        project.write(
            "data/flights.csv", "delay,carrier\n3.0,AA\n"
        )  # it holds, but what is made of it does not
        failure = failure_of(project.run("clean"), "data.clean")
        assert "less_than_or_equal_to(4)" in failure.traceback
    finally:
        project.write("contracts/limits.py", "MOST = 600")
        project.write("data/flights.csv", GOOD)
    assert project.run().status == "passed"


@pytest.mark.parametrize(
    ("schemas", "expected"),
    [
        ("import nothing_of_this_name", "schemas.py:Flights cannot be loaded: ModuleNotFoundError"),
        ("Flight = 1", "cannot be loaded: NameError: there is no 'Flights' in it"),
        ("Flights = 1", "cannot be loaded: TypeError: 'Flights' is no pandera schema"),
    ],
)
def test_schema_that_cannot_be_loaded_says_why(project: SmallProject, schemas: str, expected: str) -> None:
    project.write("contracts/schemas.py", schemas)
    try:
        with pytest.raises(SpecError) as caught:
            project.run("clean")
        (problem,) = caught.value.problems
        assert expected in problem.message
        assert "mend contracts/schemas.py" in problem.fix
    finally:
        project.write("contracts/schemas.py", SCHEMAS)


def test_missing_schema_file_is_an_error_before_anything_runs(tmp_path: Path) -> None:
    project = SmallProject(tmp_path)
    project.spec("""
        data: {result: {path: out.csv, schema: "schemas.py:Result"}}
        pipelines: {work: {stages: {only: {notebook: only.ipynb, outputs: [result]}}}}
    """)
    project.notebook("only.ipynb", "1", params="result = ''")
    done = project.command("plan")
    assert done.returncode == 2
    assert "the schema file schemas.py does not exist" in done.stderr
    assert "pipelines.yaml:4:" in done.stderr
