from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nbtools.cli import text
from nbtools.execution.events import Failure

FAILURE = Failure(
    kind="error",
    message="ValueError: Input X contains NaN.\nLinearRegression does not accept missing values",
    cell=5,
    line=3,
    excerpt="  2 │ model = LinearRegression()\n→ 3 │ model.fit(X, y)\n  4 │ model.score(X, y)",
    traceback="Cell In[5], line 3\n\nFile ~/lib/sklearn/base.py:1365, in fit(self, X)\n  1365 raise\n",
    notebook=".nbtools/runs/r/fit.ipynb",
    fix="drop rows without a value",
)


# Nothing from a notebook moves the cursor


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[1;1Hgone", "gone"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]never ends\nnext", "never ends\nnext"),
        ("\x9b31mred", "red"),
        ("50%\r100%\b\x07\x7f", "50%100%"),
        ("a\u202eb\u2066c", "abc"),
        ("\x1b\x1b[0m[2J", "[2J"),
        ("a\tb\r\nc", "a\tb\nc"),
        ("\ud800", "\ufffd"),
        ("grün 数据 😀", "grün 数据 😀"),
    ],
)
def test_strip_ansi_leaves_only_what_no_terminal_obeys(written: str, shown: str) -> None:
    assert text.strip_ansi(written) == shown


@given(
    st.lists(st.sampled_from(["\x1b", "[", "]", "31m", "\x9b", "\x07", "\\", "x", "\x1b]", "\x90"])).map(
        "".join
    )
)
@example("\x1b]\x1b]\x1b[[\x07")
def test_no_mixture_of_sequences_survives(written: str) -> None:
    assert text.strip_ansi(written).isprintable()


def test_stripping_many_unfinished_sequences_takes_linear_time() -> None:
    assert text.strip_ansi("\x1b]" * 200_000) == ""


@given(st.text(), st.text())
def test_the_failure_block_cannot_move_the_cursor(message: str, source: str) -> None:
    hostile = Failure(
        "error", f"\x1b[2J{message}", 1, 1, f"→ 1 │ \x1b[A{source}", "\x1b[H", "\x1b]0;x\x07a.ipynb", "\r"
    )
    block = text.failure("s\x1b[1A", "n\x1b[1A", hostile, color=False)
    assert all(char == "\n" or char == text.strip_ansi(char) for char in block)


def test_a_path_is_quoted_for_the_shell() -> None:
    assert text.quoted("a b/ü'.ipynb") == "'a b/ü'\"'\"'.ipynb'"
    assert text.quoted("a/b.ipynb") == "a/b.ipynb"


# The failure block


def test_the_failure_block_says_where_why_and_how_to_look() -> None:
    block = text.failure("train.fit", "notebooks/04_fit.ipynb", FAILURE, color=False)
    assert block.splitlines() == [
        "✗ train.fit failed",
        "  notebooks/04_fit.ipynb, cell 5, line 3",
        "",
        "      2 │ model = LinearRegression()",
        "    → 3 │ model.fit(X, y)",
        "      4 │ model.score(X, y)",
        "",
        "  ValueError: Input X contains NaN.",
        "  LinearRegression does not accept missing values",
        "  raised at ~/lib/sklearn/base.py:1365, in fit(self, X)",
        "",
        "  fix:      drop rows without a value",
        "  executed: .nbtools/runs/r/fit.ipynb",
        "  open:     nbtools open train.fit",
    ]


def test_colour_adds_nothing_but_colour() -> None:
    plain = text.failure("train.fit", "n.ipynb", FAILURE, color=False)
    colored = text.failure("train.fit", "n.ipynb", FAILURE, color=True)
    assert colored != plain
    assert text.strip_ansi(colored) == plain


def test_a_failure_without_a_cell_says_what_kind_it_is() -> None:
    block = text.failure("a.b", "n.ipynb", Failure("timeout", "took longer than 30 m"), color=False)
    assert block.splitlines() == ["✗ a.b failed", "  n.ipynb (timeout)", "", "  took longer than 30 m"]


def test_a_dead_kernels_last_words_are_shown() -> None:
    failure = Failure(
        "kernel died", "the kernel died", traceback="the kernel's last words:\nSegmentation fault"
    )
    block = text.failure("a.b", "n.ipynb", failure, color=False)
    assert "Segmentation fault" in block


