from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import dnp_guard


def classes():
    """Return the names of all public classes that the package defines."""
    for path in Path(dnp_guard.__file__).parent.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield node.name


def test_a_name_is_that_of_one_class():
    assert [name for name, count in Counter(classes()).items() if count > 1] == []
