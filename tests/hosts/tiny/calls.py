"""Provide arguments for calling pipelines for three images, which several classes share."""

import torch
from PIL import Image

PICTURES = torch.linspace(0, 1, 3 * 32 * 32).view(1, 3, 32, 32).repeat(3, 1, 1, 1)
MASKS = torch.ones(3, 1, 32, 32)
FROM_PICTURE = {"image": PICTURES, "strength": 1.0}
INPAINTING = {**FROM_PICTURE, "mask_image": MASKS}
CONTROL = {"control_image": PICTURES}
PICTURE = Image.fromarray((255 * PICTURES[0].permute(1, 2, 0).numpy()).astype("uint8"))
CLIP = [[PICTURE] * 9] * 3

BY_NAME = {
    "image": [PICTURE] * 3,
    "mask_image": [Image.new("L", (32, 32), 255)] * 3,
    "control_image": [PICTURE] * 3,
    "video": CLIP,
    "control_video": CLIP,
    "strength": 1.0,
    "source_prompt": "a red circle",
}
"""Values of arguments by name, for a class of whose call only the names are known."""
