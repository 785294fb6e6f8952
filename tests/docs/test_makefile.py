"""Targets of the Makefile say which tools they need."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("target", ["browser", "pages", "screenshots"])
def test_a_target_that_needs_a_browser_says_how_to_get_one(target):
    done = subprocess.run(
        ["make", "-C", ROOT, target, "CHROMIUM=no-such-browser"],  # noqa: S607 (whichever make there is)
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "apt-get install chromium" in done.stderr
