"""For which models steering in attention space was shown to work.

Whether it does is a matter of the model: where it was never measured, nobody knows, and ``mode: auto`` is ``separate``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

NAME = "attention.json"
"""The measurement that lies in the folder of a model."""


def shown(pipe: Any) -> bool:
    """Whether the effect was shown for the model that a pipeline was loaded from."""
    name = getattr(getattr(pipe, "config", None), "_name_or_path", None)
    return bool(name) and shown_in(Path(str(name)))


def shown_in(folder: Path) -> bool:
    """Whether the effect was shown for the model in a folder."""
    return (folder / NAME).is_file()
