"""The images a pipeline returns, in whatever form it was asked for, as pictures and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dnp_guard import preview
from dnp_guard.hosts.pictures import blank, blurred, withheld
from dnp_guard.types import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image


class Output:
    """What a call returned.

    Args:
        result: an output object or, under ``return_dict=False``, a tuple; the images come first.
        kind: the call's ``output_type``: pil, np, pt or latent.
        pipe: the pipeline, whose autoencoder is used for ``latent``.
    """

    def __init__(self, result: Any, kind: str, pipe: Any) -> None:
        self._result = result
        self._vae = pipe.vae
        self._factor: int = pipe.vae_scale_factor
        self._images = result[0]
        # What came back decides: diffusers gives arrays for an output_type that it does not know.
        forms = {list: "pil", np.ndarray: "np"}
        self._kind = forms.get(type(self._images), "latent" if kind == "latent" else "pt")

    def pictures(self) -> list[Image]:
        """The images as RGB pictures."""
        if self._kind == "pil":
            return [image.convert("RGB") for image in self._images]
        if self._kind == "np":
            return preview.to_pictures(torch.from_numpy(self._images).permute(0, 3, 1, 2))
        if self._kind == "pt":
            return preview.to_pictures(self._images.float())
        return preview.decode(self._vae, self._images)

    def delivered(self, outcomes: Sequence[Outcome]) -> Any:
        """The result with every image as its outcome allows; the very same object where all may pass."""
        flags = [withheld(outcome) for outcome in outcomes]
        replaced = {index: blank(self._size()) for index, flag in enumerate(flags) if flag}
        blur = [index for index, outcome in enumerate(outcomes) if outcome is Outcome.BLURRED]
        if blur:
            pictures = self.pictures()
            replaced |= {index: blurred(pictures[index]) for index in blur}
        if not replaced:
            return self._result
        images = self._with(replaced)
        if isinstance(self._result, tuple):
            had = self._result[1] if len(self._result) > 1 else None
            return (images, _flagged(had, flags), *self._result[2:]) if len(self._result) > 1 else (images,)
        self._result["images"] = images
        if "nsfw_content_detected" in self._result.__dataclass_fields__:
            self._result.nsfw_content_detected = _flagged(self._result.nsfw_content_detected, flags)
        return self._result

    def _size(self) -> tuple[int, int]:
        """Width and height of the images in pixels; nothing is decoded, as that may be what failed."""
        if self._kind == "pil":
            width, height = self._images[0].size
            return width, height
        if self._kind == "latent":
            return self._images.shape[-1] * self._factor, self._images.shape[-2] * self._factor
        rows, columns = (1, 2) if self._kind == "np" else (2, 3)
        return self._images.shape[columns], self._images.shape[rows]

    def _with(self, replaced: dict[int, Image]) -> Any:
        if self._kind == "pil":
            return [replaced.get(index, image) for index, image in enumerate(self._images)]
        images = self._images.copy() if self._kind == "np" else self._images.clone()
        for index, picture in replaced.items():
            if self._kind == "np":
                images[index] = np.asarray(picture, dtype=images.dtype) / 255
            elif self._kind == "pt":
                images[index] = preview.to_tensor([picture])[0].to(images)
            else:
                images[index] = preview.encode(self._vae, picture, images.device)[0].to(images)
        return images


def _flagged(before: Any, flags: list[bool]) -> list[bool]:
    return [bool(had) or flag for had, flag in zip(before or [False] * len(flags), flags, strict=True)]
