"""Fill the tables of figures that pages hold between two marks, from the committed ``explanation/results.json``.

A page asks for a table with ``<!-- figures: METHOD, METHOD … -->`` and ends it with ``<!-- end of figures -->``.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, Final

from dnp_guard.lab.evaluate.table import read
from docs.results import RESULTS

ROOT: Final = Path(__file__).parents[1]
_MARKED: Final = re.compile(r"(<!-- figures: (.+?) -->\n).*?(<!-- end of figures -->)", re.DOTALL)
_HEAD: Final = """
| method | forbidden glyph left | asked-for glyph kept | clean images identical | time × |
|---|---:|---:|---:|---:|
"""


def filled(page: str) -> str:
    """Return the text of a page with its tables of figures made anew.

    Args:
        page: path from the root of the project.
    """
    text = (ROOT / page).read_text(encoding="utf-8")
    return _MARKED.sub(lambda mark: f"{mark[1]}{_table(mark[2].split(', '))}{mark[3]}", text)


def _table(methods: list[str]) -> str:
    return f"{_HEAD}{''.join(_row(method) for method in methods)}\n"


def _row(method: str) -> str:
    attack, benign = _measured(method, "attack"), _measured(method, "benign")
    cells = (_share(attack, "asr"), _share(attack, "kept"), _share(benign, "identical"))
    times = f"{attack['time_ratio']:.2f} and {benign['time_ratio']:.2f}"
    return f"| `{method}` | {' | '.join(cells)} | {times} |\n"


def _share(line: dict[str, Any], key: str) -> str:
    low, high = line[f"{key}_ci95"]
    return f"{100 * line[key]:.1f} % [{100 * low:.0f}, {100 * high:.0f}]"


def _measured(method: str, prompts: str) -> dict[str, Any]:
    """Return the first line of a method on a set, which is at the method's own scale."""
    of_set = (line for line in _lines() if (line["set"], line["model"]) == (prompts, "glyphs"))
    return next(line for line in of_set if line["method"] == method and line["categories"] is None)


@cache
def _lines() -> list[dict[str, Any]]:
    return list(read(RESULTS))
