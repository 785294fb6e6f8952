"""The example backend on the documentation's page about backends passes that page's own contract tests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "contributing" / "backend.md"
NAMES: dict[str, Any] = {}
for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
    exec(compile(block, PAGE.name, "exec"), NAMES)  # noqa: S102 (the page's own blocks)

TestRedness = NAMES["TestRedness"]
