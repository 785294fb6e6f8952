"""List the files of a policy folder, and report those that would be ignored because of their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnp_guard.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


def named(files: Iterable[Path]) -> list[Path]:
    """Return the files in order, without the hidden ones that editors and file systems leave."""
    return sorted(file for file in files if not file.name.startswith("."))


def misnamed(files: Iterable[Path]) -> Iterator[Problem]:
    """Yield one problem per YAML file that is never read because its name does not end in ``.yaml``."""
    for file in named(files):
        if file.suffix.lower() in {".yml", ".yaml"} and file.suffix != ".yaml":
            message = f"`{file.name}` is never read: policies and their tests end in .yaml."
            yield Problem(str(file), 0, 0, "misnamed", message, f"Rename it to {file.stem}.yaml, or move it away.")
