"""The extensions import from the package ``dnp_guard`` only names that exist there, also inside functions."""

import ast
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

INTEGRATIONS = Path(__file__).parents[2] / "integrations"


def imported(path: Path) -> list[tuple[str, str]]:
    """Return the modules and names that a file imports from the package ``dnp_guard``."""
    return [
        (node.module, name.name)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == "dnp_guard"
        for name in node.names
    ]


def test_the_guard_in_comfyui_imports_names_that_the_package_has():
    names = imported(INTEGRATIONS / "comfyui" / "inprocess.py")
    missing = [
        (module, name)
        for module, name in names
        if not hasattr(import_module(module), name) and find_spec(f"{module}.{name}") is None
    ]
    assert names
    assert missing == []
