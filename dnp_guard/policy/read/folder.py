"""Which files of a folder are policies or tests of them, and which only look like it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnp_guard.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


def named(files: Iterable[Path]) -> list[Path]:
    """The files that people named, in order: not the hidden ones that editors and file systems leave beside them."""
    return sorted(file for file in files if not file.name.startswith("."))


def misnamed(files: Iterable[Path]) -> Iterator[Problem]:
    """What to say of files that would never be read, so that nobody believes in a floor or a test that is not there."""
    for file in named(files):
        if file.suffix.lower() in {".yml", ".yaml"} and file.suffix != ".yaml":
            message = f"`{file.name}` is never read: policies and their tests end in .yaml."
            yield Problem(str(file), 0, 0, "misnamed", message, f"Rename it to {file.stem}.yaml, or move it away.")
