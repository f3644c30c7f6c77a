from __future__ import annotations

import base64
import json
import urllib.parse
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nbtools.execution.masking import MASK, Masking

SECRET = 'p@ss "wörd"/\\1'


# Masking


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        json.dumps(SECRET)[1:-1],
        repr(SECRET)[1:-1],
        urllib.parse.quote(SECRET, safe=""),
        base64.b64encode(SECRET.encode()).decode(),
    ],
    ids=["plain", "json", "repr", "url", "base64"],
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


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_without_secrets_nothing_changes(value: Any) -> None:
    assert Masking({}).value(value) == value
