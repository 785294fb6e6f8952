"""Find out how a pipeline combines its denoiser's outputs, by running its own arithmetic on made-up outputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from dnp_guard.errors import CannotSteer
from dnp_guard.hosts.diffusers.asking import arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from dnp_guard.hosts.diffusers.asking.capture import FirstStep
    from dnp_guard.hosts.diffusers.asking.places import Places

    Ask = Callable[[Callable[[int, Any], Any]], Tensor]
    """Takes a function from an evaluation's number and own output to a new output; returns the guided prediction."""

_CLOSE = 2e-2
"""Largest relative error to expect in half precision."""


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How a pipeline computes the guided prediction, which its scheduler gets, from the denoiser's outputs.

    Attributes:
        sign: 1, or -1 if the guided prediction has the opposite sign of the denoiser's outputs.
        weight: weight of the unconditional branch, to whose output the steering is added; None if the steering is added
            to the guided prediction itself.
        shape: shape of the guided prediction, [B, ...]; it can be a part of an output.
        order: for every number of the guided prediction, its index in an output; None if the prediction is the
            beginning of the output, or the whole output in another shape.
        last: whether the guided prediction is the last tokens of an output, because text tokens come first.
    """

    sign: int
    weight: float | None
    shape: tuple[int, ...]
    order: Tensor | None = None
    last: bool = False

    def cut(self, value: Tensor) -> Tensor:
        """Cut a denoiser's output to the tokens and channels that the scheduler gets, in the shape that it gets."""
        if self.order is not None:
            return value.flatten(1)[:, self.order].view(-1, *self.shape[1:])
        if value.ndim != len(self.shape):
            return value.view(-1, *self.shape[1:])
        return value[_corner(self.shape, last=self.last)]

    def spread(self, part: Tensor, like: Tensor) -> Tensor:
        """Reverse :meth:`cut`: return a tensor in the shape of a denoiser's output that is zero outside the part."""
        whole = like.new_zeros(len(part), *like.shape[1:])
        if self.order is not None:
            whole.flatten(1)[:, self.order] = part.flatten(1).to(like)
        else:
            self.cut(whole).copy_(part)
        return whole


def ask(own: FirstStep, made: Ask) -> Arithmetic:
    """Determine how a pipeline combines the outputs of its guidance branches, except for the unconditional weight.

    The pipeline's own arithmetic runs on very different made-up outputs, and then on the same outputs with one tensor
    added to all of them; the difference shows how the tensor arrives in the guided prediction.

    Args:
        own: the first step of the call.
        made: runs the call on a copy whose denoiser returns given outputs; returns the guided prediction.

    Raises:
        CannotSteer: the added tensor cannot be traced to the guided prediction.
    """
    answers = [arguments.first_of(evaluation.output) for evaluation in own.evaluations]
    images = own.sample.shape[0]
    apart = [_random(answer, place) for place, answer in enumerate(answers)]
    plain = _answered(made, apart)
    plainly = Arithmetic(1, None, tuple(plain.shape), _order(plain, answers[0], made))
    for candidate in (plainly, replace(plainly, last=True)):
        added = _like_answers(answers, images, last=candidate.last)
        moved_to = _answered(made, [one + more for one, more in zip(apart, added, strict=True)])
        expected = candidate.cut(added[0].to(plain.device))[:images].float()
        moved = moved_to.float() - plain.float()
        for sign in (1, -1):
            if _close(moved, sign * expected):
                return replace(candidate, sign=sign)
        if plain.shape[1:] == answers[0].shape[1:]:
            break
    added = _like_answers(answers, images, last=False)
    expected = plainly.cut(added[0].to(plain.device))[:images].float()
    alone = _answered(made, added).float()
    return replace(plainly, sign=-1 if (alone * expected).sum() < 0 else 1, weight=0.0)


def _answered(made: Ask, answers: Sequence[Tensor]) -> Tensor:
    """Return the guided prediction of a copy whose denoiser returns these outputs, one per evaluation."""
    return made(lambda place, output: arguments.with_first(output, answers[place]))


