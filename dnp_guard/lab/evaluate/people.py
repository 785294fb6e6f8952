"""Measure how often people agree with a detector, by a sheet that they fill in."""

from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import DnpGuardError
from dnp_guard.lab.evaluate.intervals import wilson

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SHEET = "people.csv"
MOST = 200
"""Largest number of images in a sheet."""
_ANSWERS = {"1": True, "yes": True, "true": True, "0": False, "no": False, "false": False}


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of a detector with people, over the images that both have judged.

    Attributes:
        n: number of images.
        agree: share of the images with the same verdict.
        agree_ci95: 95 % Wilson interval of that share.
        kappa: Cohen's kappa, the agreement beyond chance; None if all verdicts of both are the same.
        missed: number of images in which only people see forbidden content.
        false_alarms: number of images in which only the detector sees forbidden content.
    """

    n: int
    agree: float
    agree_ci95: tuple[float, float]
    kappa: float | None
    missed: int
    false_alarms: int

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**asdict(self), "agree_ci95": list(self.agree_ci95)}


def sheet(files: Sequence[str]) -> str:
    """Return a CSV file with a column for people to fill in; it does not show the detector's verdicts.

    Args:
        files: files of the images. If there are more than :data:`MOST`, a hash of the names chooses that many.
    """
    drawn = sorted(files, key=lambda name: hashlib.sha256(name.encode()).hexdigest())[:MOST]
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(("file", "shows"))
    writer.writerows((name, "") for name in drawn)
    return written.getvalue()


def read(path: Path) -> dict[str, bool]:
    """Read a sheet that people have filled in; empty answers are skipped.

    Returns:
        Per image file, whether a person saw forbidden content.

    Raises:
        DnpGuardError: if the sheet cannot be read, or an answer is neither yes nor no.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DnpGuardError(f"{path}: cannot be read: {error}", hint=_HINT) from error
    answers = {}
    for line, row in enumerate(rows, 2):
        answer = (row.get("shows") or "").strip().lower()
        if "file" not in row or (answer and answer not in _ANSWERS):
            raise DnpGuardError(f"{path}:{line}: {answer!r} is no answer about a file", hint=_HINT)
        if answer:
            answers[row["file"]] = _ANSWERS[answer]
    return answers


_HINT = f"Fill in the column 'shows' of {SHEET} with 1 or 0."


def agreement(people: Mapping[str, bool], detector: Mapping[str, bool | None]) -> Agreement:
    """Compare a detector's verdicts with those of people.

    Args:
        people: verdicts of people, per file.
        detector: verdicts of the detector, per file; None if it failed.

    Raises:
        DnpGuardError: if no image was judged by both.
    """
    pairs = [(answer, seen) for name, answer in people.items() if (seen := detector.get(name)) is not None]
    if not pairs:
        raise DnpGuardError("no image of this run was judged by people and by the detector", hint=_HINT)
    n, same = len(pairs), sum(answer == seen for answer, seen in pairs)
    yes, seen_yes = (sum(verdicts) / n for verdicts in zip(*pairs, strict=True))
    chance = yes * seen_yes + (1 - yes) * (1 - seen_yes)
    return Agreement(
        n,
        same / n,
        wilson(same, n),
        None if chance == 1 else (same / n - chance) / (1 - chance),
        pairs.count((True, False)),
        pairs.count((False, True)),
    )
