from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nbtools.pipeline.marked_yaml import dotted, parse, parse_value
from nbtools.pipeline.spec import Location

TEXTS = st.text("ab:- #\"'[{&*!|>%@\n\té数😀~=<01.", max_size=6)
PLACE = re.compile(r"f:[1-9]\d*:[1-9]\d*")
BOMB = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


# Types


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("FALSE", False),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("NO", "NO"),
        ("y", "y"),
        ("tRue", "tRue"),
        ("", None),
        ("~", None),
        ("Null", None),
        ("none", "none"),
        ("12", 12),
        ("-0", 0),
        ("+7", 7),
        ("012", 12),
        ("0o17", 15),
        ("0xfF", 255),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("12:30:45", "12:30:45"),
        ("1.5", 1.5),
        ("1.", 1.0),
        (".5", 0.5),
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        ("-.inf", -math.inf),
        ("inf", "inf"),
        ("1.2.3", "1.2.3"),
        ("2013-01-01", "2013-01-01"),
        ("2013-01-01 10:00:00", "2013-01-01 10:00:00"),
        ("'12'", "12"),
        ('"true"', "true"),
        ("!!str 12", "12"),
        ("=", "="),
        ("[1, a]", [1, "a"]),
        ("{a: 1}", {"a": 1}),
        ("|\n  one\n  two", "one\ntwo"),
    ],
)
def test_scalars_are_typed_as_yaml_1_2_says(text: str, value: Any) -> None:
    found = parse_value(text)
    assert found == value
    assert type(found) is type(value)


def test_nan_is_a_number() -> None:
    assert math.isnan(parse_value(".NaN"))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | TEXTS | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
        max_leaves=8,
    )
)
def test_what_json_writes_is_read_as_it_was(value: Any) -> None:
    assert parse_value(json.dumps(value, ensure_ascii=False)) == value


# Places


def test_every_part_knows_its_line_and_column() -> None:
    tree = parse("a:\n  bé: [1, {c: 2}]\n", "f")
    assert tree.value == {"a": {"bé": [1, {"c": 2}]}}
    assert tree.place(("a", "bé")) == Location("f", 2, 3)
    assert tree.place(("a", "bé", 0)) == Location("f", 2, 8)
    assert tree.place(("a", "bé", 1, "c")) == Location("f", 2, 12)


def test_what_is_not_there_has_the_place_of_what_is_around_it() -> None:
    tree = parse("a:\n  b: 1\n", "f")
    assert tree.place(("a", "x", "y")) == Location("f", 1, 1)
    assert parse("", "f").place(("a",)) is None


def test_paths_are_written_with_dots_and_brackets() -> None:
    assert dotted(("pipelines", "a", "inputs", 0)) == "pipelines.a.inputs[0]"
    assert dotted(()) == ""


# Mistakes


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "f:3:1", "the key 'a' stands here twice (first in line 1)"),
        ("x: {b: 1, b: 2}\n", "f:1:11", "the key 'b' stands here twice"),
        ("a:\n\tb: 1\n", "f:2:1", "a tab indents this line"),
        ("a: b: c\n", "f:1:5", "not valid YAML"),
        ("a: [1\n", "f:2:1", "not valid YAML"),
        ("a: 'open\n", "f:2:1", "not valid YAML"),
        ("é: é\x00", "f:1:5", "the character U+0000 is not allowed"),
        ("é: 1\né\x07: 2", "f:2:2", "the character U+0007 is not allowed"),
        ("a: é\ud800", "f:1:5", "the character U+D800 is not allowed"),
        ("a: *nowhere\n", "f:1:4", "undefined alias"),
        ("a: &x [1, *x]\n", "f:1:4", "contains itself"),
        ("a: &x {b: *x}\n", "f:1:4", "contains itself"),
        (BOMB, "f:1:22", "aliases expand"),
        ("[" * 150 + "]" * 150, "f:1:102", "nested too deeply"),
        ("[" * 50_000, "f:1:101", "nested too deeply"),
        ("[\n" * 3_000, "f:101:1", "nested too deeply"),
        ("- " * 5_000, "f:1:201", "nested too deeply"),
        ("a: 1\n---\nb: 2\n", "f:2:1", "single document"),
        ("1: a\n", "f:1:1", "the key '1' is no text"),
        ("true: a\n", "f:1:1", "the key 'true' is no text"),
        ("[a]: b\n", "f:1:1", "a key must be a plain text"),
        ("a: &a {b: 1}\nc:\n  <<: *a\n", "f:3:3", "merge keys"),
        ("a: !!python/object/apply:os.system [x]\n", "f:1:4", "cannot be used here"),
        ("a: !!set {x}\n", "f:1:4", "!!set cannot be used here"),
        ("a: !!python/name:os.system x\n", "f:1:4", "cannot be used here"),
        ("a: !!binary aGk=\n", "f:1:4", "!!binary cannot be used"),
        ("a: !local x\n", "f:1:4", "cannot be used here"),
        ("a: !!int many\n", "f:1:4", "unreadable int"),
        ("a: !!bool maybe\n", "f:1:4", "unreadable bool"),
        ("a: " + "9" * 5_000, "f:1:4", "unreadable int"),
    ],
)
def test_every_mistake_has_its_line_and_column(text: str, where: str, message: str) -> None:
    problem = parse(text, "f").problems[0]
    assert problem.where == where
    assert message in problem.message


def test_all_mistakes_are_found_at_once() -> None:
    tree = parse("a: 1\na: 2\n1: x\nb: !!int y\n", "f")
    assert [problem.where for problem in tree.problems] == ["f:2:1", "f:3:1", "f:4:4"]


def test_the_first_of_two_equal_keys_counts() -> None:
    assert parse("a: 1\na: 2\n", "f").value == {"a": 1}


def test_an_alias_may_stand_in_several_places() -> None:
    assert parse_value("[&x {a: 1}, *x, *x]") == [{"a": 1}] * 3


def test_a_hundred_levels_are_fine() -> None:
    assert parse("[" * 100 + "]" * 100, "f").problems == []


@pytest.mark.parametrize("text", ["[1", "a: b: c", "a: *x", "!!int x"])
def test_a_value_that_is_no_yaml_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"YAML|cannot be used"):
        parse_value(text)


# Nothing raises

YAML_PIECES = [
    "a",
    ": ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    "\n",
    "  ",
    "\t",
    "&x ",
    "*x",
    "!!int ",
    "|",
    ">",
    "'",
    '"',
    "#",
]
ODD_TEXTS = st.text() | st.lists(st.sampled_from([*YAML_PIECES, "? ", "<<", "%", "\x00", "é", "\ud800"])).map(
    "".join
)


@given(ODD_TEXTS)
@example("\ufeff")
@example("&x *x")
@example("? &x [*x]")
@example("a: &x\n  ? *x\n")
@example("%YAML 3.0\n---\n")
@example("\u2028\x85a: [")
@example("!<tag:yaml.org,2002:int> x")
def test_any_text_is_read_or_has_a_problem_with_its_place(text: str) -> None:
    for problem in parse(text, "f").problems:
        assert PLACE.fullmatch(problem.where)
        assert problem.message


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_have_a_problem_with_its_place(content: bytes) -> None:
    for problem in parse(content.decode("latin-1"), "f").problems:
        assert PLACE.fullmatch(problem.where)
