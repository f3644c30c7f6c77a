from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nbtools.pipeline.notebook import (
    CodeCell,
    NotebookFacts,
    NotebookFormatError,
    code_cells,
    code_digest,
    decode,
    encode,
    imports,
    read,
)


def _cell(source: str | list[str], *tags: str, kind: str = "code", **more: Any) -> dict[str, Any]:
    return {"cell_type": kind, "metadata": {"tags": list(tags)} if tags else {}, "source": source, **more}


def _text(*cells: Any, **more: Any) -> str:
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": list(cells), **more})


def _parameters(source: str) -> dict[str, str]:
    return dict(read(_text(_cell(source, "parameters"))).parameters)


# What counts


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x=1  # one"),
        ("x = 1", "\n\nx = (1)\n"),
        ("f(a, b)", "f(\n    a,\n    b,\n)"),
        ("x = 'a'", 'x = "a"'),
        ("", "# nothing\n\n"),
        ("%time x = 1", "%time x = 1\n\n# done"),
        ("%%time\nx = 1", "%%time\nx=1 # one"),
        ("!ls", "# list\n!ls"),
        ("if a:\n    %matplotlib inline", "if a:\n  %matplotlib inline"),
        ("this is (no Python", "this is (no Python  \n"),
    ],
)
def test_formatting_and_comments_do_not_count(one: str, other: str) -> None:
    assert code_digest(one) == code_digest(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = 2"),
        ("x = 1", "x = 1.0"),
        ("x = 1", "x = True"),
        ("x = 1", "y = 1"),
        ("x = 'a'", "x = 'a '"),
        ("x = 'a'", "x = b'a'"),
        ("# nothing", "pass"),
        ("a\nb", "b\na"),
        ("%time x = 1", "%time x = 2"),
        ("!ls", "!ls -l"),
        ("x = !ls", "x = !pwd"),
        ("x?", "y?"),
        ("%%bash\nls", "%%bash\nls -l"),
        ("%%bash\nls", "%%sh\nls"),
        ("%%bash\n# ls", "%%bash\n"),
        ("%%time\nx = 1", "%%time\nx = 2"),
        ("%%time\nx = 1", "x = 1"),
        ("this is (no Python", "this is [no Python"),
        ("x = '''\n# text\n'''", "x = '''\n'''"),
    ],
)
def test_whatever_runs_counts(one: str, other: str) -> None:
    assert code_digest(one) != code_digest(other)


def test_markdown_outputs_metadata_and_ids_do_not_count() -> None:
    plain = _text(_cell("x = 1"), _cell("y = 2"))
    rich = _text(
        _cell("# Story", kind="markdown"),
        _cell(
            ["x = ", "1"], "tag", outputs=[{"output_type": "stream", "text": "1"}], execution_count=3, id="a"
        ),
        _cell("raw", kind="raw"),
        _cell("# only a comment"),
        _cell("y = 2"),
        metadata={"kernelspec": {"name": "python3"}, "widgets": {}},
    )
    assert read(plain).code == read(rich).code
    assert len(read(rich).digests) == 3


def test_what_papermill_injected_is_no_cell_of_the_notebook() -> None:
    injected = _text(_cell("a = 1", "parameters"), _cell("a = 2", "injected-parameters"), _cell("import os"))
    facts = read(injected)
    assert facts == read(_text(_cell("a = 1", "parameters"), _cell("import os")))
    assert [cell.number for cell in code_cells(injected)] == [1, 2]
    assert [cell.index for cell in code_cells(injected)] == [0, 2]


def test_cells_are_counted_among_code_cells_only() -> None:
    (cell,) = code_cells(_text(_cell("# Title", kind="markdown"), _cell("x", "one", "two")))
    assert cell == CodeCell(1, 1, "x", code_digest("x"), ("one", "two"))


def test_odd_escapes_are_read_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert code_digest("x = '\\d'  # a") == code_digest("x = '\\d'")


# Params


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (
            "a = 1\nb = 1.5\nc = 'x'\nd = True\ne = None",
            {"a": "int", "b": "float", "c": "str", "d": "bool", "e": ""},
        ),
        (
            "a = [1]\nb = {}\nc = (1,)\nd = -3\ne = 1e-3",
            {"a": "list", "b": "dict", "c": "", "d": "int", "e": "float"},
        ),
        (
            "a: int = None\nb: 'str' = 1\nc: list[int] = []\nd: float",
            {"a": "int", "b": "", "c": "", "d": "float"},
        ),
        ("a = b = 2", {"a": "int", "b": "int"}),
        ("a, (b, *c) = 1, (2, 3)", {"a": "", "b": "", "c": ""}),
        ("from os import path\na = path.join('x')\nprint(a)", {"a": ""}),
        ("a = {}\na['k'] = 1\nos.environ['X'] = y", {"a": "dict"}),
        ("a = 1\na = 'x'", {"a": "str"}),
        ("if True:\n    a = 1\ndef f(): b = 2", {}),
        ("a += 1", {}),
        ("größe = 3  # comment", {"größe": "int"}),
        ("%matplotlib inline\na = 1", {"a": "int"}),
        ("a = 1\nb = (\nc == 3", {"a": "", "b": ""}),
        ("", {}),
    ],
)
def test_params_are_what_the_parameters_cell_assigns(source: str, found: dict[str, str]) -> None:
    assert _parameters(source) == found


