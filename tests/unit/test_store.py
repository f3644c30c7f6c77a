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


def _damage(store: Store, digest: str, content: bytes) -> None:
    store.path(digest).chmod(0o644)
    store.path(digest).write_bytes(content)


@pytest.mark.parametrize("damaged", [b"abd", b"", b"abcabc"], ids=["other bytes", "emptied", "longer"])
def test_good_bytes_replace_a_damaged_object(tmp_path: Path, damaged: bytes) -> None:
    _make(tmp_path / "made", {"f": (b"abc", False)})
    store = _store(tmp_path)
    digest = store.add_bytes(b"abc")
    _damage(store, digest, damaged)
    store.add_bytes(b"abc")
    assert store.read(digest) == b"abc"
    _damage(store, digest, damaged)
    store.add(tmp_path / "made/f")
    assert store.read(digest) == b"abc"
    tree = store.add(tmp_path / "made").digest
    _damage(store, tree, damaged)
    _damage(store, digest, damaged)
    assert store.add(tmp_path / "made").digest == tree
    assert all(store.is_sound(part) for part in store.parts(tree))


def test_what_an_object_lies_in_is_synced_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def recorded(handle: int) -> None:
        synced.append(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", recorded)
    (tmp_path / "x").write_bytes(b"abc")
    by_file = _store(tmp_path / "one").add(tmp_path / "x").digest
    by_bytes = _store(tmp_path / "two").add_bytes(b"abcd")
    for folder, digest in (("one", by_file), ("two", by_bytes)):
        made = [".", folder, f"{folder}/store", f"{folder}/store/{digest[:2]}"]
        inodes = [(tmp_path / path).stat().st_ino for path in made]
        assert [inode for inode in synced if inode in inodes[1:]] == inodes[1:]
    assert synced.count(tmp_path.stat().st_ino) == 2


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


def test_links_within_a_folder_come_back_as_links(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    _make(folder, {"d": {"f": (b"abc", False)}, "e": {}})
    for name, target in {"ld": "d", "lf": "d/f", "e/up": "../d/f", "gone": "nowhere"}.items():
        (folder / name).symlink_to(target)
    store = _store(tmp_path)
    found = store.add(folder)
    assert found == Memo().measure(folder)
    assert found.size_bytes == 3
    store.extract(found.digest, tmp_path / "out")
    links = {str(path.relative_to(tmp_path / "out")): os.readlink(path) for path in _links(tmp_path / "out")}
    assert links == {"ld": "d", "lf": "d/f", "e/up": "../d/f", "gone": "nowhere"}
    assert Memo().measure(tmp_path / "out") == found
    assert sorted(store.parts(found.digest)) == sorted([found.digest, hashlib.sha256(b"abc").hexdigest()])


def _links(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_symlink()]


def test_a_link_to_a_folder_elsewhere_is_not_stored(tmp_path: Path) -> None:
    _make(tmp_path / "made", {"d": {}})
    (tmp_path / "made/out").symlink_to(tmp_path)
    with pytest.raises(DataError, match="'out' in a folder leads out of it"):
        _store(tmp_path).add(tmp_path / "made")


@pytest.mark.parametrize(
    "entries",
    [
        [["evil", "l", 0, "/tmp"]],
        [["evil", "l", 0, "../x"]],
        [["d/evil", "l", 0, "../d/../../x"]],
        [["a", "l", 0, "."], ["a/evil", "l", 0, "../x"]],
        [["a", "l", 0, "."], ["a/evil", "f", 4, hashlib.sha256(b"evil").hexdigest()]],
    ],
)
def test_a_listing_makes_no_link_that_leads_out_and_follows_none(
    tmp_path: Path, entries: list[list[object]]
) -> None:
    store = _store(tmp_path)
    store.add_bytes(b"evil")
    listing = json.dumps(entries).encode()
    digest = store.add_bytes(listing)
    store.path(digest).rename(store.path(digest + TREE))
    with pytest.raises((DataError, FileExistsError)):
        store.extract(digest + TREE, tmp_path / "out")
    assert not any(path.resolve() == tmp_path / "x" for path in _links(tmp_path / "out"))
    assert not (tmp_path / "out/evil").exists()


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
