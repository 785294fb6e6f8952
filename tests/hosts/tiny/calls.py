"""Arguments that several classes are called with for three images."""

import torch
from PIL import Image

PICTURES = torch.linspace(0, 1, 3 * 32 * 32).view(1, 3, 32, 32).repeat(3, 1, 1, 1)
MASKS = torch.ones(3, 1, 32, 32)
FROM_PICTURE = {"image": PICTURES, "strength": 1.0}
INPAINTING = {**FROM_PICTURE, "mask_image": MASKS}
CONTROL = {"control_image": PICTURES}
CLIP = [[Image.fromarray((255 * PICTURES[0].permute(1, 2, 0).numpy()).astype("uint8"))] * 9] * 3
