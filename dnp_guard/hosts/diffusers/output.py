"""The images a pipeline returns, in whatever form it was asked for, as pictures and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dnp_guard import preview
from dnp_guard.hosts.pictures import deliver, withheld
from dnp_guard.types import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image


class Output:
    """What a call returned.

    Args:
        result: an output object or, under ``return_dict=False``, a tuple; the images come first.
        kind: the call's ``output_type``: pil, np, pt or latent.
        vae: the pipeline's autoencoder, for ``latent``.
    """

    def __init__(self, result: Any, kind: str, vae: Any) -> None:
        self._result = result
        self._kind = kind
        self._vae = vae
        self._images = result[0]

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
        if not any(withheld(outcome) or outcome is Outcome.BLURRED for outcome in outcomes):
            return self._result
        replaced = {
            index: deliver(picture, outcome)
            for index, (picture, outcome) in enumerate(zip(self.pictures(), outcomes, strict=True))
            if withheld(outcome) or outcome is Outcome.BLURRED
        }
        flags = [withheld(outcome) for outcome in outcomes]
        images = self._with(replaced)
        if isinstance(self._result, tuple):
            had = self._result[1] if len(self._result) > 1 else None
            return (images, _flagged(had, flags), *self._result[2:]) if len(self._result) > 1 else (images,)
        self._result["images"] = images
        if "nsfw_content_detected" in self._result.__dataclass_fields__:
            self._result.nsfw_content_detected = _flagged(self._result.nsfw_content_detected, flags)
        return self._result

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
                images[index] = preview.encode(self._vae, picture)[0].to(images)
        return images


def _flagged(before: Any, flags: list[bool]) -> list[bool]:
    return [bool(had) or flag for had, flag in zip(before or [False] * len(flags), flags, strict=True)]
