"""Arguments that several classes are called with for three images."""

import torch

PICTURES = torch.linspace(0, 1, 3 * 32 * 32).view(1, 3, 32, 32).repeat(3, 1, 1, 1)
MASKS = torch.ones(3, 1, 32, 32)
FROM_PICTURE = {"image": PICTURES, "strength": 1.0}
INPAINTING = {**FROM_PICTURE, "mask_image": MASKS}
