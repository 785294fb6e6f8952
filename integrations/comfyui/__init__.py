"""DNP Guard for ComfyUI: steer images away from forbidden content during denoising, and check them when finished.

A *look* has a vision-language model answer the policy's questions about the images of a step, in this process or at
the service ``dnp-guard serve``. A *negative* is a text from the policy that images are then steered away from.
"""

from __future__ import annotations

from . import counts, enforce
from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]

enforce.register()
counts.register()
