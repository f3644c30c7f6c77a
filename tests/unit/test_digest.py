from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbtools.execution.digest import TREE, Entry, Memo, read_listing, tree_listing

LONG_AGO_NS = 1_000_000_000_000_000_000


def _age(path: Path) -> os.stat_result:
    """Make ``path`` look as if it had been written long ago, in its mtime."""
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    return path.stat()


def _digest(path: Path) -> str:
    found = Memo().measure(path)
    assert found is not None
    return found.digest


def _folder(root: Path) -> Path:
    folder = root / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "deep/b.txt").write_text("bb")
    (folder / "link").symlink_to("a.txt")
    (folder / "deeper").symlink_to("deep")
    return folder


def test_a_link_that_leads_out_counts_as_the_file_that_it_leads_to(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    (tmp_path / "outside").write_text("one")
    (folder / "link").unlink()
    (folder / "link").symlink_to("../outside")
    before = _digest(folder)
    (tmp_path / "outside").write_text("two")
    assert _digest(folder) != before


def test_what_is_neither_file_nor_folder_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="neither a file nor a folder"):
        _digest(tmp_path / "pipe")
    with pytest.raises(OSError, match="neither a file nor a folder"):
        _digest(tmp_path)


def test_a_file_is_measured_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    found = Memo().measure(tmp_path / "x")
    assert found is not None
    assert (found.digest, found.size_bytes) == (hashlib.sha256(b"abc").hexdigest(), 3)


def test_nothing_there_has_no_digest(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert Memo().measure(tmp_path / "none") is None
    assert Memo().measure(tmp_path / "file/below") is None


def _append(folder: Path) -> None:
    with (folder / "a.txt").open("a") as stream:
        stream.write("!")


def _retarget(folder: Path) -> None:
    (folder / "link").unlink()
    (folder / "link").symlink_to("deep/b.txt")


def _copied_in_place_of_a_link(folder: Path) -> None:
    (folder / "deeper").unlink()
    (folder / "deeper").mkdir()
    (folder / "deeper/b.txt").write_text("bb")


CHANGES: dict[str, Callable[[Path], object]] = {
    "edited": _append,
    "renamed": lambda folder: (folder / "a.txt").rename(folder / "c.txt"),
    "moved": lambda folder: (folder / "a.txt").rename(folder / "deep/a.txt"),
    "removed": lambda folder: (folder / "a.txt").unlink(),
    "added": lambda folder: (folder / "new").touch(),
    "empty folder added": lambda folder: (folder / "empty").mkdir(),
    "made executable": lambda folder: (folder / "a.txt").chmod(0o755),
    "link retargeted": _retarget,
    "link made a folder": _copied_in_place_of_a_link,
    "swapped": lambda folder: [(folder / "a.txt").write_text("bb"), (folder / "deep/b.txt").write_text("a")],
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_folder_has_another_digest_when_something_in_it_changed(tmp_path: Path, change: str) -> None:
    folder = _folder(tmp_path)
    before = _digest(folder)
    assert before.endswith(TREE)
    CHANGES[change](folder)
    assert _digest(folder) != before


def test_times_and_names_outside_do_not_count(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    before = _digest(folder)
    _age(folder / "a.txt")
    folder.rename(tmp_path / "elsewhere")
    assert _digest(tmp_path / "elsewhere") == before


def test_a_folder_is_as_large_as_its_files(tmp_path: Path) -> None:
    found = Memo().measure(_folder(tmp_path))
    assert found is not None
    assert found.size_bytes == 3


@given(
    st.lists(st.builds(Entry, st.text(), st.sampled_from("fxd"), st.integers(0), st.text("0123456789abcdef")))
)
def test_a_listing_is_read_as_it_was_written_whatever_the_order(entries: list[Entry]) -> None:
    listing = tree_listing(entries)
    assert sorted(map(repr, read_listing(listing))) == sorted(map(repr, entries))
    assert tree_listing(entries[::-1]) == listing


# The memo


def _signature(path: Path, digest: str) -> tuple[int, int, int, int, str]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, digest


def test_an_unchanged_file_is_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("abc")
    memo = Memo({str(path): _signature(path, "remembered")})
    assert memo.file(path, path.stat()) == "remembered"


def test_a_change_with_the_same_size_and_time_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("abc")
    _age(path)
    memo = Memo({str(path): _signature(path, "remembered")})
    path.write_text("abd")
    status = _age(path)
    assert status.st_mtime_ns == LONG_AGO_NS
    assert memo.file(path, status) == hashlib.sha256(b"abd").hexdigest()


def test_another_file_of_the_same_size_and_time_is_noticed(tmp_path: Path) -> None:
    path, other = tmp_path / "x", tmp_path / "y"
    path.write_text("abc")
    other.write_text("xyz")
    _age(path)
    memo = Memo({str(path): _signature(path, "remembered")})
    _age(other)
    other.replace(path)
    assert memo.file(path, path.stat()) == hashlib.sha256(b"xyz").hexdigest()


def test_a_file_written_just_now_is_not_remembered(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("abc")
    memo = Memo()
    memo.file(path, path.stat())
    assert memo.fresh == {}


def test_an_older_file_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_text("abc")
    status = path.stat()
    monkeypatch.setattr("nbtools.execution.digest.time.time_ns", lambda: status.st_ctime_ns + 200_000_000)
    memo = Memo()
    digest = memo.file(path, status)
    assert memo.fresh == {str(path): _signature(path, digest)}
