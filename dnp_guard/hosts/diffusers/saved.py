"""Which row applies to a pipeline that was saved in a folder, without loading its weights."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import diffusers

from dnp_guard.errors import CannotSteer
from dnp_guard.hosts.diffusers.families import Family, complete

if TYPE_CHECKING:
    from pathlib import Path


def family_in(folder: Path) -> tuple[str, Family]:
    """The class of a saved pipeline, and its row.

    Raises:
        CannotSteer: it cannot be steered.
        OSError: there is no ``model_index.json``.
        ValueError: it is not JSON, or not an index.
        KeyError: it names no class.
    """
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    if not isinstance(index, dict):
        raise ValueError("model_index.json is not an object")  # noqa: TRY004 (it is the value of a file)
    name = index["_class_name"]
    parts = {part: kind[1] for part, kind in _pairs(index) if kind[1]}
    made = getattr(diffusers, parts.get("scheduler", ""), None)
    if made is None:
        raise CannotSteer(
            f"{name} has no scheduler that diffusers knows", hint="Save the pipeline again with one of diffusers'."
        )
    return name, complete(name, parts, made.from_pretrained(folder, subfolder="scheduler"))


def _pairs(index: dict[str, object]) -> list[tuple[str, list[str]]]:
    return [(part, kind) for part, kind in index.items() if isinstance(kind, list) and len(kind) > 1]
