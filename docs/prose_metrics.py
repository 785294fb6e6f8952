"""Measure the prose and the tests: the figures that are to fall from one version to the next."""

from __future__ import annotations

import ast
from collections import Counter
from statistics import median
from typing import TYPE_CHECKING, Final

from docs.prose_text import passages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CODE: Final = ("dnp_guard", "integrations", "docs", "tests")
NAMES: Final = ("each", "found", "said", "wanted", "kept", "told")
LONG: Final = 30


def metrics(root: Path) -> str:
    """Return every figure with its name, one per line."""
    code = [path for place in CODE for path in sorted((root / place).rglob("*.py"))]
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in code}
    tests = {path: tree for path, tree in trees.items() if path.is_relative_to(root / "tests")}
    words = [
        len(sentence.split())
        for path in code
        for passage in passages(path)
        if passage.kind in {"summary", "docstring"}
        for sentence in passage.sentences()
    ]
    bound = Counter(name for tree in trees.values() for name in names_bound(tree))
    rows = {
        "docstring sentences": len(words),
        "median words per docstring sentence": median(words),
        f"docstring sentences of more than {LONG} words": sum(count > LONG for count in words),
        "tuple assertions in tests": sum(count_tuple_assertions(tree) for tree in tests.values()),
        "private reaches in tests": sum(count_private_reaches(tree) for tree in tests.values()),
        **{f"bound `{name}`": bound[name] for name in NAMES},
    }
    return "\n".join(f"{count:>6}  {name}" for name, count in rows.items())


def names_bound(tree: ast.Module) -> Iterator[str]:
    """Yield every name that an assignment, a loop, a comprehension or an argument binds."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg


def count_tuple_assertions(tree: ast.Module) -> int:
    """Count the assertions that equate a tuple of several values: ``assert (a, b) == …``."""
    return sum(
        isinstance(node, ast.Assert)
        and isinstance(node.test, ast.Compare)
        and isinstance(node.test.ops[0], ast.Eq)
        and _is_several(node.test.left)
        for node in ast.walk(tree)
    )


def _is_several(node: ast.expr) -> bool:
    return isinstance(node, ast.Tuple) and len(node.elts) > 1


def count_private_reaches(tree: ast.Module) -> int:
    """Count the private attributes and imports of other modules: ``thing._inside``, ``from room import _inside``."""
    return sum(_is_reach(node) for node in ast.walk(tree))


def _is_reach(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom):
        return any(_is_private(alias.name) for alias in node.names)
    if not isinstance(node, ast.Attribute) or not _is_private(node.attr):
        return False
    if node.attr == "_exit":
        return False  # `os._exit` is public in spite of its name
    return not (isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"})


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")
