"""Apply static negative prompts from the first step to the last; they name all concepts, or only the right one."""

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
    """Method with one negative prompt from the first step to the last.

    Attributes:
        name: name in the table.
        scale: s of the separate term; None to use the negative as the unconditional prompt, at the pipeline's own
            guidance scale.
        right_name: whether the negative names only the forbidden content that the user's prompt asks for, and is absent
            if there is none; else it names all concepts. No one could know that content beforehand; the row shows the
            effect of the right name without the right time.
    """

    name: str
    scale: float | None
    right_name: bool = False
    sampler: ClassVar[str] = "DDIM"

    @property
    def mode(self) -> str:
        """How the negative enters the guidance: ``replace`` without a scale, ``separate`` with one."""
        return "replace" if self.scale is None else "separate"

    def generate(self, task: Task, seeds: Sequence[int], prompts: Sequence[Prompt]) -> list[Made]:
        """Generate one batch; see :meth:`~dnp_guard.lab.evaluate.methods.base.Method.generate`."""
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
    """Join names into one negative prompt, separated by commas."""
    return ", ".join(names)


class _Replaced(Course):
    """Part in the sampling of a batch that replaces the unconditional prompt of some images by a negative prompt."""

    def __init__(self, images: int, negatives: dict[int, str]) -> None:
        super().__init__(images)
        self.negatives = [negatives.get(row, "") for row in range(images)]
        self.intervened = [row in negatives for row in range(images)]


class _Separate(Course):
    """Part in the sampling of a batch that adds a negative term after classifier-free guidance, for some images."""

    def __init__(self, images: int, rows: list[int], words: Words, scale: float) -> None:
        super().__init__(images)
        self._rows, self._words, self._scale = rows, words, torch.tensor(scale)
        self.intervened = [row in rows for row in range(images)]

    def guided(self, moment: Moment) -> Tensor:
        guided = super().guided(moment).clone()
        e_n = moment.evaluate(self._rows, self._words)
        guided[self._rows] += separate(e_n, moment.e_u[self._rows], self._scale)
        return guided
