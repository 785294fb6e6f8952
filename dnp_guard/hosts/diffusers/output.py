"""The images or videos a pipeline returns, in whatever form it was asked for, as pictures and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dnp_guard.hosts.delivery import blank, blurred, withheld
from dnp_guard.hosts.diffusers.families.latents import frames, of_frames
from dnp_guard.preview import autoencoder
from dnp_guard.types import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from PIL.Image import Image

    from dnp_guard.hosts.diffusers.families import Family

_OF_VIDEOS = 5
"""Dimensions of an array of videos."""


class Output:
    """What a call returned.

    Args:
        result: an output object or, under ``return_dict=False``, a tuple; the images or videos come first.
        kind: the call's ``output_type``: pil, np, pt or latent.
        pipe: the pipeline, whose autoencoder is used for ``latent``.
        family: says how its latents are packed.
        wanted: the arguments of the call, where they are known.
        ended: gives the images as predicted, where the call ends before they are denoised.
    """

    def __init__(
        self,
        result: Any,
        kind: str,
        pipe: Any,
        family: Family,
        wanted: Mapping[str, Any] | None = None,
        ended: Callable[[], list[Image]] = list,
    ) -> None:
        self._ended = ended
        self._result = result
        self._pipe = pipe
        self._family = family
        self._wanted = wanted or {}
        self._vae = getattr(pipe, family.autoencoder)
        self._items = result[0]
        # What came back decides: diffusers gives arrays for an output_type that it does not know.
        forms = {list: "pil", np.ndarray: "np"}
        self._kind = forms.get(type(self._items), "latent" if kind == "latent" else "pt")
        self._videos = (
            isinstance(self._items[0], list) if self._kind == "pil" else self._items.ndim == _OF_VIDEOS
        ) and self._kind != "latent"

    def pictures(self) -> list[Image]:
        """The images as RGB pictures, or some frames of each video, those of a video together."""
        if ended := self._ended():
            return ended
        if self._kind == "latent":
            return autoencoder.decode(self._vae, of_frames(self._family.unpack(self._pipe, self._items, self._wanted)))
        return [frame for index in range(len(self._items)) for frame in self._frames(index, some=True)]

    def _frames(self, index: int, *, some: bool) -> list[Image]:
        """The pictures of one item: the one of an image, all or some frames of a video."""
        item = self._items[index]
        if self._videos and some:
            chosen = frames(len(item))
            item = [item[frame] for frame in chosen] if self._kind == "pil" else item[chosen]
        if self._kind == "pil":
            return [picture.convert("RGB") for picture in (item if self._videos else [item])]
        pixels = torch.from_numpy(item).movedim(-1, -3) if self._kind == "np" else item.float()
        return autoencoder.to_pictures(pixels if self._videos else pixels[None])

    def delivered(self, outcomes: Sequence[Outcome]) -> Any:
        """The result with every image as its outcome allows; the very same object where all may pass."""
        flags = [withheld(outcome) for outcome in outcomes]
        replaced = {index: [blank(self._size())] for index, flag in enumerate(flags) if flag}
        for index, outcome in enumerate(outcomes):
            if outcome is Outcome.BLURRED:
                shown = [self.pictures()[index]] if self._kind == "latent" else self._frames(index, some=False)
                replaced[index] = [blurred(picture) for picture in shown]
        if not replaced:
            return self._result
        items = self._with(replaced)
        if isinstance(self._result, tuple):
            had = self._result[1] if len(self._result) > 1 else None
            return (items, _flagged(had, flags), *self._result[2:]) if len(self._result) > 1 else (items,)
        self._result[next(iter(self._result.keys()))] = items
        if "nsfw_content_detected" in self._result.__dataclass_fields__:
            self._result.nsfw_content_detected = _flagged(self._result.nsfw_content_detected, flags)
        return self._result

    def _size(self) -> tuple[int, int]:
        """Width and height of the images in pixels; nothing is decoded, as that may be what failed."""
        if self._kind == "pil":
            first = self._items[0]
            width, height = (first[0] if self._videos else first).size
            return width, height
        if self._kind == "latent":
            unpacked = self._family.unpack(self._pipe, self._items, self._wanted)
            factor: int = self._pipe.vae_scale_factor
            return unpacked.shape[-1] * factor, unpacked.shape[-2] * factor
        rows, columns = (-3, -2) if self._kind == "np" else (-2, -1)
        return self._items.shape[columns], self._items.shape[rows]

    def _with(self, replaced: Mapping[int, list[Image]]) -> Any:
        """The items with some of them replaced; one picture stands for every frame of a video."""
        if self._kind == "pil":
            new = {
                index: pictures * (len(self._items[index]) // len(pictures)) if self._videos else pictures[0]
                for index, pictures in replaced.items()
            }
            return [new.get(index, item) for index, item in enumerate(self._items)]
        items = self._items.copy() if self._kind == "np" else self._items.clone()
        for index, pictures in replaced.items():
            if self._kind == "latent":
                items[index] = self._family.pack(self._pipe, self._latents(pictures[0]))[0].to(items)
                continue
            pixels = autoencoder.to_tensor(pictures)
            pixels = pixels if self._videos else pixels[0]
            if self._kind == "np":
                items[index] = pixels.movedim(-3, -1).numpy().astype(items.dtype)
            else:
                items[index] = pixels.to(items)
        return items

    def _latents(self, picture: Image) -> torch.Tensor:
        size = self._size()  # a look may have decoded fewer pixels
        fitting = picture if picture.size == size else picture.resize(size)
        return autoencoder.encode(self._vae, fitting, self._items.device)


def _flagged(before: Any, flags: list[bool]) -> list[bool]:
    return [bool(had) or flag for had, flag in zip(before or [False] * len(flags), flags, strict=True)]