def test_endless_messages_and_lines_are_cut() -> None:
    failure = Failure("error", "line\n" * 1000, 1, 1, "→ 1 │ " + "x" * 100_000)
    block = text.failure("a.b", "n.ipynb", failure, color=False)
    assert len(block.splitlines()) < 30
    assert max(map(len, block.splitlines())) < 200
    assert "989 more lines in the notebook" in block


# Tables


def test_a_table_aligns_columns() -> None:
    assert text.table(["stage", "took"], [["fit", "12 s"], ["evaluate", None]], align="<>").splitlines() == [
        "stage     took",
        "fit       12 s",
        "evaluate",
    ]


def test_a_table_cuts_its_widest_text_column_and_no_number() -> None:
    made = text.table(["a", "message", "n"], [["abc", "a long message", "123456"]], width=22, align="<<>")
    assert made.splitlines() == ["a    message         n", "abc  a long m…  123456"]


def test_a_table_counts_wide_letters_twice() -> None:
    lines = text.table(["name", "x"], [["数据", "1"], ["abcd", "2"]]).splitlines()
    assert lines == ["name  x", "数据  1", "abcd  2"]


@given(
    st.lists(st.tuples(st.text(), st.text(max_size=9), st.integers()), max_size=6),
    st.integers(1, 60),
    st.sampled_from(["", "<<>", ">>>"]),
)
def test_no_line_of_a_table_is_wider_than_asked(
    rows: list[tuple[str, str, int]], width: int, align: str
) -> None:
    lines = text.table(["first", "second", "n"], rows, width=width, align=align).split("\n")
    assert len(lines) == len(rows) + 1
    assert all(text.display_width(line) <= width for line in lines)


@given(st.text(), st.integers(0, 30), st.sampled_from("<>"))
def test_padding_fills_exactly(written: str, width: int, align: str) -> None:
    shown = text.plain(written)
    assert text.display_width(text.padded(shown, width, align)) == width


# Values


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 ms"),
        (-3, "0 ms"),
        (0.3, "0.3 s"),
        (9.96, "10 s"),
        (12, "12 s"),
        (59.7, "1 m 00 s"),
        (185, "3 m 05 s"),
        (3599.9, "1 h 00 m"),
        (7800, "2 h 10 m"),
        (86_400, "1 d 00 h"),
    ],
)
def test_durations_read_well(seconds: float, shown: str) -> None:
    assert text.duration(seconds) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-100, "just now"),
        (9, "just now"),
        (40, "40 s ago"),
        (61, "1 min ago"),
        (7300, "2 h ago"),
        (90_000, "1 d ago"),
        (86_400 * 800, "2 y ago"),
    ],
)
def test_ages_read_well(seconds: float, shown: str) -> None:
    assert text.age(1_000_000_000, 1_000_000_000 + seconds) == shown


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1024**2 - 1, "1.0 MiB"), (5 << 40, "5.0 TiB")],
)
def test_sizes_read_well(size_bytes: int, shown: str) -> None:
    assert text.size(size_bytes) == shown


def test_a_moment_is_local_time_to_the_minute() -> None:
    assert len(text.moment(1_795_000_000)) == len("2026-11-23 05:12")


def test_a_stopwatch_counts_hours_when_there_are_some() -> None:
    assert text.stopwatch(75) == "01:15"
    assert text.stopwatch(3675) == "1:01:15"


# Streams that cannot carry everything


def test_symbols_become_ascii_one_for_one() -> None:
    shown = text.encodable("✓ train.fit │ → … ━ 数", "ascii")
    assert shown == "+ train.fit | > ~ = ?"


def test_text_that_a_stream_can_carry_is_left_alone() -> None:
    assert text.encodable("✓ ü", "utf-8") == "✓ ü"
    assert text.encodable("ü", "latin-1") == "ü"
    assert text.encodable("ü", "no such encoding") == "?"


@pytest.mark.parametrize("state", ["passed", "failed", "running", "up to date", "restored", "skipped", "odd"])
def test_every_state_has_a_sign_of_one_column(state: str) -> None:
    assert text.display_width(text.symbol(state)) == 1
    assert text.symbol(state, ascii_only=True).isascii()
