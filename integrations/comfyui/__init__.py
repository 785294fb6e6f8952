"""DNP Guard for ComfyUI: steer an image away from forbidden content while it is denoised, and look at the end."""

from __future__ import annotations

from . import counts, enforce
from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]

enforce.register()
counts.register()
