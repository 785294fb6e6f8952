"""The wheel contains examples, integrations and policies besides the package (`pip wheel --no-deps .` shows it)."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_operators_pack_and_the_policies_are_put_into_the_wheel() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    included = build["targets"]["wheel"]["force-include"]
    assert included == {folder: f"dnp_guard/{folder}" for folder in ("examples/store", "integrations", "policies")}
    assert [folder for folder in included if not any((ROOT / folder).iterdir())] == []
