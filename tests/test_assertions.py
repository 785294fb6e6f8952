"""The tests assert one value at a time, so that a failure names the value."""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).parent


def _pairs(test: ast.expr) -> bool:
    """Return whether an assertion compares several values at once, as two written tuples."""
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
