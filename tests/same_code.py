"""Extract the code of Python files for comparison, without comments and docstrings."""

import ast


def code(path):
    """Return the code of a file without comments and docstrings.

    Only the last part of the names of imported modules is kept, so that the same code is equal in two packages.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            node.module, node.level = (node.module or "").rpartition(".")[2], 0
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [part for part in body if not _is_text(part)] or [ast.Pass()]
    return ast.unparse(tree)


def _is_text(part):
    return isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant) and isinstance(part.value.value, str)
