"""Steer inside the cross-attention of a UNet, through the patches that ComfyUI and Forge offer for its blocks.

A ``BasicTransformerBlock`` of ComfyUI (``comfy/ldm/modules/attention.py``) or of Forge (``backend/nn/unet.py``) reads
the prompt in its layer ``attn2``. If ``transformer_options["patches_replace"]`` holds a patch for this layer, the
block calls the patch with queries, keys and values, and projects its output. The guard installs its patches for one
evaluation of the network only. A patch of another extension stays in use: the guard's patch calls it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from .attention import NotReached, Part, normalised

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from .messages import Negative

    Block = tuple[str, int, int]
    """Key of a patch: ``input``, ``middle`` or ``output``, the block's number, and the transformer's number in it."""

_ATTN2 = re.compile(r"(input|middle|output)_blocks?\.(\d+)\.(?:.*\.)?transformer_blocks\.(\d+)\.attn2")


def parts(active: Mapping[int, Negative], context: Callable[[str], Tensor]) -> list[Part]:
    """List the negative prompts that steer in attention space, with the images that they steer.

    Equal negative prompts of several images share one entry. An image with several parts is steered away from one
    after the other, so the entries of all first parts come first.

    Args:
        active: maps the index of a steered image to its negative.
        context: encodes words to their conditioning, [1, tokens, width].
    """
    alike: dict[Any, list[int]] = {}
    for image, negative in active.items():
        how = negative.attention
        if how is not None and how.phi > 1 and how.alpha > 0:
            for turn, text in enumerate(how.parts):
                alike.setdefault((turn, text, how.phi, how.tau, how.alpha, how.mask), []).append(image)
    return [
        Part(tuple(images), context(text), *how)
        for (_, text, *how), images in sorted(alike.items(), key=lambda item: item[0][0])
    ]


def blocks(network: Any) -> dict[Block, Any]:
    """Return the ``attn2`` layers of a UNet by the keys of their patches; empty for another kind of network."""
    layers: dict[Block, Any] = {}
    for name, module in network.named_modules() if hasattr(network, "named_modules") else ():
        if (match := _ATTN2.fullmatch(name)) and all(
            hasattr(module, projection) for projection in ("to_q", "to_k", "to_v")
        ):
            where, number, index = match.groups()
            # There is one middle block, which the host numbers 0 whatever the index of its module.
            layers[where, 0 if where == "middle" else int(number), int(index)] = module
    return layers


class Patched:
    """Patches that steer the attention while the host evaluates a network.

    Args:
        layers: the layers, from :func:`blocks`.
        acting: the negatives in the order in which they act, from :func:`parts`.
        attend: the host's own attention function of queries, keys, values and the block's options.
        prompt: number that marks the prompt's rows in the host's ``cond_or_uncond``.

    Attributes:
        failure: the reason why an image was not steered; None if all were.
    """

    def __init__(
        self, layers: Mapping[Block, Any], acting: Sequence[Part], attend: Callable[..., Tensor], prompt: int = 0
    ) -> None:
        self._layers, self._parts, self._attend, self._prompt = layers, acting, attend, prompt
        self._error: Exception | None = None
        self._reached = False

    @property
    def failure(self) -> Exception | None:
        """The error that kept an image from being steered; None if all were steered."""
        return self._error or (None if self._reached else NotReached("no layer of the network read the prompt"))

    def options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return a copy of the host's ``transformer_options`` with the patches added."""
        replaced = given.get("patches_replace", {})
        before = replaced.get("attn2", {})
        own = {
            block: self._patch(layer, before.get(block) or before.get(block[:2]))
            for block, layer in self._layers.items()
        }
        return {**given, "patches_replace": {**replaced, "attn2": {**before, **own}}}

    def _patch(self, layer: Any, before: Any) -> Callable[..., Tensor]:
        attend = before or self._attend

        def patch(q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Tensor:
            z = attend(q, k, v, options)
            try:
                return self._steered(z, q, k, layer, options, before)
            except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
                self._error = error
                return z

        return patch

    def _steered(self, z: Tensor, q: Tensor, k: Tensor, layer: Any, options: dict[str, Any], before: Any) -> Tensor:
        marks = options["cond_or_uncond"]
        images = len(q) // len(marks)
        chunks = [place * images for place, mark in enumerate(marks) if mark == self._prompt]
        if not chunks:
            return z
        steered = z.clone()
        for part in self._parts:
            rows = [start + image for start in chunks for image in part.images]
            context = part.context.to(k)
            keys, values = layer.to_k(context), layer.to_v(context)
            if before is None:
                z_neg = self._attend(q[rows], *(tensor.expand(len(rows), -1, -1) for tensor in (keys, values)), options)
            else:  # the other patch may rely on the number of the host's rows
                z_neg = before(q, *(tensor.expand(len(q), -1, -1) for tensor in (keys, values)), options)[rows]
            steered[rows] = normalised(steered[rows], z_neg, part.phi, part.tau, part.alpha, part.mask)
        self._reached = True
        return steered
