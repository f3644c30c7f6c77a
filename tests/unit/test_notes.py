"""Notes of runs lead to their commit, and never show a password."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbtools.tracking.notes import commit_link

COMMIT = "c0ffee12" * 5
LINK = f"[c0ffee12](https://forge.example/me/delays/commit/{COMMIT})"


@pytest.mark.parametrize(
    "remote",
    [
        "https://forge.example/me/delays.git",
        "https://forge.example/me/delays",
        "https://me:p%40ss@forge.example/me/delays.git",
        "git@forge.example:me/delays.git",
        "ssh://git@forge.example:2222/me/delays.git",
    ],
)
def test_remotes_of_forges_give_a_link_to_the_commit(remote: str) -> None:
    assert commit_link(remote, COMMIT) == LINK


@pytest.mark.parametrize("remote", ["", "../elsewhere", "/srv/git/delays.git", "file:///srv/delays.git"])
def test_other_remotes_give_none(remote: str) -> None:
    assert commit_link(remote, COMMIT) == ""


def test_project_without_a_commit_has_none() -> None:
    assert commit_link("https://forge.example/me/delays.git", "") == ""


@given(st.text(), st.text("abcdef0123456789", min_size=1))
def test_no_text_breaks_out_of_the_link(remote: str, commit: str) -> None:
    link = commit_link(f"https://forge.example/{remote}", commit)
    assert link.count("](") <= 1
    assert not set(link) & set("\n\r<>`")
