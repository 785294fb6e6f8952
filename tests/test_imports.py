from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("accelerate", "diffusers", "torch", "transformers")


def heavy_after(statement: str) -> list[str]:
    """Which of the heavy libraries a fresh interpreter holds after a statement."""
    program = f"import json, sys\n{statement}\nprint(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "module",
    [
        "dnp_guard",
        "dnp_guard.audit",
        "dnp_guard.cli",
        "dnp_guard.errors",
        "dnp_guard.generation.failmode",
        "dnp_guard.guard",
        "dnp_guard.hookspecs",
        "dnp_guard.generation.judge",
        "dnp_guard.plugins",
        "dnp_guard.policy",
        "dnp_guard.generation.pacing",
        "dnp_guard.telemetry",
        "dnp_guard.types",
        "dnp_guard.vlm",
    ],
)
def test_importing_it_loads_no_heavy_library(module):
    assert heavy_after(f"import {module}") == []


def test_the_probe_sees_a_heavy_library_that_is_imported():
    assert "torch" in heavy_after("import torch")


def test_the_whole_help_loads_no_heavy_library():
    assert heavy_after("from dnp_guard.cli import run; assert run(['--help']) == 0") == []
