"""For which models steering in attention space has been shown to work.

That depends on the model: without a measurement nobody knows, and ``mode: auto`` means ``separate``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

NAME = "attention.json"
"""Name of the measurement's file beside the weights of a denoiser; beside ``x.safetensors``, ``x.attention.json``."""


def shown(denoiser: Any) -> bool:
    """Return whether the effect was measured for the weights of a denoiser."""
    name = getattr(getattr(denoiser, "config", None), "_name_or_path", None)
    return bool(name) and (Path(str(name)) / NAME).is_file()


def shown_in(model: Path) -> bool:
    """Return whether the effect was measured for the pipeline in a folder, or for a checkpoint in one file."""
    if model.is_file():
        return model.with_suffix(f".{NAME}").is_file()
    return any(model.glob(f"*/{NAME}"))
