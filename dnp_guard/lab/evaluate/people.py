"""How far people agree with a detector: a sheet for them to fill in, and what comes of it."""

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
"""Images of a sheet, at most."""
_SAYS = {"1": True, "yes": True, "true": True, "0": False, "no": False, "false": False}


@dataclass(frozen=True, slots=True)
class Agreement:
    """A detector against people, image by image.

    Attributes:
        n: images that both have judged.
        agree: the share of them in which they agree.
        agree_ci95: its Wilson interval.
        kappa: Cohen's, the agreement beyond chance; None where both always say the same one thing.
        missed: images in which people see it and the detector does not.
        false_alarms: images in which only the detector does.
    """

    n: int
    agree: float
    agree_ci95: tuple[float, float]
    kappa: float | None
    missed: int
    false_alarms: int

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "agree_ci95": list(self.agree_ci95)}


def sheet(files: Sequence[str]) -> str:
    """A CSV file with a column to fill in, without what the detector said.

    Args:
        files: of the images; where there are many, a part of them that depends on their names alone.
    """
    drawn = sorted(files, key=lambda name: hashlib.sha256(name.encode()).hexdigest())[:MOST]
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(("file", "shows"))
    writer.writerows((name, "") for name in drawn)
    return written.getvalue()


def read(path: Path) -> dict[str, bool]:
    """Read a sheet of human answers: for each image file, whether a person saw forbidden content. Skip empty ones.

    Raises:
        DnpGuardError: it cannot be read, or an answer is neither yes nor no.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DnpGuardError(f"{path}: cannot be read: {error}", hint=_HINT) from error
    found = {}
    for line, row in enumerate(rows, 2):
        answer = (row.get("shows") or "").strip().lower()
        if "file" not in row or (answer and answer not in _SAYS):
            raise DnpGuardError(f"{path}:{line}: {answer!r} is no answer about a file", hint=_HINT)
        if answer:
            found[row["file"]] = _SAYS[answer]
    return found


_HINT = f"Fill in the column 'shows' of {SHEET} with 1 or 0."


def agreement(people: Mapping[str, bool], detector: Mapping[str, bool | None]) -> Agreement:
    """Compare a detector's verdicts with those of people.

    Args:
        people: by file.
        detector: by file; None where it failed.

    Raises:
        DnpGuardError: no image was judged by both.
    """
    pairs = [(said, seen) for name, said in people.items() if (seen := detector.get(name)) is not None]
    if not pairs:
        raise DnpGuardError("no image of this run was judged by people and by the detector", hint=_HINT)
    n, same = len(pairs), sum(said == seen for said, seen in pairs)
    yes, seen_yes = (sum(each) / n for each in zip(*pairs, strict=True))
    chance = yes * seen_yes + (1 - yes) * (1 - seen_yes)
    return Agreement(
        n,
        same / n,
        wilson(same, n),
        None if chance == 1 else (same / n - chance) / (1 - chance),
        pairs.count((True, False)),
        pairs.count((False, True)),
    )
