"""Find out whether a measurement shows that steering in attention works for a model.

It works for some models only. The measurement is a file beside the model's weights; without one, ``guidance.mode:
auto`` means ``separate``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

NAME = "attention.json"
"""Name of the measurement's file in the folder of a denoiser's weights; ``x.attention.json`` for ``x.safetensors``."""


def shown(denoiser: Any) -> bool:
    """Return whether a measurement beside a loaded denoiser's weights shows that steering in attention works."""
    name = getattr(getattr(denoiser, "config", None), "_name_or_path", None)
    return bool(name) and (Path(str(name)) / NAME).is_file()


def shown_in(model: Path) -> bool:
    """Return whether a measurement in a pipeline's folder or beside a checkpoint supports steering in attention."""
    if model.is_file():
        return model.with_suffix(f".{NAME}").is_file()
    return any(model.glob(f"*/{NAME}"))
