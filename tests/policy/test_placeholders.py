from __future__ import annotations

import pytest

from dnp_guard.policy.model.placeholders import placeholders, render


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("plain", ()),
        ("${term} and ${Title}, ${term}", ("term", "Title")),
        ("$$5", ()),
        ("$5", ("$",)),
        ("$term", ("$",)),
        ("${a b}", ("$",)),
        ("${}", ("$",)),
        ("${term.__class__}", ("term.__class__",)),
    ],
)
def test_placeholders_are_named_and_stray_dollar_signs_found(text, names):
    assert placeholders(text) == names


def test_placeholders_in_inserted_text_are_not_replaced():
    assert render("${a}", a="${a} $b {0}") == "${a} $b {0}"