def _order(guided: Tensor, answer: Tensor, made: Ask) -> Tensor | None:
    """Return, for every number of the guided prediction, its index in a denoiser's output; None if the shapes tell it.

    Raises:
        CannotSteer: the guided prediction does not consist of the output's numbers.
    """
    of_answer, of_guided = answer.shape[1:], guided.shape[1:]
    if len(of_answer) == len(of_guided):
        if all(a >= b for a, b in zip(of_answer, of_guided, strict=True)):
            return None
    elif tuple(a for a in of_answer if a != 1) == tuple(b for b in of_guided if b != 1):
        return None
    count = of_answer.numel()
    numbers = torch.arange(count, dtype=torch.float32, device=answer.device).view(of_answer)
    alone = made(lambda _, output: arguments.mapped(output, lambda first: numbers.expand(first.shape)))
    order = alone[0].float().abs().flatten()
    if order.numel() > count or not torch.equal(order.unique(), order.sort().values) or order.max() >= count:
        raise CannotSteer(
            f"its scheduler is given {_size(guided)} where its denoiser answers {_size(answer)}: what is added to the "
            "one cannot be followed to the other",
            hint="Use another pipeline of the same model.",
        )
    return order.long()


def weighed(arithmetic: Arithmetic, places: Places, own: FirstStep, made: Ask) -> Arithmetic:
    """Measure the weight of the unconditional branch, and return a copy of the arithmetic with it.

    The unconditional branch gets another pattern of numbers than the other branches. Both patterns have equal norms and
    deviations, so that a pipeline that rescales or normalises treats them alike. The weight is None without guidance,
    if the result is no weighted sum of the patterns, or if the weight is nearly zero.
    """
    if places.of_step == places.branches == 1:  # there is no guidance
        return replace(arithmetic, weight=None)
    answers = [arguments.first_of(evaluation.output) for evaluation in own.evaluations]
    one, other = _pattern(answers[places.place], (1, -1)), _pattern(answers[places.place], (1, 1, -1, -1))

    def given(place: int, output: Any) -> Any:
        value = _pattern(arguments.first_of(output), (1, -1))
        if place == places.place:
            value[list(places.rows)] = other[list(places.rows)]
        return arguments.with_first(output, value)

    guided = made(given).float()
    first, second = (arithmetic.cut(pattern[: guided.shape[0]]).to(guided) for pattern in (one, other))
    a, b = ((guided * pattern).sum() / (pattern * pattern).sum() for pattern in (first, second))
    total = float(a + b)
    if not _close(guided, a * first + b * second) or abs(total) < _CLOSE or abs(float(b) / total) < _CLOSE:
        return replace(arithmetic, weight=None)  # delta is added to the guided prediction instead
    return replace(arithmetic, weight=float(b) / total)


def _like_answers(answers: Sequence[Tensor], images: int, *, last: bool) -> list[Tensor]:
    """Return tensors in the shapes of a denoiser's outputs, with the same random numbers for every branch.

    Args:
        answers: the denoiser's outputs in a step.
        images: number of images in the batch.
        last: whether the numbers go into the last tokens of a larger output, rather than the first.
    """
    one = _random(min(answers, key=lambda answer: answer[0].numel())[:images], -1)
    made = []
    for answer in answers:
        whole = answer.new_zeros(answer.shape, dtype=one.dtype)
        whole[_corner(one.shape, last=last)] = one.repeat(len(answer) // images, *[1] * (one.ndim - 1))
        made.append(whole)
    return made


def _corner(shape: Sequence[int], *, last: bool) -> tuple[slice, ...]:
    """Return slices that cut a larger tensor to ``shape`` in all dimensions but the first, at its start or end."""
    first = [slice(size) for size in shape[1:]]
    return (slice(None), slice(-shape[1], None), *first[1:]) if last else (slice(None), *first)


def _random(like: Tensor, seed: int) -> Tensor:
    """Return random numbers in the shape of another tensor."""
    generator = torch.Generator().manual_seed(seed + 2)
    return torch.randn(like.shape, generator=generator).to(like.device)


def _pattern(like: Tensor, signs: Sequence[int]) -> Tensor:
    """Return a tensor in the shape of another one, filled with ``signs``, repeated along the last dimension."""
    row = torch.tensor(signs, dtype=torch.float32, device=like.device).repeat(like.shape[-1] // len(signs) + 1)
    return row[: like.shape[-1]].expand(like.shape).clone()


def _close(one: Tensor, other: Tensor) -> bool:
    scale = other.abs().max()
    return bool(scale > 0 and (one - other).abs().max() <= _CLOSE * scale)


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))
