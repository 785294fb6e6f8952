"""Run SLD, Perp-Neg and DNG on a Stable Diffusion pipeline, with all concepts of the task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from dnp_guard.lab.evaluate.baselines.dng import LEAST, dng, posterior
from dnp_guard.lab.evaluate.baselines.perp_neg import perp_neg
from dnp_guard.lab.evaluate.baselines.sld import CONFIGURATIONS, sld
from dnp_guard.lab.evaluate.methods.sampling import Course, encode, sample
from dnp_guard.lab.evaluate.methods.static import listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from dnp_guard.lab.evaluate.baselines.sld import Safety
    from dnp_guard.lab.evaluate.methods.base import Made, Task
    from dnp_guard.lab.evaluate.methods.sampling import Moment
    from dnp_guard.lab.world.captions import Prompt

_RELEASED_STEPS = 50


@dataclass(frozen=True, slots=True)
class Sld:
    """Safe Latent Diffusion. Its warm-up, published for 50 steps, is scaled to the length of the run.

    Attributes:
        name: ``sld-`` and the name of a configuration.
        safety: the configuration.
    """

    name: str
    safety: Safety
    mode: ClassVar[None] = None
    scale: ClassVar[None] = None
    sampler: ClassVar[str] = "DDIM"

    @classmethod
    def configured(cls, name: str) -> Sld:
        """Build the method from a name such as ``sld-max``."""
        return cls(name, CONFIGURATIONS[name.removeprefix("sld-")])

    def generate(self, task: Task, seeds: Sequence[int], prompts: Sequence[Prompt]) -> list[Made]:
        """Generate one batch; see :meth:`~dnp_guard.lab.evaluate.methods.base.Method.generate`."""
        return sample(task, seeds, prompts, SafeCourse(task, len(prompts), self.safety))


@dataclass(frozen=True, slots=True)
class PerpNeg:
    """Perp-Neg with one negative prompt per concept.

    Attributes:
        scale: beta, the weight of every negative.
    """

    scale: float
    name: ClassVar[str] = "perp-neg-static"
    mode: ClassVar[str] = "orthogonal"
    sampler: ClassVar[str] = "DDIM"

    def generate(self, task: Task, seeds: Sequence[int], prompts: Sequence[Prompt]) -> list[Made]:
        """Generate one batch; see :meth:`~dnp_guard.lab.evaluate.methods.base.Method.generate`."""
        return sample(task, seeds, prompts, _Orthogonal(task, len(prompts), self.scale))


@dataclass(frozen=True, slots=True)
class Dng:
    """Dynamic Negative Guidance together with classifier-free guidance, with DDPM sampling: DDIM at eta = 1.

    Attributes:
        scale: lambda_0.
    """

    scale: float
    name: ClassVar[str] = "dng"
    mode: ClassVar[str] = "separate"
    sampler: ClassVar[str] = "DDPM"

    def generate(self, task: Task, seeds: Sequence[int], prompts: Sequence[Prompt]) -> list[Made]:
        """Generate one batch; see :meth:`~dnp_guard.lab.evaluate.methods.base.Method.generate`."""
        return sample(task, seeds, prompts, _Bayes(task, len(prompts), self.scale))


class _Always(Course):
    """Part in the sampling of a batch that steers every image away from the same prompts at every step."""

    def __init__(self, task: Task, images: int, negatives: Sequence[str]) -> None:
        super().__init__(images)
        self.intervened = [True] * images
        self._rows = range(images)
        words = encode(task.pipe, negatives)
        self._words = [words.rows([row] * images) for row in range(len(negatives))]


class SafeCourse(_Always):
    """Safe Latent Diffusion's part in the sampling of a batch."""

    def __init__(self, task: Task, images: int, safety: Safety) -> None:
        super().__init__(task, images, [listed(task.concepts)])
        self._safety = safety
        self._nu: Tensor | None = None

    def guided(self, moment: Moment) -> Tensor:
        """Return the guided output of a step, with the safety term of the concepts."""
        e_s = moment.evaluate(self._rows, self._words[0])
        nu = torch.zeros_like(e_s) if self._nu is None else self._nu
        warm = moment.index * _RELEASED_STEPS >= self._safety.delta * moment.total
        guided, self._nu = sld(moment.e_u, moment.e_c, e_s, nu, moment.g, self._safety, warm=warm)
        return guided


class _Orthogonal(_Always):
    """Perp-Neg's part in the sampling of a batch."""

    def __init__(self, task: Task, images: int, beta: float) -> None:
        super().__init__(task, images, task.concepts)
        self._beta = beta

    def guided(self, moment: Moment) -> Tensor:
        negatives = [moment.evaluate(self._rows, words) for words in self._words]
        return perp_neg(moment.e_u, moment.e_c, negatives, moment.g, self._beta)


class _Bayes(_Always):
    """DNG's part in the sampling of a batch, with the posterior probability of the negative prompt per image."""

    def __init__(self, task: Task, images: int, lambda_0: float) -> None:
        super().__init__(task, images, [listed(task.concepts)])
        self._lambda_0 = lambda_0
        self._p = torch.full((images,), LEAST, device=task.pipe.device)
        self._e_n: Tensor | None = None

    def guided(self, moment: Moment) -> Tensor:
        self._e_n = moment.evaluate(self._rows, self._words[0])
        return dng(super().guided(moment), self._e_n, moment.e_u, self._p, self._lambda_0)

    def advance(self, moment: Moment, output: Tensor, **extra: Any) -> Any:
        scheduler = moment.pipe.scheduler
        before = int(moment.t) - scheduler.config.num_train_timesteps // moment.total
        sigma = float(scheduler._get_variance(int(moment.t), before)) ** 0.5  # noqa: SLF001 (variance at eta = 1)

        def drawn(e: Tensor, noise: Tensor) -> Tensor:
            return moment.step(e, moment.t, moment.x, eta=1.0, variance_noise=noise, return_dict=False)[0]

        still = torch.zeros_like(moment.x)
        shape = moment.x.shape[1:]
        noise = torch.stack([torch.randn(shape, generator=source) for source in extra["generator"]]).to(moment.x)
        x = drawn(output, noise)
        self._p = posterior(self._p, x, drawn(self._e_n, still), drawn(moment.e_u, still), sigma)
        return (x,)
