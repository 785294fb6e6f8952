"""For which models steering in attention space was shown to work.

Whether it does is a matter of the model: where it was never measured, nobody knows, and ``mode: auto`` is ``separate``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

NAME = "attention.json"
"""The measurement that lies beside the weights of a denoiser."""


def shown(denoiser: Any) -> bool:
    """Whether the effect was shown for the weights that a denoiser was loaded from."""
    name = getattr(getattr(denoiser, "config", None), "_name_or_path", None)
    return bool(name) and (Path(str(name)) / NAME).is_file()


def shown_in(folder: Path) -> bool:
    """Whether the effect was shown for the pipeline in a folder."""
    return any(folder.glob(f"*/{NAME}"))
