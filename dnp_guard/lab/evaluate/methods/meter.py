"""Count the evaluations of the denoiser per image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn


class Meter:
    """Counter of the evaluations of a denoiser, as batch rows that pass through it inside a ``with`` block.

    The sampler's own call has one row per image and branch. Every further row, in that call or in a later one, is an
    extra evaluation for one image, which the meter recognises by its latents.

    Args:
        denoiser: model whose rows are counted.
        images: B, the size of the batch.
        branches: number of branches of the sampler's own call: two with classifier-free guidance, one without it. None
            if that is not known; then every image gets the mean of all rows.

    Attributes:
        evaluations: number of evaluations per image.
    """

    def __init__(self, denoiser: nn.Module, images: int, branches: int | None = 2) -> None:
        self.evaluations: list[float] = [0] * images
        self._denoiser, self._branches = denoiser, branches
        self._latents: Sequence[Tensor] = ()
        self._handle: Any = None

    def __enter__(self) -> Self:
        self._handle = self._denoiser.register_forward_hook(self._count, with_kwargs=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()

    def _count(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        sample = args[0] if args else next(kwargs[name] for name in _INPUTS if name in kwargs)
        images = len(self.evaluations)
        if self._branches is None:
            self.evaluations = [count + len(sample) / images for count in self.evaluations]
            return
        if self._is_the_samplers(sample, images, self._branches):
            self._latents = sample[:images].detach().unbind()
            self.evaluations = [count + self._branches for count in self.evaluations]
            sample = sample[self._branches * images :]
        unclaimed = set(range(images))  # two images of one seed have the same latents
        for row in sample:
            same = [at for at, latents in enumerate(self._latents) if row.equal(latents)]
            free = [at for at in same if at in unclaimed] or same or sorted(unclaimed)
            image = free[0]  # an image may have several negatives
            unclaimed.discard(image)
            self.evaluations[image] += 1

    def _is_the_samplers(self, sample: Tensor, images: int, branches: int) -> bool:
        """Return whether a call of the denoiser is the sampler's own, not one for further prompts."""
        if len(sample) < branches * images:
            return False
        # With one branch, a call for the negatives of all images has the same latents as the sampler's own call.
        again = len(self._latents) == images and all(map(Tensor.equal, sample, self._latents))
        return branches > 1 or not again


_INPUTS = ("sample", "hidden_states", "x")