def test_the_first_parameters_cell_counts() -> None:
    facts = read(_text(_cell("x"), _cell("a = 1", "parameters"), _cell("b = 1", "parameters")))
    assert (facts.parameters_cell, dict(facts.parameters)) == (2, {"a": "int"})
    assert facts.other_parameters_cells == (3,)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("%run helper.py", {"helper"}),
        ("%run -i ./lib/helper.py 1 2", {"lib.helper"}),
        ("if x:\n    %run 'helper.py'", {"helper"}),
        ("%run", set()),
        ("%time helper()", set()),
    ],
)
def test_a_file_that_is_run_counts_as_if_it_were_imported(line: str, found: set[str]) -> None:
    assert imports(line) == found


def test_a_notebook_without_a_parameters_cell_declares_nothing() -> None:
    facts = read(_text(_cell("a = 1")))
    assert (facts.parameters_cell, dict(facts.parameters)) == (0, {})


# Imports


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import a, b.c as d", {"a", "b.c"}),
        ("from a import b, c", {"a", "a.b", "a.c"}),
        ("from a import *", {"a"}),
        ("from . import x\nfrom ..y import z", {".", ".x", "..y", "..y.z"}),
        ("importlib.import_module('a.b')\n__import__('c')\nother.import_module('d')", {"a.b", "c"}),
        ("importlib.import_module(name)\n__import__()", set()),
        ("def f():\n    import a", {"a"}),
        ("%load_ext autoreload\nimport a", {"a"}),
        ("!pip install \\\n    x\nimport a, b\nfrom c import d", {"a", "b", "c", "c.d"}),
        ("%%bash\nimport a", set()),
        ("%%time\nimport a", {"a"}),
        ("# import a\n'import b'", set()),
        ("x" + ".a()" * 3_000, set()),
    ],
)
def test_imports_are_found_wherever_they_stand(source: str, found: set[str]) -> None:
    assert imports(source) == found


# Language


@pytest.mark.parametrize(
    ("metadata", "language", "kernel"),
    [
        ({}, "python", ""),
        (None, "python", ""),
        ({"kernelspec": {"name": "python3"}}, "python", "python3"),
        ({"kernelspec": {"name": "my-env", "language": "python"}}, "python", "my-env"),
        ({"kernelspec": {"name": "ir"}, "language_info": {"name": "R"}}, "r", "ir"),
        ({"kernelspec": {"name": "unknown"}}, "", "unknown"),
        ({"kernelspec": 3, "language_info": []}, "python", ""),
        ({"language_info": {"name": "ipython"}}, "python", ""),
    ],
)
def test_language_and_kernel_are_what_the_metadata_say(metadata: Any, language: str, kernel: str) -> None:
    facts = read(_text(_cell("x"), metadata=metadata))
    assert (facts.language, facts.kernel) == (language, kernel)


def test_params_of_another_language_are_found_too() -> None:
    text = _text(
        _cell("alpha <- 1\nbeta = 2\nprint(alpha == 1)", "parameters"),
        metadata={"language_info": {"name": "R"}},
    )
    assert dict(read(text).parameters) == {"alpha": "", "beta": ""}


# What is no notebook


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ("x = 1", "not valid JSON"),
        ('{"cells": [', r"not valid JSON \(line 1\)"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "its JSON is no object"),
        ("{}", "it has no cells"),
        ('{"cells": 3, "nbformat": 4}', "it has no cells"),
        ('{"nbformat": 3, "worksheets": []}', "old format 3"),
        ('{"worksheets": []}', "old format 3"),
        ('{"nbformat": 5, "cells": []}', "unknown format 5"),
        ('{"nbformat": "4", "cells": []}', "unknown format '4'"),
    ],
)
def test_what_is_no_notebook_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(NotebookFormatError, match=message):
        read(text)


def test_an_old_notebook_is_refused_with_the_way_to_convert_it() -> None:
    with pytest.raises(NotebookFormatError) as caught:
        read('{"nbformat": 3, "worksheets": []}')
    assert "jupyter nbconvert" in caught.value.fix


ODD_CELLS = st.recursive(
    st.none() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["cell_type", "source", "metadata", "tags", "code"]), inner, max_size=3
        )
    ),
    max_leaves=5,
)


@given(st.lists(ODD_CELLS, max_size=3), ODD_CELLS)
def test_any_cells_and_metadata_can_be_read(cells: list[Any], metadata: Any) -> None:
    assert isinstance(read(_text(*cells, metadata=metadata)), NotebookFacts)


@given(
    st.lists(
        st.sampled_from(["%", "!", "?", "x", " = ", "\n", "  ", "(", "'", "\\", "%%time", "é", "\ud800"])
    ).map("".join)
)
@example("%%")
@example("x = " + "1+" * 1_500 + "1")
@example("x = " + "(" * 500)
@example("\x00")
def test_any_source_can_be_read(source: str) -> None:
    facts = read(_text(_cell(source, "parameters")))
    assert decode(encode(facts)) == facts


def test_facts_come_back_as_they_were_kept() -> None:
    facts = read(_text(_cell("a = 1", "parameters"), _cell("import os, numpy.linalg"), _cell("# none")))
    assert decode(encode(facts)) == facts
    assert facts.imports == ("numpy.linalg", "os")
