"""The prose check finds the patterns that it is made for, and accepts plain English."""

from __future__ import annotations

import ast

import pytest

from docs.prose import rules_broken
from docs.prose_metrics import count_private_reaches, count_tuple_assertions
from docs.prose_text import Passage, passages

BROKEN = [
    ("headless", "What the answered looks of a generation mean for when it is looked at again."),
    ("headless", "That it is too large is no more than shown."),
    ("per", "Called when a guard is attached to a pipeline, and once a call."),
    ("per", "A log in a file, one line a record."),
    ("distributive", "None for a picture an image."),
    ("each", "The bytes have a form of their own each."),
    ("counts", "Of several answers the strictest counts."),
    ("long", f"Return {'one more word and ' * 12} the end."),
]
PLAIN = [
    "When to query a generation again, given its answered queries.",
    "What does the policy ask?",
    "Called when a guard is attached to a pipeline, and again at the start of each call.",
    "None when there is one picture per image.",
    "A policy may give an image a second chance.",
    "Once a step was planned, the number of steps is known.",
    "Skipped and failed queries do not count down.",
]


def broken(text, kind="docstring"):
    return [rule for rule, _ in rules_broken(Passage(1, kind, text))]


@pytest.mark.parametrize(("rule", "sentence"), BROKEN)
def test_a_pattern_is_found(rule, sentence):
    assert rule in broken(sentence)


@pytest.mark.parametrize("sentence", PLAIN)
def test_plain_english_passes(sentence):
    assert broken(sentence) == []


@pytest.mark.parametrize("start", ["The image of a prompt.", "Whether it is one.", "What follows a record."])
def test_the_docstring_of_a_function_begins_with_a_verb(start):
    assert "verb" in broken(start, "summary")


def texts(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return [(passage.kind, passage.text) for passage in passages(tmp_path / name)]


def test_the_prose_of_code_is_its_docstrings_comments_and_messages(tmp_path):
    code = (
        'def f():\n    """Do one thing.\n\n    Args:\n        x: where it is,\n            in pixels.\n    """\n'
        '    # Two lines\n    # of one comment.\n    raise Error(f"There is no {x} in the file.")\n'
    )
    assert texts(tmp_path, "code.py", code) == [
        ("summary", "Do one thing."),
        ("docstring", "Where it is, in pixels."),
        ("comment", "Two lines of one comment."),
        ("message", "There is no {…} in the file."),
    ]


def test_the_docstring_of_a_property_may_be_a_noun(tmp_path):
    code = 'class C:\n    @property\n    def size(self):\n        """The size."""\n'
    assert texts(tmp_path, "code.py", code) == [("docstring", "The size.")]


def test_the_prose_of_a_page_is_its_paragraphs_items_and_cells_but_no_code(tmp_path):
    page = "# Title\n\nOne line\nand another.\n\n- an item\n\n```python\nWhat = 1\n```\n\n| a | table |\n"
    assert texts(tmp_path, "page.md", page) == [
        ("page", text) for text in ("One line and another.", "an item", "a", "table")
    ]


@pytest.mark.parametrize(
    ("code", "count"), [("assert (a, b) == c", 1), ("assert a == (1, 2)", 0), ("assert (a, b) in c", 0)]
)
def test_an_assertion_about_several_values_is_counted(code, count):
    assert count_tuple_assertions(ast.parse(code)) == count


@pytest.mark.parametrize(
    ("code", "count"),
    [("thing._inside", 1), ("from room import _inside", 1), ("self._own", 0), ("thing.__dict__", 0), ("os._exit", 0)],
)
def test_a_reach_into_what_is_private_is_counted(code, count):
    assert count_private_reaches(ast.parse(code)) == count
