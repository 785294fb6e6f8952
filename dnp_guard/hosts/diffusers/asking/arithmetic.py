"""Find out what a pipeline computes from its denoiser's answers, by running its own arithmetic on made-up answers."""

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
"""Relative error that half precision may have."""


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How the pipeline computes the guided prediction from the denoiser's answers.

    Attributes:
        sign: sign of the guided prediction that the scheduler gets, relative to the denoiser's answers.
        weight: None if a tensor that is added to all branches is added to the guided prediction as it is; otherwise
            the weight of the unconditional branch.
        shape: shape of the guided prediction, [B, ...]; it may be a part of an answer.
        order: index in an answer of every number of the guided prediction; None if the prediction is the beginning of
            the answer, or the whole answer in another shape.
        last: whether the guided prediction is the last tokens of an answer, as when words come first, not the first.
    """

    sign: int
    weight: float | None
    shape: tuple[int, ...]
    order: Tensor | None = None
    last: bool = False

    def cut(self, value: Tensor) -> Tensor:
        """Return the tokens and channels of a denoiser's answer that the scheduler gets, in the scheduler's form."""
        if self.order is not None:
            return value.flatten(1)[:, self.order].view(-1, *self.shape[1:])
        if value.ndim != len(self.shape):
            return value.view(-1, *self.shape[1:])
        return value[_corner(self.shape, last=self.last)]

    def spread(self, part: Tensor, like: Tensor) -> Tensor:
        """Return the reverse of :meth:`cut`: a denoiser's answer that is zero outside the part, [len(part), ...]."""
        whole = like.new_zeros(len(part), *like.shape[1:])
        if self.order is not None:
            whole.flatten(1)[:, self.order] = part.flatten(1).to(like)
        else:
            self.cut(whole).copy_(part)
        return whole


def ask(own: FirstStep, made: Ask) -> Arithmetic:
    """Run the arithmetic on very different branches, and then with the same tensor added to all of them.

    Args:
        own: the first step of the call.
        made: runs a copy whose denoiser gives the answers that it is told to; returns the guided prediction.

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
    """Return the guided prediction of a copy whose denoiser gives these answers, one per evaluation."""
    return made(lambda place, output: arguments.with_first(output, answers[place]))


def _order(guided: Tensor, answer: Tensor, made: Ask) -> Tensor | None:
    """Return where each number of the guided prediction is in an answer; None if its shape tells.

    Raises:
        CannotSteer: the guided prediction is not made of the answer's numbers.
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
    """Determine the weight of the unconditional branch, with two patterns that have equal norms and deviations."""
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
    """Return the same random numbers for every branch of every answer, as large as the answers.

    Args:
        answers: answers of a step.
        images: number of images in the batch.
        last: whether the numbers go into the last tokens of a larger answer, rather than the first.
    """
    one = _random(min(answers, key=lambda answer: answer[0].numel())[:images], -1)
    made = []
    for answer in answers:
        whole = answer.new_zeros(answer.shape, dtype=one.dtype)
        whole[_corner(one.shape, last=last)] = one.repeat(len(answer) // images, *[1] * (one.ndim - 1))
        made.append(whole)
    return made


def _corner(shape: Sequence[int], *, last: bool) -> tuple[slice, ...]:
    """Return slices for the part of a larger tensor with a given shape, except for rows: its first or last tokens."""
    first = [slice(size) for size in shape[1:]]
    return (slice(None), slice(-shape[1], None), *first[1:]) if last else (slice(None), *first)


def _random(like: Tensor, seed: int) -> Tensor:
    """Return random numbers in the shape of another tensor."""
    generator = torch.Generator().manual_seed(seed + 2)
    return torch.randn(like.shape, generator=generator).to(like.device)


def _pattern(like: Tensor, signs: Sequence[int]) -> Tensor:
    """Return signs that repeat along the last dimension."""
    row = torch.tensor(signs, dtype=torch.float32, device=like.device).repeat(like.shape[-1] // len(signs) + 1)
    return row[: like.shape[-1]].expand(like.shape).clone()


def _close(one: Tensor, other: Tensor) -> bool:
    scale = other.abs().max()
    return bool(scale > 0 and (one - other).abs().max() <= _CLOSE * scale)


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))
