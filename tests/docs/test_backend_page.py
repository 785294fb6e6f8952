"""The backend that a page builds as its example keeps the contract, by the test class of that page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "contributing" / "backend.md"
NAMES: dict[str, Any] = {}
for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
    exec(compile(block, PAGE.name, "exec"), NAMES)  # noqa: S102 (the page's own blocks)

TestRedness = NAMES["TestRedness"]
