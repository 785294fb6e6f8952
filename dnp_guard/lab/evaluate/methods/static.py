"""Static negative prompts: the whole list, or only the right name, from the first step to the last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from dnp_guard.lab.evaluate.methods.sampling import Course, embed, sample
from dnp_guard.steering.guidance import separate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from dnp_guard.lab.evaluate.methods.base import Made, Task
    from dnp_guard.lab.evaluate.methods.sampling import Moment
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
            embeddings = embed(task.pipe, list(negatives.values()))
            rows = list(negatives)
            course = (
                _Replaced(len(prompts), rows, embeddings)
                if self.scale is None
                else _Separate(len(prompts), rows, embeddings, self.scale)
            )
        return sample(task, seeds, prompts, course)


def listed(names: Sequence[str]) -> str:
    """A negative prompt of some names, as the embedded model knows lists."""
    return ", ".join(names)


class _Replaced(Course):
    def __init__(self, images: int, rows: list[int], embeddings: Tensor) -> None:
        super().__init__(images)
        self._rows, self._embeddings = rows, embeddings
        self.intervened = [row in rows for row in range(images)]

    def prompts(self, index: int, e_u: Tensor, e_c: Tensor) -> tuple[Tensor, Tensor]:
        e_u = e_u.clone()
        e_u[self._rows] = self._embeddings
        return e_u, e_c


class _Separate(Course):
    def __init__(self, images: int, rows: list[int], embeddings: Tensor, scale: float) -> None:
        super().__init__(images)
        self._rows, self._embeddings, self._scale = rows, embeddings, torch.tensor(scale)
        self.intervened = [row in rows for row in range(images)]

    def guided(self, moment: Moment) -> Tensor:
        guided = super().guided(moment)
        e_n = moment.evaluate(self._rows, self._embeddings)
        guided[self._rows] += separate(e_n, moment.e_u[self._rows], self._scale)
        return guided
