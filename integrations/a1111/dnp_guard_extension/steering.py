"""Apply negatives, texts that images are steered away from, inside the host's classifier-free guidance.

A negative has one of three modes. ``replace`` puts it into the negative prompt that the host is about to evaluate,
which costs nothing. ``attention`` steers inside the model, see ``attending``. ``separate`` gives the negative a
guidance term of its own, which ``attention`` may have as well: the model is evaluated once more for the steered images,
and the term is subtracted after the host's own guidance:

    D' = D - s (D_n - D_u)

where D is the guided output (x̂0 for samplers that count in sigmas, noise for samplers that count in timesteps), D_n
the model's output for the negative, D_u its output for the unconditional, and s the negative's scale. This equals
VL-DNP's equation (arXiv 2510.26052), e' = e_u + g (e_c - e_u) - s (e_n - e_u), for noise and for x̂0, because x̂0 is
linear in e. Images without a negative stay the same bit for bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from . import host, words
from .attending import Attending

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .messages import Negative


_BESIDE = 3
"""Number of recently used conditionings to keep in the cache, in addition to those that steer the attention."""


class Steering:
    """The steering of all images of a batch during one sampling pass.

    Args:
        negatives: the current negatives, one per image; the owner changes this list between calls of the denoiser.
        shown: whether steering in attention space was shown to work for the checkpoint that the batch began with.
    """

    def __init__(self, negatives: Sequence[Negative | None], *, shown: bool | None = None) -> None:
        self.negatives = negatives
        self.failed = False
        """Whether an error kept a negative from being applied."""
        self.lost = False
        """Whether a negative of the mode ``attention`` could not be applied."""
        self._attending = Attending(shown=shown)
        self._guided = True
        self._call: host.Call | None = None
        self._uncond: torch.Tensor | None = None
        self._encoded: dict[tuple[Any, tuple[str, ...]], Any] = {}
        self._skips: float | None = None

    def before(self, params: Any) -> None:
        """Prepare a denoiser call: keep its input, replace the negative prompt, and begin to steer the attention."""
        at = self._call = host.call(params)
        self._uncond = None
        self._guided = host.guided(at)
        self.prepare()
        if self._guided and self._replacing():
            params.text_uncond = self._replaced(at, self._replacing())
        self._attending.ends()
        if inside := self._rows("attention"):
            self._attending.begins(at, params.text_cond.shape[0], inside, self._context)

    def prepare(self) -> None:
        """Have the host evaluate the unconditional at every step while a negative replaces it.

        The host's option *negative guidance minimum sigma* would skip it at some steps.
        """
        if self._call is None:
            return
        extra = self._call.denoiser.sampler.sampler_extra_args
        if self._replacing() and self._skips is None:
            self._skips, extra["s_min_uncond"] = extra.get("s_min_uncond"), 0.0
        elif not self._replacing() and self._skips is not None:
            extra["s_min_uncond"], self._skips = self._skips, None

    def answered(self, params: Any) -> None:
        """Keep the model's output for the unconditional before guidance, if the host offers this callback."""
        at = self._call
        if at is not None and self._separate() and self._guided:
            self._uncond = params.x[-at.images :].clone()

    def after(self, params: Any) -> None:
        """Add the separate guidance term of every negative that has one to the guided output."""
        self.lost = self._attending.ends() is not None or self.lost
        at, separate = self._call, self._separate()
        if at is None or not separate:
            return
        rows, chosen = list(separate), list(separate.values())
        index = torch.tensor(rows, device=params.x.device)
        e_n = host.evaluate(at, rows, self._encode([words.literal(negative.text) for negative in chosen]))
        e_u = (
            self._uncond[index] if self._uncond is not None else host.evaluate(at, rows, self._unconditional(at, rows))
        )
        scales = torch.tensor([negative.scale or 0.0 for negative in chosen], device=e_n.device, dtype=e_n.dtype)
        delta = -scales.view(-1, *[1] * (e_n.ndim - 1)) * (e_n - e_u)
        masked = getattr(at.denoiser, "nmask", None) if getattr(at.denoiser, "mask", None) is not None else None
        steered = params.x.clone()
        steered[index] += (delta if masked is None else delta * masked).to(steered)
        params.x = steered

    def works(self, mode: str) -> bool:
        """Return whether a negative of this mode can change the image at later calls.

        ``replace`` needs a sampling pass in which the unconditional matters.
        """
        if self.failed or self._call is None:
            return False
        return mode != "replace" or host.counts(self._call.denoiser)

    def released(self) -> None:
        """Undo the changes to the host's model and sampler."""
        self._attending.ends()
        if self._call is not None and self._skips is not None:
            self._call.denoiser.sampler.sampler_extra_args["s_min_uncond"] = self._skips
        self._call = self._uncond = self._skips = None

    def _rows(self, mode: str) -> dict[int, Negative]:
        return {
            row: negative
            for row, negative in enumerate(self.negatives)
            if negative is not None and negative.mode == mode
        }

    def _replacing(self) -> dict[int, Negative]:
        return self._rows("replace")

    def _separate(self) -> dict[int, Negative]:
        beside = {row: negative for row, negative in self._rows("attention").items() if negative.scale is not None}
        return {**self._rows("separate"), **beside}

    def _context(self, text: str) -> torch.Tensor:
        encoded = self._encode([words.literal(text)])
        context: torch.Tensor = encoded["crossattn"] if isinstance(encoded, dict) else encoded
        return context

    def _replaced(self, at: host.Call, replacing: Mapping[int, Negative]) -> Any:
        """Return the unconditional conditioning, with the guard's negative in the rows of the images to steer.

        All rows of the batch are encoded together, so that they have the same number of tokens. If this is the host's
        number too, the rows of the other images stay the host's own.
        """
        texts = host.negatives(at.denoiser)
        for row, negative in replacing.items():
            texts[row] = words.unconditional(negative.text, texts[row])
        mine = self._encode(texts)
        if mine.shape != at.uncond.shape:
            return _each(mine, mine, lambda new, _: new)  # a copy: the host pads a dictionary in place
        unchanged = [row for row in range(at.images) if row not in replacing]
        return _each(mine, at.uncond, lambda new, own: _rows_of(new, own.to(new), unchanged))

    def _unconditional(self, at: host.Call, rows: Sequence[int]) -> Any:
        if at.uncond is not None:
            index = torch.tensor(list(rows), device=at.x.device)
            return _each(at.uncond, at.uncond, lambda tensor, _: tensor[index])
        texts = host.negatives(at.denoiser)
        return self._encode([texts[row] for row in rows])

    def _encode(self, texts: Sequence[str]) -> Any:
        """Encode texts, with a cache, because all calls until the next look need the same negatives."""
        key = (host.checkpoint(), tuple(texts))
        if key not in self._encoded and self._call is not None:
            denoiser = self._call.denoiser
            inside = {
                text for tensor in self.negatives if tensor and tensor.attention for text in tensor.attention.parts
            }
            recent = list(self._encoded.items())[: _BESIDE + len(inside)]
            self._encoded = {key: host.encode(denoiser.p, texts), **dict(recent)}
            host.resume(denoiser)
        return self._encoded[key]


def _each(first: Any, second: Any, function: Any) -> Any:
    """Apply a function to each pair of tensors of two conditionings, which are tensors or dictionaries of tensors."""
    if not isinstance(first, dict):
        return function(first, second)
    return type(first)({name: function(tensor, second[name]) for name, tensor in first.items()})


def _rows_of(new: torch.Tensor, own: torch.Tensor, unchanged: Sequence[int]) -> torch.Tensor:
    merged = new.clone()
    merged[list(unchanged)] = own[list(unchanged)]
    return merged
