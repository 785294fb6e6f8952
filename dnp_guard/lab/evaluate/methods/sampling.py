"""A sampling loop over the parts of the embedded pipeline, open to every guidance there is to compare.

With nothing changed it gives the image of ``pipe(...)`` bit for bit. What a guidance evaluates beyond the two branches
of classifier-free guidance is a call of its own for the images concerned, so that the others stay as they are.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from dnp_guard.lab.evaluate.methods.base import Made
from dnp_guard.lab.evaluate.methods.meter import Meter
from dnp_guard.steering.guidance import classifier_free

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image
    from torch import Tensor

    from dnp_guard.lab.evaluate.methods.base import Task
    from dnp_guard.lab.world.captions import Prompt


@dataclass(frozen=True, slots=True)
class Moment:
    """One step of a batch of B images, as a guidance sees it.

    Attributes:
        pipe: the pipeline.
        index: of the step, from 0.
        total: steps of the run.
        t: the timestep.
        x: x_t, [B, C, H, W].
        e_u: the denoiser's output for the unconditional prompt, [B, C, H, W]; without classifier-free guidance, e_c.
        e_c: for the user's prompt, [B, C, H, W].
        g: the guidance scale.
    """

    pipe: Any
    index: int
    total: int
    t: Tensor
    x: Tensor
    e_u: Tensor
    e_c: Tensor
    g: float

    def evaluate(self, rows: Sequence[int], embeddings: Tensor) -> Tensor:
        """The denoiser's output for other prompts of some images, [len(rows), C, H, W].

        Args:
            rows: the images concerned.
            embeddings: of a prompt for each, [len(rows), L, D].
        """
        x = self.pipe.scheduler.scale_model_input(self.x[list(rows)], self.t)
        return self.pipe.unet(x, self.t, encoder_hidden_states=embeddings, return_dict=False)[0]


class Course:
    """One batch's way through the sampler; this one changes nothing.

    Attributes:
        queries: of each image, how often a vision-language model was asked about it.
        intervened: of each image, whether anything was changed.
    """

    def __init__(self, images: int) -> None:
        self.queries = [0] * images
        self.intervened = [False] * images

    def attending(self, denoiser: Any) -> AbstractContextManager[object]:
        """The block in which the batch is denoised; this one leaves the denoiser as it is."""
        return nullcontext()

    def prompts(self, index: int, e_u: Tensor, e_c: Tensor) -> tuple[Tensor, Tensor]:
        """The embeddings of a step's two branches, [B, L, D] each, from the empty prompt's and the user's."""
        return e_u, e_c

    def guided(self, moment: Moment) -> Tensor:
        """The guided output of a step, [B, C, H, W]."""
        return classifier_free(moment.e_u, moment.e_c, moment.g)

    def advance(self, moment: Moment, output: Tensor, generators: list[torch.Generator]) -> Tensor:
        """Give x of the next step, [B, C, H, W]."""
        pipe = moment.pipe
        extra = pipe.prepare_extra_step_kwargs(generators, 0.0)  # what this scheduler takes of these
        return pipe.scheduler.step(output, moment.t, moment.x, **extra, return_dict=False)[0]


@torch.no_grad()
def embed(pipe: Any, texts: Sequence[str]) -> Tensor:
    """The text encoder's output for some prompts, [len(texts), L, D]."""
    return pipe.encode_prompt(list(texts), pipe.device, 1, do_classifier_free_guidance=False)[0]


def sample(task: Task, seeds: Sequence[int], prompts: Sequence[Prompt], course: Course) -> list[Made]:
    """Make one batch, on a course of its own."""
    x, counted = denoise(task, seeds, [prompt.text for prompt in prompts], course)
    return [
        Made(picture, picture, None, queries, evaluations, intervened)
        for picture, queries, evaluations, intervened in zip(
            _decoded(task.pipe, x), course.queries, counted, course.intervened, strict=True
        )
    ]


@torch.no_grad()
def denoise(task: Task, seeds: Sequence[int], texts: Sequence[str], course: Course) -> tuple[Tensor, list[int]]:
    """Go through the sampler once.

    Returns:
        The last latents, [B, C, H, W], and the evaluations of the denoiser that each image took.
    """
    pipe, images = task.pipe, len(texts)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    guided = task.guidance_scale > 1
    c, u = pipe.encode_prompt(list(texts), pipe.device, 1, do_classifier_free_guidance=True)
    pipe.scheduler.set_timesteps(task.steps, device=pipe.device)
    channels, side = pipe.unet.config.in_channels, pipe.unet.config.sample_size * pipe.vae_scale_factor
    x = pipe.prepare_latents(images, channels, side, side, c.dtype, pipe.device, generators)
    with Meter(pipe.unet, images, branches=1 + guided) as meter, course.attending(pipe.unet):
        for index, t in enumerate(pipe.scheduler.timesteps):
            branches = course.prompts(index, u, c)[0 if guided else 1 :]
            rows = pipe.scheduler.scale_model_input(torch.cat([x] * len(branches)), t)
            output = pipe.unet(rows, t, encoder_hidden_states=torch.cat(branches), return_dict=False)[0]
            e_u, e_c = output[:images], output[-images:]
            moment = Moment(pipe, index, task.steps, t, x, e_u, e_c, task.guidance_scale)
            x = course.advance(moment, course.guided(moment), generators)
    return x, meter.evaluations


@torch.no_grad()
def _decoded(pipe: Any, x: Tensor) -> list[Image]:
    decoded = pipe.vae.decode(x / pipe.vae.config.scaling_factor, return_dict=False)[0]
    return pipe.image_processor.postprocess(decoded, output_type="pil", do_denormalize=[True] * len(x))
