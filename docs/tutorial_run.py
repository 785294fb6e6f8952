"""Run the tutorial as a reader would, and write what it prints and draws into it: ``python -m docs.tutorial_run``.

A block of Python is followed by a block of text where it prints something. Both pictures go to ``_static/``.
"""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from pathlib import Path
from typing import Any, Final

DOCS: Final = Path(__file__).parent
PAGE: Final = DOCS / "tutorial.md"
PICTURES: Final = ("unguarded.png", "guarded.png")
_BLOCK: Final = re.compile(r"(```python\n(.*?)```\n)(?:\n```text\n(.*?)```\n)?", re.DOTALL)


def shown() -> list[str]:
    """Return the output that the page shows after each of its blocks."""
    return [match[3] or "" for match in _BLOCK.finditer(PAGE.read_text(encoding="utf-8"))]


def run(folder: Path) -> list[str]:
    """Run every block of the page, one after another, and return their outputs.

    Args:
        folder: where the tutorial writes its files.
    """
    names: dict[str, Any] = {}
    outputs = []
    with contextlib.chdir(folder):
        for match in _BLOCK.finditer(PAGE.read_text(encoding="utf-8")):
            with contextlib.redirect_stdout(io.StringIO()) as output:
                exec(compile(match[2], PAGE.name, "exec"), names)  # noqa: S102 (the page's own blocks)
            outputs.append(output.getvalue())
    return outputs


def committed(name: str) -> Path:
    """Return where a picture of the tutorial is kept for the page."""
    return DOCS / "_static" / f"tutorial-{name}"


def main() -> None:
    """Write the output of each block below it, and the pictures beside the page."""
    with tempfile.TemporaryDirectory() as name:
        outputs = iter(run(Path(name)))
        for picture in PICTURES:
            committed(picture).write_bytes((Path(name) / picture).read_bytes())

    def with_output(match: re.Match[str]) -> str:
        output = next(outputs)
        return f"{match[1]}\n```text\n{output}```\n" if output else match[1]

    PAGE.write_text(_BLOCK.sub(with_output, PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
