"""What a wheel carries besides the package: seen by building one, `pip wheel --no-deps .`, and listing it."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_operators_pack_and_the_policies_are_put_into_the_wheel() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    included = build["targets"]["wheel"]["force-include"]
    assert included == {each: f"dnp_guard/{each}" for each in ("examples/store", "integrations", "policies")}
    assert [each for each in included if not any((ROOT / each).iterdir())] == []
