from __future__ import annotations

import gzip
import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from hypothesis import example, given
from hypothesis import strategies as st

from nbtools.execution.kernels import output
from nbtools.execution.kernels.output import CellText, Spill, without
from nbtools.execution.masking import MASK, Masking

GAP = re.compile(r"\n?… ([\d,]+) characters left out[^\n]* …\n")
STREAMS = st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.text("ab", max_size=30)), max_size=40)


def _kept(outputs: list[Any]) -> str:
    return "".join(item.text for item in outputs)


@given(STREAMS, st.integers(2, 60))
def test_text_keeps_its_beginning_and_its_end_and_says_how_much_is_missing(
    parts: list[tuple[str, str]], limit: int
) -> None:
    outputs: list[Any] = []
    kept = CellText(outputs, limit, overhead=0)
    for name, text in parts:
        kept.add(name, text)
    kept.close()

    whole = "".join(text for _, text in parts)
    if not kept.dropped:
        assert _kept(outputs) == whole
        return
    head, missing, tail = GAP.split(_kept(outputs), maxsplit=1)
    assert whole.startswith(head)
    assert whole.endswith(tail)
    assert len(head) + int(missing.replace(",", "")) + len(tail) == len(whole)
    assert len(tail) <= limit // 2


def test_text_that_fits_is_kept_whole_and_in_order() -> None:
    outputs: list[Any] = []
    kept = CellText(outputs)
    for number in range(100):
        kept.add("stdout" if number % 2 else "stderr", f"{number}\n")
    kept.close()
    assert [item.name for item in outputs] == ["stderr", "stdout"] * 50
    assert _kept(outputs) == "".join(f"{number}\n" for number in range(100))


def test_a_million_short_outputs_are_bounded_too() -> None:
    outputs: list[Any] = []
    kept = CellText(outputs)
    for number in range(200_000):
        kept.add("stdout" if number % 2 else "stderr", "x\n")
        kept.empty_outputs()
    kept.add("stdout", "the end")
    kept.close()
    assert len(outputs) < 2 * output.KEPT_CHARACTERS / 200
    assert _kept(outputs).endswith("the end")
    assert kept.dropped


def test_outputs_between_stay_where_they_are() -> None:
    figure = nbformat.v4.new_output("display_data", data={"text/plain": "a figure"})
    outputs: list[Any] = []
    kept = CellText(outputs, 2_000)
    for number in range(2_000):
        kept.add("stdout" if number % 2 else "stderr", "x" * 10)
        if number == 1_000:
            outputs.append(figure)
        gone = kept.empty_outputs()
        assert all(without(gone, place) >= 0 for place in range(max(gone, default=0) + 1, 2_000))
    kept.close()
    assert outputs.index(figure) < len(outputs) - 1


def test_fifty_megabytes_are_kept_in_two_parts_and_whole_beside(tmp_path: Path) -> None:
    outputs: list[Any] = []
    spill = Spill(tmp_path / "cell-1.txt.gz", "x.printed/cell-1.txt.gz")
    kept = CellText(outputs, spill=spill)
    for _ in range(50):
        kept.add("stdout", "x" * 1_000_000)
    kept.add("stdout", "the end")
    kept.close()
    assert len(_kept(outputs)) < 1_000_200
    assert "the whole is in x.printed/cell-1.txt.gz" in _kept(outputs)
    assert gzip.decompress(spill.path.read_bytes()) == b"x" * 50_000_000 + b"the end"


def test_nothing_is_written_beside_while_nothing_is_left_out(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "cell-1.txt.gz", "")
    kept = CellText([], spill=spill)
    kept.add("stdout", "x" * 1_000_000)
    kept.close()
    assert not spill.path.exists()


SECRET = "hunter2secret"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["stdout", "stderr"]),
            st.sampled_from([SECRET, "hunter2", "secret", "x", "\n", "hunt", "er2secret", "y" * 50_000]),
        ),
        max_size=30,
    )
)
@example([("stdout", "hunter2"), ("stderr", "secret")])
@example([("stdout", "hunter2"), ("stderr", "y" * 50_000), ("stdout", "secret")])
def test_no_secret_is_beside_however_it_is_cut(parts: list[tuple[str, str]]) -> None:
    masking = Masking({"A": SECRET})
    with tempfile.TemporaryDirectory() as folder:
        spill = Spill(Path(folder, "s.gz"), "", masking)
        for name, text in parts:
            spill.write(text, name)
        spill.close()
        found = gzip.decompress(spill.path.read_bytes()).decode() if spill.path.exists() else ""
    assert SECRET not in found
    if {name for name, _ in parts} == {"stdout"}:
        assert found == masking.text("".join(text for _, text in parts))


@given(STREAMS, st.integers(0, 200), st.integers(2, 200))
def test_no_part_of_a_secret_stands_where_text_is_left_out(
    parts: list[tuple[str, str]], before: int, limit: int
) -> None:
    outputs: list[Any] = []
    kept = CellText(outputs, limit, masking=Masking({"A": SECRET}), overhead=0)
    for name, text in [("stdout", "a" * before), ("stdout", SECRET), *parts, ("stdout", SECRET)]:
        kept.add(name, text)
        kept.fill()
    kept.close()
    shown = GAP.sub("|", _kept(outputs)) if kept.dropped else _kept(outputs)
    assert set(shown) <= set("ab|" + MASK)


def test_secret_with_another_stream_in_its_middle_is_masked() -> None:
    outputs: list[Any] = []
    kept = CellText(outputs, masking=Masking({"A": SECRET}))
    for name, text in [("stdout", "<hunter2"), ("stderr", "!"), ("stdout", "secret>")]:
        kept.add(name, text)
    kept.close()
    assert [item.text for item in outputs] == [f"<{MASK}", "!", ">"]


def test_error_is_masked_before_it_is_cut() -> None:
    masking = Masking({"A": SECRET})
    content = {"evalue": "x" * 9_995 + SECRET, "traceback": ["x" * 99_995 + SECRET, SECRET]}
    found = output.shortened_error(content, masking)
    assert "hunt" not in found["evalue"] + found["traceback"][0]
    assert "more characters" in found["evalue"]
