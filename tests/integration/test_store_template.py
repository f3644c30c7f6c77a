"""Fresh SQLite stores are copies of a template that the installed MLflow made."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from mlflow import MlflowClient

from nbtools.pipeline.spec import Tracking
from nbtools.tracking.address import resolve
from nbtools.tracking.template import ensure_store, template_path


@pytest.fixture
def template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sound template in a cache of the test's own."""
    ensure_store(tmp_path / "made" / "mlflow.db", lambda _: None)
    shared = template_path()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    template_path().parent.mkdir(parents=True)
    shutil.copyfile(shared, template_path())
    return template_path()


def revision(database: Path) -> str:
    connection = sqlite3.connect(database)
    found = connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]
    connection.close()
    return str(found)


def test_template_of_another_schema_is_made_again(tmp_path: Path, template: Path) -> None:
    wanted = revision(template)
    connection = sqlite3.connect(template)
    with connection:
        connection.execute("UPDATE alembic_version SET version_num = 'cfd24bdc0731'")
    connection.close()
    notes: list[str] = []
    ensure_store(tmp_path / "mlflow.db", notes.append)
    assert notes
    assert revision(tmp_path / "mlflow.db") == revision(template) == wanted


def test_template_in_a_cache_that_cannot_be_written_to_is_used(tmp_path: Path, template: Path) -> None:
    template.with_suffix(".lock").mkdir()  # whoever wants to lock fails, root too
    notes: list[str] = []
    ensure_store(tmp_path / "mlflow.db", notes.append)
    assert notes == []
    assert revision(tmp_path / "mlflow.db") == revision(template)


def test_template_is_not_touched_by_its_use(tmp_path: Path, template: Path) -> None:
    before = template.read_bytes()
    ensure_store(tmp_path / "mlflow.db", lambda _: None)
    assert template.read_bytes() == before
    assert list(template.parent.iterdir()) == [template]


def test_without_a_cache_the_store_is_made_in_place_and_nothing_else_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    notes: list[str] = []
    database = tmp_path / "project" / "mlflow.db"
    ensure_store(database, notes.append)
    assert len(notes) == 1
    assert list(database.parent.iterdir()) == [database]
    found = MlflowClient(f"sqlite:///{database}").get_experiment("0")
    assert found.artifact_location == str(database.parent / "artifacts" / "0")


@pytest.mark.parametrize("name", ["a b", "50%20off", "what?", "c#", "ü"])
def test_store_works_whatever_the_folder_is_called(tmp_path: Path, name: str) -> None:
    address = resolve(tmp_path / name, Tracking(), "p", {})
    assert address.database is not None
    ensure_store(address.database, lambda _: None)
    client = MlflowClient(address.uri, address.uri)
    run = client.create_run(client.create_experiment("e", address.artifacts))
    for experiment in (run.info.experiment_id, "0"):
        logged = client.create_run(experiment).info.run_id
        client.log_text(logged, "text", "note.txt")
        (written,) = (tmp_path / name).rglob(f"{logged}/artifacts/note.txt")
        assert written.read_text() == "text"
