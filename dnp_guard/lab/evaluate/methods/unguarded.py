"""Run the pipeline unguarded, as the reference of all other methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from dnp_guard.lab.evaluate.methods.sampling import Course, sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dnp_guard.lab.evaluate.methods.base import Made, Task
    from dnp_guard.lab.world.captions import Prompt


@dataclass(frozen=True, slots=True)
class Unguarded:
    """Method that runs the pipeline as it is, bit for bit."""

    name: str = "unguarded"
    mode: ClassVar[None] = None
    scale: ClassVar[None] = None
    sampler: ClassVar[str] = "DDIM"

    def generate(self, task: Task, seeds: Sequence[int], prompts: Sequence[Prompt]) -> list[Made]:
        """Generate one batch; see :meth:`~dnp_guard.lab.evaluate.methods.base.Method.generate`."""
        return sample(task, seeds, prompts, Course(len(prompts)))
