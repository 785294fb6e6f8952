"""Keep generated images on disk, so that a resumed run or another detector need not generate them again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from dnp_guard.files import replacing, write_whole
from dnp_guard.lab.evaluate.methods import Made

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_META = ("outcome", "queries", "evaluations", "intervened", "degraded", "attempts", "withheld")


@dataclass(frozen=True, slots=True)
class DrawnBatch:
    """Images that a method generated for a batch.

    Attributes:
        made: images of the batch.
        seconds: time of the generation.
        together: number of images that were generated at once; smaller than the batch if memory ran out.
    """

    made: list[Made]
    seconds: float
    together: int


def kept(image: Callable[[int], Path], start: int, images: int) -> DrawnBatch | None:
    """Read the images of a batch from disk; return None if they are not complete.

    Args:
        image: function that returns the path for the image of a prompt, given its index.
        start: index of the first prompt.
        images: number of images of the batch.
    """
    path = image(start).with_suffix(".json")
    if not path.exists():
        return None
    document = json.loads(path.read_text(encoding="utf-8"))
    made = [_made(image(start + at), values) for at, values in enumerate(document["images"])]
    return DrawnBatch(made, document["seconds"], document["together"]) if len(made) == images else None


def keep(image: Callable[[int], Path], start: int, drawn: DrawnBatch) -> None:
    """Write the images of a batch to disk; their list is written last, and marks the batch as complete.

    Args:
        image: function that returns the path for the image of a prompt, given its index.
        start: index of the first prompt.
        drawn: the batch.
    """
    image(start).parent.mkdir(parents=True, exist_ok=True)
    listed = []
    for at, made in enumerate(drawn.made):
        path = image(start + at)
        _save(made.image, path)
        if made.delivered is not made.image:
            _save(made.delivered, _delivered(path))
        values = {name: getattr(made, name) for name in _META}
        listed.append({**values, "delivered": made.delivered is not made.image})
    document = {"seconds": drawn.seconds, "together": drawn.together, "images": listed}
    write_whole(image(start).with_suffix(".json"), json.dumps(document) + "\n")


def _made(path: Path, values: dict[str, Any]) -> Made:
    image = _read(path)
    delivered = _read(_delivered(path)) if values.pop("delivered") else image
    return Made(image=image, delivered=delivered, **{**values, "degraded": tuple(values["degraded"])})


def _delivered(path: Path) -> Path:
    return path.with_name(f"{path.stem}.delivered.png")


def _save(image: Any, path: Path) -> None:
    with replacing(path) as draft:
        image.save(draft, "PNG")


def _read(path: Path) -> Any:
    with Image.open(path) as opened:
        return opened.convert("RGB")
