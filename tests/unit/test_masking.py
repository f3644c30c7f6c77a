from __future__ import annotations

import base64
import html
import json
import urllib.parse
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nbtools.execution.masking import MASK, Masking

SECRET = 'p@ss "wörd"/\\1<&\''


JINJA: dict[str, str | int | None] = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;"}

# Masking


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        json.dumps(SECRET)[1:-1],
        json.dumps(SECRET, ensure_ascii=False)[1:-1],
        repr(SECRET)[1:-1],
        ascii(SECRET)[1:-1],
        repr(SECRET.encode())[2:-1],
        html.escape(SECRET),
        html.escape(SECRET, quote=False),
        SECRET.translate(str.maketrans(JINJA)),
        urllib.parse.quote(SECRET, safe=""),
        urllib.parse.quote(SECRET),
        urllib.parse.urlencode({"": SECRET})[1:],
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
    ],
    ids=[
        *(
            "plain",
            "json",
            "json in Unicode",
            "repr",
            "ascii",
            "bytes",
            "html",
            "html of pandas",
            "html of jinja",
        ),
        *("url", "path of a url", "form", "base64", "base64 of urls"),
    ],
)
def test_a_secret_is_masked_in_every_usual_form(form: str) -> None:
    shown = Masking({"TOKEN": SECRET}).text(f"before {form} after")
    assert form not in shown
    assert shown.startswith(f"before {MASK}")
    assert shown.endswith(" after")


def test_secrets_are_masked_in_keys_and_values_at_any_depth() -> None:
    masking = Masking({"A": "secret-a", "B": "secret-b"})
    value = {"secret-a": ["x secret-b", {"k": ("secret-a", 1, None, True)}]}
    assert masking.value(value) == {MASK: [f"x {MASK}", {"k": (MASK, 1, None, True)}]}


def test_the_lines_of_a_secret_are_masked_one_by_one() -> None:
    shown = Masking({"KEY": "-----BEGIN KEY-----\nabcdefghij\n-----END KEY-----"}).text("> abcdefghij <")
    assert shown == f"> {MASK} <"


def test_a_secret_that_contains_another_is_masked_whole() -> None:
    assert Masking({"A": "long", "B": "longer-secret"}).text("longer-secret") == MASK


@pytest.mark.parametrize("short", ["", "a", "abc"])
def test_a_value_too_short_to_be_secret_masks_nothing(short: str) -> None:
    assert Masking({"A": short}).text("abc abc") == "abc abc"


@given(
    st.text(min_size=4, alphabet=st.characters(codec="utf-8", exclude_characters=MASK)), st.text(), st.text()
)
@example("not UTF-8 \udc80", "", "")
def test_no_secret_is_left_in_any_text(secret: str, before: str, after: str) -> None:
    assert secret not in Masking({"A": secret}).text(before + secret + after)


PIECES = st.lists(
    st.tuples(
        st.sampled_from(["stdout", "stderr"]),
        st.text("ab", max_size=5)
        | st.sampled_from(["hunter2", "secret", "hunt", "er2secret", "hunter2secret"]),
    ),
    max_size=12,
)


@given(PIECES)
@example([("stdout", "hunter2"), ("stderr", "x"), ("stdout", "secret")])
def test_secret_in_pieces_of_one_stream_is_masked_whatever_comes_between(
    pieces: list[tuple[str, str]],
) -> None:
    masking = Masking({"A": "hunter2secret"})
    masked = masking.pieces(pieces)
    for stream in ("stdout", "stderr"):
        before = "".join(text for name, text in pieces if name == stream)
        after = "".join(text for (name, _), text in zip(pieces, masked, strict=True) if name == stream)
        assert after == masking.text(before) == before.replace("hunter2secret", MASK)


@pytest.mark.parametrize("cut", range(1, len("hunter2secret")))
def test_halves_of_a_secret_are_masked_where_a_text_was_cut(cut: int) -> None:
    masking = Masking({"A": "hunter2secret"})
    first, last = "hunter2secret"[:cut], "hunter2secret"[cut:]
    assert masking.text(f"- {first}", ends_cut=True) == f"- {MASK}"
    assert masking.text(f"{last} -", begins_cut=True) == f"{MASK} -"
    assert masking.text(last, begins_cut=True) == MASK
    assert masking.text(f"- {first} {last} -", begins_cut=True, ends_cut=True) == f"- {first} {last} -"


def test_secrets_that_overlap_are_masked_together() -> None:
    assert Masking({"A": "hunter2sec", "B": "secret99"}).text("<hunter2secret99>") == f"<{MASK}>"


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_without_secrets_nothing_changes(value: Any) -> None:
    assert Masking({}).value(value) == value
