"""The calibration that a category names: read from a file beside the policy, and put into what the policy says."""

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
"""Bytes of a calibration file; the curves are most of it."""


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
    """What ``dnp-guard vlm calibrate`` writes, as far as a policy needs it."""

    format: Literal[1]
    vlm: _Backend
    categories: dict[str, Annotated[tuple[_Range, ...], Field(min_length=1, max_length=100)]]


def apply(document: Document, folder: Path) -> dict[Path, str]:
    """Read the calibrations that the categories of a document name, and put them in.

    ``calibration`` becomes what the file says of the model; ``threshold`` becomes the file's, where the category does
    not say one itself. What is wrong becomes a problem of the document.

    Args:
        document: of one file, before what it extends is applied.
        folder: of that file; nothing outside it is read.

    Returns:
        SHA-256, in hexadecimal, of every file that was read.
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
        raise _Unusable(f"`{name}` is no calibration: {where}: {first['msg'][:100]}", _HINT) from None
    if category not in file.categories:
        known = list(file.categories)
        raise _Unusable(f"`{name}` has no category `{category[:60]}`", did_you_mean(category, known) or _HINT)
    measured = file.categories[category]
    for each in measured:
        if each.positives < 1 or each.positives >= each.n:
            message = f"`{name}` has no pictures of both kinds from {each.begin:g} to {each.end:g}"
            raise _Unusable(message, "Measure with more pictures, or fewer ranges.")
    ranges = [{"from": each.begin, "to": each.end, "value": each.threshold} for each in measured]
    if not joined([StepRange.model_validate(each) for each in ranges]):
        raise _Unusable(f"the ranges of `{name}` do not cover the run", _HINT)
    return {"file": name, "vlm": file.vlm.name, "vlm_revision": file.vlm.revision}, ranges


_HINT = "Write it with `dnp-guard vlm calibrate --out FILE`, beside the policy or below."
