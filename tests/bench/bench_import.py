from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "statement", ["pass", "import dnp_guard", "from dnp_guard import Guard", "import dnp_guard.cli"]
)
def test_a_fresh_interpreter_runs(benchmark, statement):
    """Time a fresh Python process that runs a statement; subtract the time of ``pass`` to get the cost of an import."""
    done = benchmark.pedantic(
        subprocess.run, args=([sys.executable, "-c", statement],), kwargs={"check": True}, rounds=10, warmup_rounds=1
    )
    assert done.returncode == 0
