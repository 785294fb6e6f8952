"""Every assertion in the tests compares a single value, so that a failure names this value."""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).parent


def _pairs(test: ast.expr) -> bool:
    """Return whether an assertion compares several values at once, by two literal tuples."""
    sides = [test.left, *test.comparators] if isinstance(test, ast.Compare) else []
    return sum(isinstance(side, ast.Tuple) and len(side.elts) > 1 for side in sides) > 1


def test_no_assertion_compares_several_values_at_once():
    places = [
        f"{path.relative_to(TESTS)}:{node.lineno}"
        for path in sorted(TESTS.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assert) and _pairs(node.test)
    ]
    assert places == [], "assert each value by itself"
