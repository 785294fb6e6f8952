from __future__ import annotations

import json
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter

import grimp
import pytest

from dnp_guard.extras import PACKAGES

HEAVY = PACKAGES["diffusers"]


def heavy_after(statement: str) -> list[str]:
    """Return the heavy libraries, such as torch, that a fresh Python process has imported after a statement."""
    program = f"import json, sys\n{statement}\nprint(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "module",
    [
        "dnp_guard.audit.read",
        "dnp_guard.cli",
        "dnp_guard.guard",
        "dnp_guard.hosts.remote",
        "dnp_guard.policy.rehearsal.cases",
        "dnp_guard.server.run",
        "dnp_guard.testing",
        "dnp_guard.vlm.remote.chat",
    ],
)
def test_importing_it_loads_no_heavy_library(module):
    assert heavy_after(f"import {module}") == []


def test_the_probe_sees_a_heavy_library_that_is_imported():
    assert "torch" in heavy_after("import torch")


def test_the_whole_help_loads_no_heavy_library():
    assert heavy_after("from dnp_guard.cli import run; assert run(['--help']) == 0") == []


def circle(imports):
    """Return the modules of an import cycle; empty if there is none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_modules_import_one_another_in_a_circle_even_for_their_types():
    graph = grimp.build_graph("dnp_guard", cache_dir=None)
    imports = {module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules}
    # A hook and a host receive the guard that loads them, and name it in their annotations.
    for module in graph.find_descendants("dnp_guard.hosts") | {"dnp_guard.hookspecs"}:
        imports[module].discard("dnp_guard.guard")
    assert circle(imports) == []


def test_a_circle_is_found():
    assert set(circle({"a": {"b"}, "b": {"a"}})) == {"a", "b"}
