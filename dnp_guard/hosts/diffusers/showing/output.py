"""Convert the images or videos that a pipeline returns, in whatever form, to pictures and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F

from dnp_guard.errors import CannotSteer
from dnp_guard.hosts.backgrounds import faces
from dnp_guard.hosts.delivery import withheld
from dnp_guard.hosts.diffusers.showing.frames import frames
from dnp_guard.hosts.withheld import blank, blurred, cover
from dnp_guard.preview import autoencoder
from dnp_guard.types import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL.Image import Image
    from torch import Tensor

    from dnp_guard.policy import Policy

_OF_VIDEOS = 5
"""Number of dimensions of an array of videos."""
_COVER = 64
"""Side, in pixels, of the picture that is encoded into latents, before it is resized to theirs."""
_OF_PICTURES = 3
"""Least number of dimensions of a tensor that can hold pictures."""
_CHANNELS = {"np": -1, "pt": -3}
"""Dimension of an array that holds the colours."""
_WITH_ALPHA = 4
"""Number of channels of a picture with transparency."""


class Ends(Protocol):
    """The part of a guarded call that :class:`Output` uses.

    Attributes:
        images: number of images in the batch.
    """

    images: int

    def ended(self) -> Sequence[Image]:
        """Return the predicted images if the call ended with latents that are still noisy; otherwise none."""

    def decoded(self, latents: Tensor) -> list[Image]:
        """Decode latents in the sampler's form to pictures."""

    def encoded(self, picture: Image, like: Tensor) -> Tensor:
        """Encode a picture as latents in the sampler's form, [B, ...], the same for every image of the batch."""


