from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbtools.errors import DataError
from nbtools.execution.digest import TREE, Memo
from nbtools.execution.store import Store

NAMES = st.sampled_from(["a", "b.txt", "Ünïcode 数据", " ", "deep"])
TREES = st.recursive(
    st.tuples(st.binary(max_size=20), st.booleans()),
    lambda inner: st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


def _store(root: Path) -> Store:
    return Store(root / "store")


def _make(path: Path, content: object) -> None:
    if isinstance(content, dict):
        path.mkdir()
        for name, item in content.items():
            _make(path / name, item)
    elif isinstance(content, tuple):
        path.write_bytes(content[0])
        path.chmod(0o755 if content[1] else 0o644)


def _content(path: Path) -> object:
    if path.is_dir():
        return {item.name: _content(item) for item in path.iterdir()}
    return path.read_bytes(), os.access(path, os.X_OK)


@settings(max_examples=8)  # every file is synced to disk
@given(st.dictionaries(NAMES, TREES, max_size=3))
def test_a_folder_comes_back_as_it_went_in(content: dict[str, object]) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        _make(root / "made", content)
        store = _store(root)
        added = store.add(root / "made")
        assert added == Memo().measure(root / "made")
        assert store.holds(added.digest)
        store.extract(added.digest, root / "out/copy")
        assert _content(root / "out/copy") == content


def test_a_file_comes_back_as_it_went_in_and_is_kept_once(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    store = _store(tmp_path)
    added = store.add(tmp_path / "x")
    assert added == Memo().measure(tmp_path / "x") == store.add(tmp_path / "x")
    store.extract(added.digest, tmp_path / "deep/y")
    assert (tmp_path / "deep/y").read_bytes() == b"abc"
    assert store.read(added.digest) == b"abc"
    assert len([path for path in store.folder.rglob("*") if path.is_file()]) == 1


def test_editing_what_came_out_leaves_the_store_alone(tmp_path: Path) -> None:
    store = _store(tmp_path)
    digest = store.add_bytes(b"abc")
    store.extract(digest, tmp_path / "out")
    (tmp_path / "out").write_bytes(b"changed")
    assert store.read(digest) == b"abc"


def test_a_damaged_object_is_set_aside_and_never_comes_out(tmp_path: Path) -> None:
    store = _store(tmp_path)
    digest = store.add_bytes(b"abc")
    store.path(digest).chmod(0o644)
    store.path(digest).write_bytes(b"abd")
    with pytest.raises(DataError, match="damaged"):
        store.extract(digest, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not store.holds(digest)
    assert store.add_bytes(b"abc") == digest
    assert store.read(digest) == b"abc"


def test_a_damaged_object_is_not_read(tmp_path: Path) -> None:
    store = _store(tmp_path)
    digest = store.add_bytes(b"abc")
    store.path(digest).chmod(0o644)
    store.path(digest).write_bytes(b"")
    with pytest.raises(DataError, match="damaged"):
        store.read(digest)
    assert not store.holds(digest)


def test_a_missing_object_is_named(tmp_path: Path) -> None:
    store = _store(tmp_path)
    digest = hashlib.sha256(b"never stored").hexdigest()
    assert not store.holds(digest)
    with pytest.raises(DataError, match=f"{digest[:12]}.*gone"):
        store.extract(digest, tmp_path / "out")
    with pytest.raises(DataError, match=f"{digest[:12]}.*gone"):
        store.read(digest)
    with pytest.raises(DataError, match="gone"):
        store.extract(digest + TREE, tmp_path / "folder")


def test_a_folder_without_one_of_its_files_is_not_held(tmp_path: Path) -> None:
    _make(tmp_path / "made", {"a": (b"1", False), "b": (b"2", False)})
    store = _store(tmp_path)
    digest = store.add(tmp_path / "made").digest
    store.path(hashlib.sha256(b"2").hexdigest()).unlink()
    assert not store.holds(digest)
    with pytest.raises(DataError, match="gone"):
        store.extract(digest, tmp_path / "out")


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/tmp/evil-of-nbtools"])
@pytest.mark.parametrize("mode", ["f", "d"])
def test_a_listing_that_leads_out_of_its_folder_is_refused(tmp_path: Path, name: str, mode: str) -> None:
    store = _store(tmp_path)
    content = store.add_bytes(b"evil")
    listing = json.dumps([[name, mode, 4, content]]).encode()
    digest = hashlib.sha256(listing).hexdigest() + TREE
    store.path(digest).parent.mkdir(exist_ok=True)
    store.path(digest).write_bytes(listing)
    with pytest.raises(DataError, match="leads out of it"):
        store.extract(digest, tmp_path / "out/folder")
    assert not list(tmp_path.rglob("evil*"))
    assert not Path("/tmp/evil-of-nbtools").exists()


def test_nothing_existing_is_overwritten(tmp_path: Path) -> None:
    store = _store(tmp_path)
    digest = store.add_bytes(b"abc")
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(FileExistsError):
        store.extract(digest, tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "mine"


def test_no_temporary_file_is_left(tmp_path: Path) -> None:
    store = _store(tmp_path)
    (tmp_path / "x").write_bytes(b"abc")
    store.add(tmp_path / "x")
    with pytest.raises(FileNotFoundError):
        store.add(tmp_path / "missing")
    assert not list(store.folder.rglob("*.tmp"))
