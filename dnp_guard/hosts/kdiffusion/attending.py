"""Find the attention layers of a model that k-diffusion samples, and the rows of its batch that hold the prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from dnp_guard.errors import CannotSteer
from dnp_guard.generation.reach import in_attention
from dnp_guard.hosts.kdiffusion.layers import Layers
from dnp_guard.steering.attention import NotReached, Part
from dnp_guard.steering.effect import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

    from dnp_guard.hosts.kdiffusion.layers import Rows
    from dnp_guard.policy import Policy
    from dnp_guard.steering.branch import Term

_WORDS = ("crossattn", "c_crossattn")
"""Keys of a conditioning dict that hold the tokens of the prompt."""


def reached(policy: Policy, candidates: Iterable[Any], cond: Any) -> Layers | None:
    """Return the attention layers in which to steer a run; None to steer the model's outputs instead.

    Args:
        policy: the policy in force.
        candidates: objects among which to look for the network, a torch module with such layers.
        cond: the user's conditioning of the run.

    Raises:
        CannotSteer: the policy steers only in attention, and no such layers or no prompt tokens are found.
    """
    if not in_attention(policy, shown=True):
        return None
    networks = [candidate for candidate in candidates if isinstance(candidate, torch.nn.Module)]
    match = next(((network, layers) for network in networks if (layers := Layers(network))), None)
    if match is None or tokens(cond) is None:
        if not in_attention(policy, shown=False):
            return None
        raise CannotSteer(
            "guidance mode 'attention' needs the layers attn2 of the network, and tokens [B, tokens, width] as `cond`",
            hint="Give KDiffusion network=… if neither model nor denoise is a torch module, or use mode 'auto'.",
        )
    network, layers = match
    return layers if in_attention(policy, shown=any(map(shown, network.modules()))) else None


def tokens(conditioning: Any) -> Tensor | None:
    """Return the prompt tokens in a conditioning, [N, tokens, width]; None if its form is not known."""
    if isinstance(conditioning, dict):
        return next((tokens(conditioning[key]) for key in _WORDS if key in conditioning), None)
    if isinstance(conditioning, list | tuple) and len(conditioning) == 1:
        one = conditioning[0]
        return tokens(one[None] if isinstance(one, torch.Tensor) and one.ndim == 2 else one)  # noqa: PLR2004 (no batch)
    fits = isinstance(conditioning, torch.Tensor) and conditioning.ndim == 3  # noqa: PLR2004 (batch, tokens, width)
    return conditioning if fits else None


def parts(active: Mapping[int, Term]) -> list[Part]:
    """List the negatives that steer in attention space, to be applied one after the other; list equal ones once.

    Args:
        active: the negative of every steered image, by the image's index.

    Raises:
        NotReached: a negative has no tokens.
    """
    alike: dict[Any, list[int]] = {}
    contexts: dict[str, Tensor] = {}
    for image, term in active.items():
        for turn, part in enumerate(term.parts):
            if part.attention is None or not part.attention.acts:
                continue
            alike.setdefault((turn, part.text, part.attention), []).append(image)
            if (context := tokens(part.conditioning)) is None:
                raise NotReached("a negative has no tokens")
            contexts[part.text] = context
    return [
        Part(tuple(images), contexts[text], how.phi, how.tau, how.alpha, how.mask)
        for (_, text, how), images in sorted(alike.items(), key=lambda item: item[0][0])
    ]


def rows_of(cond: Any) -> Rows:
    """Return a function that finds the batch row of each image's prompt in the prompt tokens of an evaluation.

    Args:
        cond: the user's conditioning of the run, by whose tokens the rows are recognised.
    """
    words = tokens(cond)

    def rows(context: Tensor) -> dict[int, int]:
        if words is None or context.shape[1:] != words.shape[1:]:
            return {}
        own = words.to(context)
        same = [[bool(torch.equal(row, word)) for row in context] for word in own]
        by_image: dict[int, int] = {}
        for image, places in enumerate(same):
            alike = [other for other, theirs in enumerate(same) if theirs == places]
            held = [row for row, is_own in enumerate(places) if is_own]
            if held and len(held) != len(alike):
                raise NotReached("some rows of the evaluation cannot be told apart, as under an empty prompt")
            if held:
                by_image[image] = held[alike.index(image)]
        return by_image

    return rows
