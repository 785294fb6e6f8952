"""Let any kind of guidance take part in a pipeline's own sampling.

A :class:`Course` is the part that a method takes in a pipeline's call. It may change the embeddings that the denoiser
gets, and the output that the scheduler steps with. A course that changes nothing leaves the images as they are, bit for
bit. A course evaluates further prompts in separate calls of the denoiser, for the images concerned only, so that the
other images do not change.
"""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch

from dnp_guard.lab.evaluate.methods.base import Made
from dnp_guard.lab.evaluate.methods.meter import Meter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from dnp_guard.lab.evaluate.methods.base import Task
    from dnp_guard.lab.world.captions import Prompt


@dataclass(frozen=True, slots=True)
class Words:
    """Encoded prompts, in the form that a denoiser takes.

    Attributes:
        tokens: embeddings of the tokens, [n, L, D].
        pooled: pooled embeddings of the prompts, [n, D]; None if the denoiser takes none.
    """

    tokens: Tensor
    pooled: Tensor | None = None

    def rows(self, at: Sequence[int]) -> Words:
        """Return the prompts at some indices, in that order; an index may occur several times."""
        rows = list(at)
        return Words(self.tokens[rows], None if self.pooled is None else self.pooled[rows])


@dataclass(frozen=True, slots=True)
class SamplerCall:
    """The pipeline's own call of the denoiser at a step.

    Attributes:
        denoiser: the model.
        args: positional arguments of the call.
        kwargs: keyword arguments of the call.
        images: B, the size of the batch; the last B rows are the conditional ones.
    """

    denoiser: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    images: int

    def again(self, rows: Sequence[int], words: Words) -> Tensor:
        """Call the denoiser again for some images with other prompts; return its output, [len(rows), C, H, W]."""
        total = len(self.args[0])
        at = [total - self.images + row for row in rows]

        def own(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                return value[at] if value.ndim and len(value) == total else value
            return {key: own(part) for key, part in value.items()} if isinstance(value, dict) else value

        given = own(self.kwargs) | {"encoder_hidden_states": words.tokens, "return_dict": False}
        if words.pooled is not None and given.get("added_cond_kwargs"):
            given["added_cond_kwargs"] = given["added_cond_kwargs"] | {"text_embeds": words.pooled}
        output: Tensor = self.denoiser(*map(own, self.args), **given)[0]
        return output


@dataclass(frozen=True, slots=True)
class Moment:
    """One denoising step of a batch of B images, as a course sees it.

    Attributes:
        pipe: the pipeline.
        index: index of the step, from 0.
        total: number of steps of the run.
        t: the timestep.
        x: x_t, [B, C, H, W].
        own: output that the pipeline itself would step with, [B, C, H, W].
        e_u: output of the denoiser for the unconditional prompt, [B, C, H, W]; e_c without classifier-free guidance.
        e_c: output of the denoiser for the user's prompt, [B, C, H, W].
        g: guidance scale.
        evaluation: call of the denoiser that returned e_u and e_c.
        step: the scheduler's own ``step``.
    """

    pipe: Any
    index: int
    total: int
    t: Tensor
    x: Tensor
    own: Tensor
    e_u: Tensor
    e_c: Tensor
    g: float
    evaluation: SamplerCall
    step: Callable[..., Any]

    def evaluate(self, rows: Sequence[int], words: Words) -> Tensor:
        """Call the denoiser again for some images with other prompts; return its output, [len(rows), C, H, W].

        Args:
            rows: indices of the images.
            words: one prompt per row.
        """
        return self.evaluation.again(rows, words)


class Course:
    """Part that a method takes in the sampling of one batch; this base class changes nothing.

    Attributes:
        queries: number of queries per image.
        intervened: per image, whether the course has changed anything.
        negatives: negative prompt per image for the pipeline's call; None for none.
    """

    def __init__(self, images: int) -> None:
        self.queries = [0] * images
        self.intervened = [False] * images
        self.negatives: list[str] | None = None

    def attending(self, denoiser: Any) -> AbstractContextManager[object]:
        """Return the context manager around the denoising of the batch; it must undo its changes of the denoiser."""
        return nullcontext()

    def prompts(self, index: int, e_u: Tensor, e_c: Tensor) -> tuple[Tensor, Tensor]:
        """Return the unconditional and conditional embeddings of a step, [B, L, D], given the pipeline's own."""
        return e_u, e_c

    def guided(self, moment: Moment) -> Tensor:
        """Return the guided output of the denoiser at a step, [B, C, H, W]."""
        return moment.own

    def advance(self, moment: Moment, output: Tensor, **extra: Any) -> Any:
        """Step the scheduler with a guided output, and return its result; ``extra`` has the pipeline's arguments."""
        return moment.step(output, moment.t, moment.x, **extra)


@torch.no_grad()
def encode(pipe: Any, texts: Sequence[str]) -> Words:
    """Encode prompts with the pipeline's own text encoders."""
    encoded = pipe.encode_prompt(
        prompt=list(texts), device=pipe.device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    return Words(encoded[0], encoded[2] if len(encoded) > _PAIR else None)


_PAIR = 2


def embed(pipe: Any, texts: Sequence[str]) -> Tensor:
    """Return the token embeddings of prompts, [len(texts), L, D]."""
    return encode(pipe, texts).tokens


def denoiser_of(pipe: Any) -> Any:
    """Return the denoiser of a pipeline: its UNet or its transformer."""
    return getattr(pipe, "unet", None) or pipe.transformer


def is_guided(pipe: Any, guidance_scale: float) -> bool:
    """Return whether classifier-free guidance runs; a distilled denoiser takes the scale as an input instead."""
    config = denoiser_of(pipe).config
    return guidance_scale > 1 and config.get("time_cond_proj_dim") is None and not config.get("guidance_embeds")


def branches_of(task: Task) -> int | None:
    """Return the number of rows per image in the pipeline's own call of its UNet; None for a pipeline without one."""
    return 1 + is_guided(task.pipe, task.guidance_scale) if hasattr(task.pipe, "unet") else None


def call(task: Task, seeds: Sequence[int], texts: Sequence[str], **more: Any) -> Any:
    """Call the pipeline, with ``torch.Generator().manual_seed(seeds[i])`` for image i, and return its images."""
    given = {
        "num_inference_steps": task.steps,
        "guidance_scale": task.guidance_scale,
        "generator": [torch.Generator().manual_seed(seed) for seed in seeds],
        **({"image": list(task.pictures)} if task.pictures else {}),
        **{key: value for key, value in more.items() if value is not None},
    }
    known = inspect.signature(type(task.pipe).__call__).parameters
    return task.pipe(list(texts), **{key: value for key, value in given.items() if key in known}).images


def sample(task: Task, seeds: Sequence[int], prompts: Sequence[Prompt], course: Course) -> list[Made]:
    """Generate one batch, with a course (the part of a method) in its sampling."""
    pictures, counted = denoise(task, seeds, [prompt.text for prompt in prompts], course, output="pil")
    return [
        Made(picture, picture, None, queries, evaluations, intervened)
        for picture, queries, evaluations, intervened in zip(
            pictures, course.queries, counted, course.intervened, strict=True
        )
    ]


@torch.no_grad()
def denoise(
    task: Task, seeds: Sequence[int], texts: Sequence[str], course: Course, output: str = "latent"
) -> tuple[Any, list[float]]:
    """Call the pipeline once, with a course in its sampling.

    Args:
        task: pipeline, steps and guidance scale.
        seeds: one seed per image.
        texts: one prompt per image.
        course: part of the method in the sampling of the batch.
        output: ``output_type`` of the pipeline's call.

    Returns:
        The images in that type, and the number of evaluations of the denoiser per image.
    """
    denoiser = denoiser_of(task.pipe)
    with (
        Meter(denoiser, len(texts), branches_of(task)) as meter,
        course.attending(denoiser),
        _steered(task, len(texts), course),
    ):
        made = call(task, seeds, texts, negative_prompt=course.negatives, output_type=output)
    return made, meter.evaluations


@contextmanager
def _steered(task: Task, images: int, course: Course) -> Iterator[None]:
    """Connect a course to the pipeline inside a ``with`` block; the base class changes nothing and needs no hooks."""
    if type(course) is Course or not hasattr(task.pipe, "unet"):
        yield
        return
    injection = _Injection(task, images, course)
    unet, scheduler = task.pipe.unet, task.pipe.scheduler
    hooks = [
        unet.register_forward_pre_hook(injection.before, with_kwargs=True),
        unet.register_forward_hook(injection.after, with_kwargs=True),
    ]

    @wraps(injection.step)  # a pipeline inspects which arguments it takes
    def step(*args: Any, **kwargs: Any) -> Any:
        return injection.stepped(*args, **kwargs)

    scheduler.step = step
    try:
        yield
    finally:
        del scheduler.step
        for hook in hooks:
            hook.remove()


class _Injection:
    """Hooks that let a course take part in one call of a pipeline."""

    def __init__(self, task: Task, images: int, course: Course) -> None:
        self._task, self._images, self._course = task, images, course
        self._guided = is_guided(task.pipe, task.guidance_scale)
        self._index = 0
        self._aside = False
        self._evaluation: SamplerCall | None = None
        self._output: Any = None
        self.step = task.pipe.scheduler.step

    def before(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        """Replace the prompt embeddings of the pipeline's own call by those of the course."""
        if self._aside:
            return None
        given = kwargs["encoder_hidden_states"]
        e_c = given[-self._images :]
        e_u = given[: self._images] if self._guided else e_c
        own = self._course.prompts(self._index, e_u, e_c)
        if own[0] is not e_u or own[1] is not e_c:
            kwargs = {**kwargs, "encoder_hidden_states": torch.cat(own[0 if self._guided else 1 :])}
        return args, kwargs

    def after(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Keep the pipeline's own call of the denoiser, and its output."""
        if not self._aside:
            self._evaluation, self._output = SamplerCall(module, args, kwargs, self._images), output[0]

    def stepped(self, output: Tensor, t: Tensor, x: Tensor, **kwargs: Any) -> Any:
        """Step the scheduler with the course's guided output in place of the pipeline's."""
        assert self._evaluation is not None  # noqa: S101 (the denoiser is called before each step)
        e_u, e_c = self._output[: self._images], self._output[-self._images :]
        moment = Moment(
            self._task.pipe,
            self._index,
            len(self._task.pipe.scheduler.timesteps),
            t,
            x,
            output,
            e_u,
            e_c,
            self._task.guidance_scale,
            self._evaluation,
            self.step,
        )
        self._aside = True
        try:
            return self._course.advance(moment, self._course.guided(moment), **kwargs)
        finally:
            self._aside = False
            self._index += 1
