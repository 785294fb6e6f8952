"""Inspect a pipeline that was saved in a folder, without loading its weights."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import diffusers

from dnp_guard.errors import CannotSteer
from dnp_guard.hosts.diffusers import prediction

if TYPE_CHECKING:
    from pathlib import Path


def class_in(folder: Path) -> str:
    """Return the class of a saved pipeline, and check that its scheduler is one that the guard knows.

    Raises:
        CannotSteer: the pipeline cannot be steered.
        OSError: there is no ``model_index.json``.
        ValueError: that file is not JSON, or not an index.
        KeyError: the index names no class.
    """
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    if not isinstance(index, dict):
        raise ValueError("model_index.json is not an object")  # noqa: TRY004 (the wrong value is in a file)
    name: str = index["_class_name"]
    kind = index.get("scheduler")
    made = getattr(diffusers, kind[1] or "", None) if isinstance(kind, list) and len(kind) > 1 else None
    if made is None:
        raise CannotSteer(
            f"{name} has no scheduler that diffusers knows", hint="Save the pipeline again with one of diffusers'."
        )
    prediction.check(made.from_pretrained(folder, subfolder="scheduler"))
    return name
