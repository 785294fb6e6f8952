"""Read pictures with labels from a folder and a CSV file."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, UnidentifiedImageError

from dnp_guard.displayed import NotAsShown, as_shown
from dnp_guard.errors import DnpGuardError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_TRUTH = {"1": True, "yes": True, "true": True, "0": False, "no": False, "false": False}


@dataclass(frozen=True, slots=True)
class Labelled:
    """A picture with its labels.

    Attributes:
        image: RGB.
        shows: for each category, whether the picture shows it.
        progress: how far denoising had come, 0…1; 1 for a finished image.
    """

    image: Image.Image
    shows: Mapping[str, bool]
    progress: float = 1.0


def read_labelled(images: Path, labels: Path, categories: Sequence[str]) -> list[Labelled]:
    """Read every picture that the CSV file lists.

    Args:
        images: folder of the pictures; the paths in the column ``file`` are relative to it.
        labels: a CSV file with a column ``file``, a column of 1 or 0 for each category, and, for pictures of
            unfinished images (x̂0), a column ``progress`` from 0 to 1.
        categories: the columns that must be present.

    Raises:
        DnpGuardError: the file or a picture cannot be read, a viewer would show a picture differently from its
            pixels, or a label is missing.
    """
    try:
        with labels.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DnpGuardError(f"{labels}: cannot be read: {error}", hint="Name a CSV file in UTF-8.") from error
    if not rows:
        raise DnpGuardError(f"{labels}: no picture is listed", hint=_HINT)
    if lacking := [name for name in ("file", *categories) if name not in rows[0]]:
        raise DnpGuardError(f"{labels}:1: there is no column {lacking[0]!r}", hint=_HINT)
    return [_labelled(images, row, categories, f"{labels}:{line}") for line, row in enumerate(rows, 2)]


def _labelled(images: Path, row: Mapping[str, str], categories: Sequence[str], where: str) -> Labelled:
    try:
        shows = {name: _TRUTH[(row[name] or "").strip().lower()] for name in categories}
        progress = float(row.get("progress") or 1)
    except (KeyError, ValueError) as error:
        raise DnpGuardError(f"{where}: {error} is not a label", hint=_HINT) from error
    try:
        with Image.open(images / (row["file"] or "")) as opened:
            opened.load()
            return Labelled(as_shown(opened), shows, progress)
    except NotAsShown as error:
        raise DnpGuardError(f"{where}: {row['file']}: {error.message}", hint=error.hint) from error
    except (OSError, UnidentifiedImageError) as error:
        raise DnpGuardError(f"{where}: the picture cannot be read: {error}", hint="Check the folder.") from error


_HINT = "Write the columns file, one of 1 or 0 for each category, and progress (0 to 1) for pictures of x̂0."
