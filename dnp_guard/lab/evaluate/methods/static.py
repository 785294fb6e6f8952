"""Static negative prompts: the whole list, or only the right name, from the first step to the last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from dnp_guard.lab.evaluate.methods.sampling import Course, encode, sample
from dnp_guard.steering.guidance import separate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from dnp_guard.lab.evaluate.methods.base import Made, Task
    from dnp_guard.lab.evaluate.methods.sampling import Moment, Words
    from dnp_guard.lab.world.captions import Prompt


@dataclass(frozen=True, slots=True)
class Static:
    """A negative prompt that is there from the first step to the last.

    Attributes:
        name: as the table has it.
        scale: s of the separate term; None for the unconditional slot, where the pipeline's own scale counts.
        right_name: only what the prompt is known to draw, and nothing for one that draws nothing forbidden, which no
            one could know beforehand: naming without timing. Otherwise the whole list.
    """

    name: str
    scale: float | None
    right_name: bool = False
    sampler: ClassVar[str] = "DDIM"

    @property
    def mode(self) -> str:
        """``replace`` without a scale, ``separate`` with one."""
        return "replace" if self.scale is None else "separate"

    def generate(self, task: Task, seeds: Sequence[int], prompts: Sequence[Prompt]) -> list[Made]:
        """Make one batch."""
        lists = [prompt.forbidden if self.right_name else task.concepts for prompt in prompts]
        negatives = {row: listed(names) for row, names in enumerate(lists) if names}
        course: Course = Course(len(prompts))
        if negatives:
            course = (
                _Replaced(len(prompts), negatives)
                if self.scale is None
                else _Separate(len(prompts), list(negatives), encode(task.pipe, list(negatives.values())), self.scale)
            )
        return sample(task, seeds, prompts, course)


def listed(names: Sequence[str]) -> str:
    """A negative prompt of some names, as models know lists."""
    return ", ".join(names)


class _Replaced(Course):
    def __init__(self, images: int, negatives: dict[int, str]) -> None:
        super().__init__(images)
        self.negatives = [negatives.get(row, "") for row in range(images)]
        self.intervened = [row in negatives for row in range(images)]


class _Separate(Course):
    def __init__(self, images: int, rows: list[int], words: Words, scale: float) -> None:
        super().__init__(images)
        self._rows, self._words, self._scale = rows, words, torch.tensor(scale)
        self.intervened = [row in rows for row in range(images)]

    def guided(self, moment: Moment) -> Tensor:
        guided = super().guided(moment).clone()
        e_n = moment.evaluate(self._rows, self._words)
        guided[self._rows] += separate(e_n, moment.e_u[self._rows], self._scale)
        return guided
