"""Draw the embedded prompt sets again: ``python -m dnp_guard.evaluate.prompt_sets``."""

from __future__ import annotations

import sys

from dnp_guard.evaluate.prompt_sets import FOLDER
from dnp_guard.evaluate.prompt_sets.entries import to_line
from dnp_guard.evaluate.prompt_sets.making import SETS, make


def main() -> None:
    """Write every set, and say where."""
    for name in SETS:
        entries = make(name)
        path = FOLDER / f"{name}.jsonl"
        path.write_text("".join(f"{to_line(entry)}\n" for entry in entries), encoding="utf-8")
        sys.stdout.write(f"{path}: {len(entries)} prompts\n")


if __name__ == "__main__":
    main()
