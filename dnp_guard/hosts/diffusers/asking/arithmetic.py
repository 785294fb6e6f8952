"""What a pipeline makes of its denoiser's answers, asked of its own arithmetic with answers of the guard's making."""

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
    """What the denoiser is to answer, by the number of the evaluation and its own answer, to the guided prediction."""

_CLOSE = 2e-2
"""How far half precision may be off, as a part of what was added."""


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """What the pipeline makes of its branches.

    Attributes:
        sign: of the guided prediction as the scheduler is given it, against the denoiser's answers.
        weight: of the unconditional branch, where what is added to every branch is not simply added to what they give;
            None where it is.
        shape: of the guided prediction, [B, ...], which may be a part of what the denoiser answers.
        order: where each number of it is in an answer; None where it is its beginning, or the same in another shape.
        last: whether it is made of an answer's last tokens, as where words come first, and not of its first.
    """

    sign: int
    weight: float | None
    shape: tuple[int, ...]
    order: Tensor | None = None
    last: bool = False

    def cut(self, value: Tensor) -> Tensor:
        """The tokens and channels of a denoiser's answer that the scheduler is given, as it is given them."""
        if self.order is not None:
            return value.flatten(1)[:, self.order].view(-1, *self.shape[1:])
        if value.ndim != len(self.shape):
            return value.view(-1, *self.shape[1:])
        return value[_corner(self.shape, last=self.last)]

    def spread(self, part: Tensor, like: Tensor) -> Tensor:
        """The reverse: such a part in a denoiser's answer that is zero elsewhere, [len(part), ...]."""
        whole = like.new_zeros(len(part), *like.shape[1:])
        if self.order is not None:
            whole.flatten(1)[:, self.order] = part.flatten(1).to(like)
        else:
            self.cut(whole).copy_(part)
        return whole


def ask(own: FirstStep, made: Ask) -> Arithmetic:
    """Ask with branches far apart, and with the same added to each of them.

    Args:
        own: the first step of the call.
        made: gives the guided prediction of a copy whose denoiser answers as it is told.

    Raises:
        CannotSteer: what is added cannot be followed to the guided prediction.
    """
    answers = [arguments.first_of(each.output) for each in own.evaluations]
    images = own.sample.shape[0]
    apart = [_random(each, place) for place, each in enumerate(answers)]
    plain = _answered(made, apart)
    plainly = Arithmetic(1, None, tuple(plain.shape), _order(plain, answers[0], made))
    for found in (plainly, replace(plainly, last=True)):
        added = _like_answers(answers, images, last=found.last)
        moved_to = _answered(made, [one + more for one, more in zip(apart, added, strict=True)])
        expected = found.cut(added[0].to(plain.device))[:images].float()
        moved = moved_to.float() - plain.float()
        for sign in (1, -1):
            if _close(moved, sign * expected):
                return replace(found, sign=sign)
        if plain.shape[1:] == answers[0].shape[1:]:
            break
    added = _like_answers(answers, images, last=False)
    expected = plainly.cut(added[0].to(plain.device))[:images].float()
    alone = _answered(made, added).float()
    return replace(plainly, sign=-1 if (alone * expected).sum() < 0 else 1, weight=0.0)


def _answered(made: Ask, answers: Sequence[Tensor]) -> Tensor:
    """The guided prediction of a copy whose denoiser answers these, one an evaluation."""
    return made(lambda place, output: arguments.with_first(output, answers[place]))


def _order(guided: Tensor, answer: Tensor, made: Ask) -> Tensor | None:
    """Where each number of the guided prediction is in an answer; None where its shape tells.

    Raises:
        CannotSteer: it is not made of the answer's numbers.
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
    """What the unconditional branch weighs, by two patterns that every norm and deviation sees alike."""
    if places.of_step == places.branches == 1:  # there is nothing to guide by
        return replace(arithmetic, weight=None)
    answers = [arguments.first_of(each.output) for each in own.evaluations]
    one, other = _pattern(answers[places.place], (1, -1)), _pattern(answers[places.place], (1, 1, -1, -1))

    def given(place: int, output: Any) -> Any:
        value = _pattern(arguments.first_of(output), (1, -1))
        if place == places.place:
            value[list(places.rows)] = other[list(places.rows)]
        return arguments.with_first(output, value)

    guided = made(given).float()
    first, second = (arithmetic.cut(each[: guided.shape[0]]).to(guided) for each in (one, other))
    a, b = ((guided * each).sum() / (each * each).sum() for each in (first, second))
    total = float(a + b)
    if not _close(guided, a * first + b * second) or abs(total) < _CLOSE or abs(float(b) / total) < _CLOSE:
        return replace(arithmetic, weight=None)  # then it is added to what was guided
    return replace(arithmetic, weight=float(b) / total)


def _like_answers(answers: Sequence[Tensor], images: int, *, last: bool) -> list[Tensor]:
    """The same random numbers for every branch of every answer, as large as the answers.

    Args:
        answers: of a step.
        images: items of the batch.
        last: whether those of an answer that is larger than another are in its last tokens, and not in its first.
    """
    one = _random(min(answers, key=lambda each: each[0].numel())[:images], -1)
    made = []
    for each in answers:
        whole = each.new_zeros(each.shape, dtype=one.dtype)
        whole[_corner(one.shape, last=last)] = one.repeat(len(each) // images, *[1] * (one.ndim - 1))
        made.append(whole)
    return made


def _corner(shape: Sequence[int], *, last: bool) -> tuple[slice, ...]:
    """The part of a larger tensor that is of a shape but for its rows: the first of all, or the last tokens."""
    first = [slice(size) for size in shape[1:]]
    return (slice(None), slice(-shape[1], None), *first[1:]) if last else (slice(None), *first)


def _random(like: Tensor, seed: int) -> Tensor:
    """Random numbers in the shape of another tensor."""
    generator = torch.Generator().manual_seed(seed + 2)
    return torch.randn(like.shape, generator=generator).to(like.device)


def _pattern(like: Tensor, signs: Sequence[int]) -> Tensor:
    """Signs that repeat along the last dimension."""
    row = torch.tensor(signs, dtype=torch.float32, device=like.device).repeat(like.shape[-1] // len(signs) + 1)
    return row[: like.shape[-1]].expand(like.shape).clone()


def _close(one: Tensor, other: Tensor) -> bool:
    scale = other.abs().max()
    return bool(scale > 0 and (one - other).abs().max() <= _CLOSE * scale)


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))
