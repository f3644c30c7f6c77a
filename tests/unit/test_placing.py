from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbtools.errors import DataError
from nbtools.execution.database import Database
from nbtools.execution.placing import file_name, place, restore
from nbtools.execution.workspace import Workspace
from nbtools.pipeline.dag import Output, Variant
from nbtools.pipeline.fingerprint import Ingredients
from nbtools.pipeline.plan import Action, Completion, Step
from nbtools.pipeline.spec import Location, Spec, Stage
from nbtools.project import Project


class Desk:
    """A project without stages, and what was said while things were placed in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        project = Project(root)
        self.workspace = Workspace(project, Spec("x", (), {}), Database(project.database, writable=True))
        self.notes: list[str] = []

    def make(self, path: str, content: str | dict[str, str]) -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            target.write_text(content)
        else:
            target.mkdir()
            for name, text in content.items():
                (target / name).write_text(text)
        return target

    def place(self, content: str | dict[str, str], path: str = "out/model", run: str = "r1") -> None:
        source = self.make(f".nbtools/attempts/{run}/model", content)
        self.workspace.store.add(source)
        place(source, path, self.workspace, run, self.notes.append)

    def content(self, path: str = "out/model") -> str | dict[str, str]:
        target = self.root / path
        if target.is_dir():
            return {item.name: item.read_text() for item in target.iterdir()}
        return target.read_text()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


KINDS: list[str | dict[str, str]] = ["a file", {"a.txt": "a folder"}]


@pytest.mark.parametrize("after", [*KINDS, "another file", {"b.txt": "another folder"}])
@pytest.mark.parametrize("before", KINDS)
def test_a_new_result_takes_the_place_of_the_old_one(
    desk: Desk, before: str | dict[str, str], after: str | dict[str, str]
) -> None:
    desk.place(before)
    desk.place(after, run="r2")
    assert desk.content() == after
    assert desk.notes == []
    assert not list((desk.root / ".nbtools/attempts").rglob("*.txt"))


@pytest.mark.parametrize("made", KINDS)
@pytest.mark.parametrize("by_hand", ["by hand", {"mine.txt": "by hand"}])
def test_what_a_person_changed_is_kept_aside(
    desk: Desk, made: str | dict[str, str], by_hand: str | dict[str, str]
) -> None:
    desk.make("out/model", by_hand)
    desk.place(made)
    assert desk.content() == made
    assert desk.content(".nbtools/replaced/r1/out/model") == by_hand
    assert desk.notes == [
        "out/model had been changed by hand; the changed version is now .nbtools/replaced/r1/out/model"
    ]


def test_every_change_by_hand_is_kept(desk: Desk) -> None:
    for text in ("one", "two"):
        desk.make("out/model", text)
        desk.place("made")
    assert desk.content(".nbtools/replaced/r1/out/model") == "one"
    assert desk.content(".nbtools/replaced/r1/out/model.2") == "two"


def test_a_change_by_hand_is_noticed_even_after_the_path_was_looked_at(desk: Desk) -> None:
    desk.place("made")
    desk.workspace.digest_of("out/model")
    desk.make("out/model", "hand")
    desk.place("made again", run="r2")
    assert desk.content(".nbtools/replaced/r2/out/model") == "hand"


def test_a_link_to_a_folder_is_replaced_and_its_target_left_alone(desk: Desk) -> None:
    desk.place({"a.txt": "a"}, "elsewhere")
    (desk.root / "out").mkdir()
    (desk.root / "out/model").symlink_to(desk.root / "elsewhere")
    desk.place({"b.txt": "b"}, run="r2")
    assert desk.content() == {"b.txt": "b"}
    assert desk.content("elsewhere") == {"a.txt": "a"}


# Restoring


def _step(desk: Desk, **outputs: str) -> Step:
    variant = Variant(
        "p.a",
        Stage("p", "a", "a.ipynb", Location("pipelines.yaml", 1, 1)),
        {},
        (),
        tuple(Output(name, name, f"out/{name}") for name in outputs),
        (),
    )
    digests = {name: desk.workspace.store.add_bytes(text.encode()) for name, text in outputs.items()}
    return Step(variant, Action.RESTORE, (), completion=Completion("p.a", "ff", Ingredients(("x",)), digests))


def test_restoring_brings_back_what_is_missing_or_changed_and_keeps_the_change(desk: Desk) -> None:
    step = _step(desk, one="1", two="2", three="3")
    desk.make("out/two", "changed")
    present = desk.make("out/three", "3")
    inode = present.stat().st_ino
    restore(step, desk.workspace, "r1", desk.notes.append)
    assert [desk.content(f"out/{name}") for name in ("one", "two", "three")] == ["1", "2", "3"]
    assert desk.content(".nbtools/replaced/r1/out/two") == "changed"
    assert present.stat().st_ino == inode
    assert not list((desk.root / ".nbtools/attempts").rglob("*.restore"))


def test_a_damaged_copy_is_not_restored_and_the_workspace_stays(desk: Desk) -> None:
    step = _step(desk, one="1")
    assert step.completion is not None
    stored = desk.workspace.store.path(step.completion.outputs["one"])
    stored.chmod(0o644)
    stored.write_text("X")
    desk.make("out/one", "changed")
    with pytest.raises(DataError, match="damaged"):
        restore(step, desk.workspace, "r1", desk.notes.append)
    assert desk.content("out/one") == "changed"
    assert not list((desk.root / ".nbtools/attempts").rglob("*.restore"))


# Names


@given(st.text(), st.text())
def test_different_variants_have_different_file_names(one: str, other: str) -> None:
    assert (file_name(one) == file_name(other)) == (one == other)


@given(st.text(min_size=1))
def test_a_file_name_is_one_part_of_a_path_of_bounded_length(key: str) -> None:
    name = file_name(key)
    assert "/" not in name
    assert len(name.encode()) <= 255


@pytest.mark.parametrize(
    ("check", "key"),
    [(str.__eq__, "train.fit"), (str.__eq__, "train.fit[alpha=0.5,l1_ratio=0.2]"), (str.__ne__, "a/b")],
)
def test_a_usual_name_stays_readable(check: Callable[[str, str], bool], key: str) -> None:
    assert check(file_name(key), key)
