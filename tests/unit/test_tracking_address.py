"""Where runs are kept, and what a model's origin lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbtools.errors import UsageError
from nbtools.pipeline.spec import Tracking
from nbtools.tracking.address import resolve, without_credentials
from nbtools.tracking.lineage import manifest, missing

ROOT = Path("/somewhere/project")
CONTEXT = {
    "project": "p",
    "run": "r",
    "stage": "train.package",
    "tracking_run": "t",
    "params": {"seed": 1},
    "revision": {"commit": "c", "dirty": False},
    "upstream": [{"stage": "train.fit"}],
}


def test_default_store_is_sqlite_inside_the_project() -> None:
    address = resolve(ROOT, Tracking(), "p", {})
    assert address.uri == "sqlite:////somewhere/project/.nbtools/mlflow.db"
    assert (address.experiment, address.artifacts) == ("p", "/somewhere/project/.nbtools/artifacts")


def test_environment_wins_over_the_file_and_the_file_over_the_default() -> None:
    written = Tracking(uri="http://team:5000", experiment="flights")
    assert resolve(ROOT, written, "p", {}).uri == "http://team:5000"
    assert resolve(ROOT, written, "p", {}).experiment == "flights"
    assert resolve(ROOT, written, "p", {"MLFLOW_TRACKING_URI": "http://mine:1"}).uri == "http://mine:1"


def test_relative_sqlite_paths_are_the_projects() -> None:
    address = resolve(ROOT, Tracking(uri="sqlite:///runs/m.db"), "p", {})
    assert address.database == ROOT / "runs/m.db"


@pytest.mark.parametrize("uri", ["mlruns", "file:///x/mlruns", "./mlruns", "ftp://host"])
def test_stores_that_mlflow_refuses_are_refused_with_what_to_use(uri: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(ROOT, Tracking(uri=uri), "p", {})
    assert "sqlite:///" in str(caught.value)
    assert "tracking.uri" in str(caught.value)


def test_credentials_are_never_shown() -> None:
    shown = without_credentials("postgresql://me:hunter2@host/db?password=hunter2&x=1")
    assert "hunter2" not in shown
    assert shown == "postgresql://host/db?password=…&x=1"


def test_lineage_of_a_clean_tracked_run_lacks_nothing() -> None:
    assert missing(CONTEXT) == ()


@pytest.mark.parametrize(
    ("context", "said"),
    [
        ({}, "not made by a pipeline run"),
        ({**CONTEXT, "revision": {}}, "no git commit"),
        ({**CONTEXT, "revision": {"commit": "c", "dirty": True}}, "uncommitted changes"),
        ({**CONTEXT, "tracking_run": ""}, "not tracked"),
    ],
)
def test_lineage_says_what_is_missing(context: dict, said: str) -> None:
    assert any(said in item for item in missing(context))


def test_manifest_names_run_code_data_and_environment() -> None:
    found = manifest(
        CONTEXT,
        requirements=["a==1"],
        python="CPython 3.11",
        platform="x",
        metrics={"auc": 0.7},
        created_at="now",
    )
    assert found["schema"] == "nbtools/lineage/1"
    assert found["stage"]["params"] == {"seed": 1}
    assert found["upstream"] == [{"stage": "train.fit"}]
    assert found["environment"]["requirements"] == ["a==1"]
    assert found["metrics"] == {"auc": 0.7}
