"""Every mistake in a policy file is reported once, at its own line, in plain words, with the text to type instead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnp_guard.errors import PolicyError
from dnp_guard.policy.read import mistyped, quoting
from dnp_guard.policy.read.lint import warnings
from dnp_guard.policy.read.loading import load, shipped

FOLDER = Path(__file__).parent / "mistakes"
ROWS = [line.split("\t") for line in (FOLDER / "expected.tsv").read_text(encoding="utf-8").splitlines()]
"""Rows of a file, the line and column of its mistake, and words that the message or hint must hold."""

JARGON = re.compile(
    r"\b(YAML|scalar|mapping|token|stream|sequence|alias|anchor|tag|block node|flow|simple key|tuple|dict|str|float|int"
    r"|bool|NoneType|None|pydantic|regex|Input should|list of 0)\b"
)


def problems_of(path):
    try:
        return list(warnings(load(path)))
    except PolicyError as error:
        return list(error.problems)


@pytest.mark.parametrize(("name", "line", "column", "words"), ROWS, ids=[row[0] for row in ROWS])
def test_a_mistake_is_told_once_at_its_own_place_with_what_to_type(name, line, column, words):
    (problem,) = problems_of(FOLDER / f"{name}.yaml")
    text = f"{problem.message} {problem.hint}"
    assert problem.line == int(line)
    assert problem.column == int(column)
    assert [word for word in words.split(" | ") if word not in text] == []
    assert not JARGON.search(text)


def test_retries_that_an_exception_uses_are_no_mistake(tmp_path):
    text = (FOLDER / "unused-retries.yaml").read_text(encoding="utf-8")
    ends = 'until: "2199-01-31T00:00:00Z", reason: Art, approved_by: Head'
    path = tmp_path / "p.yaml"
    path.write_text(f"{text}exceptions:\n  - {{category: weapons, set: {{still_present: retry}}, {ends}}}\n")
    assert problems_of(path) == []


def test_the_policy_that_the_mistakes_were_made_in_is_right():
    assert problems_of(FOLDER / "correct.yaml") == []


def test_every_file_of_mistakes_says_what_is_expected_of_it():
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == sorted([*(row[0] for row in ROWS), "correct"])


@pytest.mark.parametrize("path", [*shipped().values(), FOLDER / "correct.yaml"], ids=lambda path: path.stem)
def test_a_text_that_can_be_read_has_nothing_mistyped(path):
    text = path.read_text(encoding="utf-8")
    assert mistyped.mistyped(text, "p.yaml", len(text.splitlines())) is None


def test_a_text_over_several_lines_that_keeps_its_line_ends_has_nothing_mistyped():
    text = "a: |\n  b: c: d\n   - [\ne: >-\n  'x\nf: plain\n  and more\ng: 'two\n  lines'\nh: [1,\n  {b: 2}]\n"
    assert mistyped.mistyped(text, "p.yaml", 20) is None


def test_a_value_ends_behind_its_last_bracket():
    assert quoting.end_of_value(["a: [1, 'b]', {c: d}]  # e"], 0, 3, 0) == (0, 20)


PIECES = [
    "a:",
    "- ",
    " ",
    "  ",
    "\n",
    "\n",
    "threshold",
    "0.5",
    '"',
    "'",
    "[",
    "]",
    "{",
    "}",
    ",",
    "#",
    "\t",
    "|",
    "*",
    "x",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=40))
def test_whatever_the_text_what_is_mistyped_in_it_lies_in_it(pieces):
    text = "".join(pieces)
    fault = mistyped.mistyped(text, "p.yaml", 100)
    assert fault is None or (1 <= fault.line <= len(text.splitlines()) and fault.column >= 1)
