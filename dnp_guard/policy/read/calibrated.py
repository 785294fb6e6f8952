"""Read the calibration file that a category names, and put its content into the policy's data."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dnp_guard.errors import did_you_mean
from dnp_guard.policy.model.scalars import Probability, Text
from dnp_guard.policy.model.thresholds import StepRange, joined

if TYPE_CHECKING:
    from pathlib import Path

    from dnp_guard.policy.model.violation import Loc
    from dnp_guard.policy.read.document import Document

MAX_CALIBRATION = 4 * 1024 * 1024
"""Largest size of a calibration file in bytes; its curves are the larger part."""


class _Range(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    begin: Probability
    end: Probability
    n: int
    positives: int
    threshold: Probability


class _Backend(BaseModel):
    name: Text
    revision: Text


class _File(BaseModel):
    """The part of a calibration file, written by ``dnp-guard vlm calibrate``, that a policy needs."""

    format: Literal[1]
    vlm: _Backend
    categories: dict[str, Annotated[tuple[_Range, ...], Field(min_length=1, max_length=100)]]


def apply(document: Document, folder: Path) -> dict[Path, str]:
    """Read the calibration files that the categories of a document name, and insert their content.

    The file name in ``calibration`` is replaced by the model that the file names. A category without a ``threshold``
    gets the threshold in the file. Mistakes are added to the document's problems.

    Args:
        document: data of one file, before ``extends`` is applied.
        folder: folder of that file; nothing outside it is read.

    Returns:
        SHA-256 of every file that was read, in hexadecimal.
    """
    read: dict[Path, str] = {}
    categories = document.data.get("categories") if isinstance(document.data, dict) else None
    for index, category in enumerate(categories if isinstance(categories, list) else ()):
        if not isinstance(category, dict) or not isinstance(name := category.get("calibration"), str):
            continue
        loc: Loc = ("categories", index, "calibration")
        try:
            path = _inside(folder, name.strip())
            raw = _bytes(path)
            read[path] = hashlib.sha256(raw).hexdigest()
            made, ranges = _taken(raw, name.strip(), str(category.get("id")))
        except _Unusable as error:
            document.problems.append(document.problem(loc, "bad-calibration", str(error), error.hint))
            document.unread.add(loc)
            del category["calibration"]
            continue
        category["calibration"] = made
        if "threshold" not in category:
            category["threshold"] = ranges
            document.values[(*loc[:-1], "threshold")] = document.place(loc)
    return read


class _Unusable(Exception):
    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def _inside(folder: Path, name: str) -> Path:
    try:
        path = folder / name
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):
        raise _Unusable("`calibration` is not a path", _HINT) from None
    if not inside:
        raise _Unusable(f"`{name[:60]}` is outside this policy's folder", _HINT)
    return path


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise _Unusable(f"no file `{path.name[:60]}` in this policy's folder", _HINT)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_CALIBRATION + 1)
    except OSError as error:
        raise _Unusable(f"`{path.name}` cannot be read: {error.strerror}", _HINT) from None
    if len(raw) > MAX_CALIBRATION:
        raise _Unusable(f"`{path.name}` is over {MAX_CALIBRATION // 1024} KiB", _HINT)
    return raw


def _taken(raw: bytes, name: str, category: str) -> tuple[dict[str, str], list[dict[str, float]]]:
    try:
        file = _File.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise _Unusable(f"`{name}` is not a calibration file: {where}: {first['msg'][:100]}", _HINT) from None
    if category not in file.categories:
        known = list(file.categories)
        raise _Unusable(f"`{name}` has no category `{category[:60]}`", did_you_mean(category, known) or _HINT)
    measured = file.categories[category]
    for part in measured:
        if part.positives < 1 or part.positives >= part.n:
            kind = "with" if part.positives < 1 else "without"
            message = f"`{name}` lacks pictures {kind} the category from {part.begin:g} to {part.end:g}"
            raise _Unusable(message, "Measure with more pictures, or fewer ranges.")
    ranges = [{"from": part.begin, "to": part.end, "value": part.threshold} for part in measured]
    if not joined([StepRange.model_validate(part) for part in ranges]):
        raise _Unusable(f"the ranges of `{name}` do not cover the run", _HINT)
    return {"file": name, "vlm": file.vlm.name, "vlm_revision": file.vlm.revision}, ranges


_HINT = "Write it with `dnp-guard vlm calibrate --out FILE`, beside the policy or below."
