from pathlib import Path

import pytest

from dnp_guard.lab.evaluate.methods import METHODS

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "methods.md"


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_explained(name):
    assert any(f"`{name}`" in row for row in PAGE.read_text(encoding="utf-8").splitlines() if row.startswith("| `"))
