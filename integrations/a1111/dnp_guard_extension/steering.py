"""Apply negatives inside the host's classifier-free guidance.

``replace`` puts a negative into the unconditional that the host is about to evaluate, which costs nothing. ``separate``
has the model evaluated once more for the images concerned, after the host has combined its own answers, and adds delta
to them (``attention`` steers inside the model, see ``attending``, and may have this term beside it):

    D' = D - s (D_n - D_u)

where D is the sampler's input (x̂0 for samplers by sigma, noise for samplers by timesteps), D_n the model's output for
the negative and D_u its output for the unconditional. This equals VL-DNP's equation (arXiv 2510.26052),
e' = e_u + g (e_c - e_u) - s (e_n - e_u), in either form, because x̂0 is linear in e. Images without a negative keep
every bit.
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
"""Conditionings to keep beside those of the negatives that steer the attention one by one."""


class Steering:
    """The negatives of one sampling pass at work.

    Args:
        negatives: negatives in force, one per image; changed from outside between calls of the denoiser.
        shown: whether steering in attention space was shown to work for the checkpoint that the batch began with.
    """

    def __init__(self, negatives: Sequence[Negative | None], *, shown: bool | None = None) -> None:
        self.negatives = negatives
        self.failed = False
        """Whether an error kept a negative from being applied."""
        self.lost = False
        """Whether the attention was out of reach for a negative that should steer there."""
        self._attending = Attending(shown=shown)
        self._guided = True
        self._call: host.Call | None = None
        self._uncond: torch.Tensor | None = None
        self._encoded: dict[tuple[Any, tuple[str, ...]], Any] = {}
        self._skips: float | None = None

    def before(self, params: Any) -> None:
        """Keep the model's input before a call, and replace the unconditional if a negative asks for it."""
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
        """Have the host evaluate the unconditional at every call while a negative replaces it; NGMS skips some."""
        if self._call is None:
            return
        extra = self._call.denoiser.sampler.sampler_extra_args
        if self._replacing() and self._skips is None:
            self._skips, extra["s_min_uncond"] = extra.get("s_min_uncond"), 0.0
        elif not self._replacing() and self._skips is not None:
            extra["s_min_uncond"], self._skips = self._skips, None

    def answered(self, params: Any) -> None:
        """Keep the model's output for the unconditional before guidance, if the host shows it."""
        at = self._call
        if at is not None and self._separate() and self._guided:
            self._uncond = params.x[-at.images :].clone()

    def after(self, params: Any) -> None:
        """Add delta after guidance, for the images with a separate term."""
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
        """Return whether a negative can take effect at later calls; in place of the unconditional that must matter."""
        if self.failed or self._call is None:
            return False
        return mode != "replace" or host.counts(self._call.denoiser)

    def released(self) -> None:
        """Undo the changes to the host."""
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
        """Replace the unconditional's rows of the images to steer.

        The whole batch is encoded at once, so that all rows have the length of the longest; the host's own rows stay
        if that length does not exceed theirs.
        """
        texts = host.negatives(at.denoiser)
        for row, negative in replacing.items():
            texts[row] = words.unconditional(negative.text, texts[row])
        mine = self._encode(texts)
        if mine.shape != at.uncond.shape:
            return _each(mine, mine, lambda new, _: new)  # the host pads a dictionary in place, and this one is cached
        unchanged = [row for row in range(at.images) if row not in replacing]
        return _each(mine, at.uncond, lambda new, own: _rows_of(new, own.to(new), unchanged))

    def _unconditional(self, at: host.Call, rows: Sequence[int]) -> Any:
        if at.uncond is not None:
            index = torch.tensor(list(rows), device=at.x.device)
            return _each(at.uncond, at.uncond, lambda tensor, _: tensor[index])
        texts = host.negatives(at.denoiser)
        return self._encode([texts[row] for row in rows])

    def _encode(self, texts: Sequence[str]) -> Any:
        """Encode with a cache, because every call needs the same negative until the next look."""
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
    """Apply a function to two conditionings, tensor by tensor."""
    if not isinstance(first, dict):
        return function(first, second)
    return type(first)({name: function(tensor, second[name]) for name, tensor in first.items()})


def _rows_of(new: torch.Tensor, own: torch.Tensor, unchanged: Sequence[int]) -> torch.Tensor:
    merged = new.clone()
    merged[list(unchanged)] = own[list(unchanged)]
    return merged