class Output:
    """The result of a pipeline's call, whose images can be read, replaced and merged.

    Args:
        result: an output object; with ``return_dict=False`` a tuple that starts with the images or videos; a list or an
            array of images or videos; or the state of a modular pipeline.
        kind: the call's ``output_type``: pil, np, pt or latent.
        call: the guarded call.
    """

    def __init__(self, result: Any, kind: str, call: Ends) -> None:
        self._result = result
        self._call = call
        self._name, self._items = _items(result)
        self._bare = result is self._items
        shapes = {item.shape for item in self._items if isinstance(item, np.ndarray)}
        if isinstance(self._items, list) and len(shapes) == 1:  # such as layers of pictures
            self._items = np.stack(self._items)
        # Go by the result itself: diffusers returns arrays for an unknown output_type.
        latent = kind == "latent" or self._name == "latents"
        if isinstance(self._items, np.ndarray) or shapes:
            self._kind = "np"
        else:
            self._kind = "pil" if isinstance(self._items, list) else "latent" if latent else "pt"
        first = self._items[0]
        self._videos = self._kind != "latent" and (
            isinstance(first, list) if self._kind == "pil" else first.ndim == _OF_VIDEOS - 1
        )

    def pictures(self) -> list[Image]:
        """Return the RGB pictures to query, as :func:`faces` makes them; for a video, some of its frames."""
        if ended := self._call.ended():
            return list(ended)
        if self._kind == "latent":
            return self._call.decoded(self._items)
        return faces([frame for index in range(len(self._items)) for frame in self._frames(index, some=True)])

    def _frames(self, index: int, *, some: bool) -> list[Image]:
        """Return the pictures of one item of the result: an image itself, or all or some frames of a video."""
        item = self._items[index]
        if self._videos and some:
            chosen = frames(len(item))
            item = [item[frame] for frame in chosen] if self._kind == "pil" else item[chosen]
        if self._kind == "pil":
            return list(item) if self._videos else [item]
        pixels = torch.from_numpy(item).movedim(-1, -3) if self._kind == "np" else item.float()
        return autoencoder.to_pictures(pixels if self._videos else pixels[None])

    def delivered(self, outcomes: Sequence[Outcome], policy: Policy) -> Any:
        """Return the result with every image unchanged, blurred or replaced by a notice, as its outcome requires.

        If all images pass, this is the same object.

        Args:
            outcomes: outcomes of the images.
            policy: the policy in force; it defines the notice in place of a withheld image.
        """
        flags = [withheld(outcome) for outcome in outcomes]
        covered = [index for index, outcome in enumerate(outcomes) if flags[index] or outcome is Outcome.BLURRED]
        if not covered:
            return self._result
        if self._kind == "latent":
            items = self._latents(covered, outcomes)
        else:
            items = self._with({index: self._shown(index, outcomes[index], policy) for index in covered})
        return self._holding(items, flags, covered)

    def merged(self, other: Output, images: Sequence[int]) -> Output:
        """Return this result with some images replaced by those of another result of the same call."""
        per_image = len(self._items) // self._call.images if self._kind == "latent" else 1
        rows = [row for index in images for row in range(index * per_image, (index + 1) * per_image)]
        if self._kind == "pil":
            items: Any = [other._items[row] if row in rows else item for row, item in enumerate(self._items)]
        else:
            items = self._items.copy() if self._kind == "np" else self._items.clone()
            items[rows] = other._items[rows]
        result = self._holding(items, [False] * self._call.images, images)
        return Output(result, self._kind, self._call)

    def _shown(self, index: int, outcome: Outcome, policy: Policy) -> list[Image]:
        if withheld(outcome):
            return [cover(policy, outcome, self._size(), lambda: self._frames(index, some=True)[0])]
        return [blurred(picture) for picture in self._frames(index, some=False)]

    def _holding(self, items: Any, flags: list[bool], covered: Sequence[int]) -> Any:
        """Return the result with other images or videos in it; if it has NSFW flags, set those of withheld images."""
        result = self._result
        if self._bare:
            return items
        if isinstance(result, tuple):
            had = result[1] if len(result) > 1 else None
            return (items, _flagged(had, flags), *result[2:]) if len(result) > 1 else (items,)
        if hasattr(result, "values") and isinstance(result.values, dict):  # also empty other tensors of these images
            result.values.update(_without(result.values, covered, len(flags)), **{self._name: items})
            return result
        if self._name:
            result[self._name] = items
        if "nsfw_content_detected" in getattr(result, "__dataclass_fields__", {}):
            result.nsfw_content_detected = _flagged(result.nsfw_content_detected, flags)
        return result

    def _size(self) -> tuple[int, int]:
        """Return width and height of the images in pixels, without converting them, because that can have failed."""
        if self._kind == "pil":
            first = self._items[0]
            width, height = (first[0] if self._videos else first).size
            return width, height
        rows, columns = (-3, -2) if self._kind == "np" else (-2, -1)
        return self._items[0].shape[columns], self._items[0].shape[rows]

    def _with(self, replaced: Mapping[int, list[Image]]) -> Any:
        """Return the images or videos with some replaced; a single picture replaces every frame of a video."""
        if self._kind == "pil":
            new = {
                index: pictures * (len(self._items[index]) // len(pictures)) if self._videos else pictures[0]
                for index, pictures in replaced.items()
            }
            return [new.get(index, item) for index, item in enumerate(self._items)]
        items = self._items.copy() if self._kind == "np" else self._items.clone()
        for index, pictures in replaced.items():
            pixels = autoencoder.to_tensor(pictures)
            if items[index].shape[_CHANNELS[self._kind]] == _WITH_ALPHA:
                pixels = F.pad(pixels, (0, 0, 0, 0, 0, 1), value=1.0)  # opaque, so that nothing shows through
            pixels = pixels if self._videos else pixels[0]
            if self._kind == "np":
                made = pixels.movedim(-3, -1).numpy().astype(items[index].dtype)
                items[index] = np.broadcast_to(made, items[index].shape)  # items with layers may have several
            else:
                items[index] = pixels.to(items)
        return items

    def _latents(self, covered: Sequence[int], outcomes: Sequence[Outcome]) -> Tensor:
        """Replace the latents of some images by those of another picture, or by zeros if that fails."""
        items: Tensor = self._items.clone()
        per_image = len(items) // self._call.images
        for index in covered:
            rows = slice(index * per_image, (index + 1) * per_image)
            items[rows] = 0
            try:
                picture = self._instead(index, outcomes[index])
                items[rows] = self._call.encoded(picture, self._items)[rows].to(items)
            except Exception:  # noqa: BLE001, S112 (zeros reveal nothing either)
                continue
        return items

    def _instead(self, index: int, outcome: Outcome) -> Image:
        """Return the picture whose latents replace those of an image: grey if it is withheld, otherwise blurred."""
        if withheld(outcome):
            return blank((_COVER, _COVER))  # words would not survive an autoencoder
        pictures = self.pictures()
        return blurred(pictures[index * (len(pictures) // self._call.images)])


def _items(result: Any) -> tuple[Any, Any]:
    """Return the name and the value of the images or videos in a result.

    Raises:
        CannotSteer: the result holds neither images nor videos.
    """
    if isinstance(result, tuple) and not hasattr(result, "keys"):
        return 0, result[0]
    if isinstance(result, list | np.ndarray | torch.Tensor):
        return "", result
    values = result.values if isinstance(getattr(result, "values", None), dict) else dict(result)
    names = ("images", "videos", "frames", "image", "video", "latents")
    name = next((candidate for candidate in names if values.get(candidate) is not None), next(iter(values), None))
    if values.get(name) is None:
        raise CannotSteer("the call returns no images", hint="Ask it for its images.")
    return name, values[name]


def _without(values: Mapping[str, Any], covered: Sequence[int], images: int) -> dict[str, Any]:
    """Return the tensors of a modular pipeline's state that can hold pictures, with the rows of some images zeroed."""
    emptied = {}
    for name, value in values.items():
        if isinstance(value, torch.Tensor) and value.ndim >= _OF_PICTURES and value.shape[0] == images:
            emptied[name] = value.clone()
            emptied[name][list(covered)] = 0
    return emptied


def _flagged(before: Any, flags: list[bool]) -> list[bool]:
    return [bool(had) or flag for had, flag in zip(before or [False] * len(flags), flags, strict=True)]
