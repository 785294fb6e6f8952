"""A pipeline's own sampling, open to every guidance there is to compare.

A course is put into the pipeline's call: it may change the embeddings that the denoiser gets, and the output that the
scheduler steps with. With nothing changed the call is the pipeline's, bit for bit. What a guidance evaluates beyond the
two branches of classifier-free guidance is a call of its own for the images concerned, so that the others stay as they
are.
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
    """Prompts as a denoiser gets them.

    Attributes:
        tokens: what the text encoders say of each token, [n, L, D].
        pooled: of each whole prompt, [n, D], where the denoiser takes that.
    """

    tokens: Tensor
    pooled: Tensor | None = None

    def rows(self, at: Sequence[int]) -> Words:
        """Some of the prompts, in this order; one may be there several times."""
        rows = list(at)
        return Words(self.tokens[rows], None if self.pooled is None else self.pooled[rows])


@dataclass(frozen=True, slots=True)
class SamplerCall:
    """The sampler's own call of the denoiser at a step.

    Attributes:
        denoiser: the model.
        args: of the call.
        kwargs: likewise.
        images: B, the size of the batch; the conditional rows are the last B.
    """

    denoiser: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    images: int

    def again(self, rows: Sequence[int], words: Words) -> Tensor:
        """The denoiser's output for other prompts of some images, [len(rows), C, H, W]."""
        total = len(self.args[0])
        at = [total - self.images + row for row in rows]

        def own(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                return value[at] if value.ndim and len(value) == total else value
            return {key: own(each) for key, each in value.items()} if isinstance(value, dict) else value

        given = own(self.kwargs) | {"encoder_hidden_states": words.tokens, "return_dict": False}
        if words.pooled is not None and given.get("added_cond_kwargs"):
            given["added_cond_kwargs"] = given["added_cond_kwargs"] | {"text_embeds": words.pooled}
        output: Tensor = self.denoiser(*map(own, self.args), **given)[0]
        return output


@dataclass(frozen=True, slots=True)
class Moment:
    """One step of a batch of B images, as a guidance sees it.

    Attributes:
        pipe: the pipeline.
        index: of the step, from 0.
        total: steps of the run.
        t: the timestep.
        x: x_t, [B, C, H, W].
        own: the output that the pipeline would step with, [B, C, H, W].
        e_u: the denoiser's output for the unconditional prompt, [B, C, H, W]; without classifier-free guidance, e_c.
        e_c: for the user's prompt, [B, C, H, W].
        g: the guidance scale.
        evaluation: the call that they are from.
        step: the scheduler's own.
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
        """The denoiser's output for other prompts of some images, [len(rows), C, H, W].

        Args:
            rows: the images concerned.
            words: a prompt for each.
        """
        return self.evaluation.again(rows, words)


class Course:
    """One batch's way through the sampler; this one changes nothing.

    Attributes:
        queries: of each image, how often a vision-language model was asked about it.
        intervened: of each image, whether anything was changed.
        negatives: of each image, the negative prompt that the pipeline is given; None for none.
    """

    def __init__(self, images: int) -> None:
        self.queries = [0] * images
        self.intervened = [False] * images
        self.negatives: list[str] | None = None

    def attending(self, denoiser: Any) -> AbstractContextManager[object]:
        """The block in which the batch is denoised; this one leaves the denoiser as it is."""
        return nullcontext()

    def prompts(self, index: int, e_u: Tensor, e_c: Tensor) -> tuple[Tensor, Tensor]:
        """The embeddings of a step's two branches, [B, L, D] each, from the unconditional ones and the user's."""
        return e_u, e_c

    def guided(self, moment: Moment) -> Tensor:
        """The guided output of a step, [B, C, H, W]."""
        return moment.own

    def advance(self, moment: Moment, output: Tensor, **extra: Any) -> Any:
        """Step the scheduler with a guided output and what else the pipeline gives it; answer what it answers."""
        return moment.step(output, moment.t, moment.x, **extra)


@torch.no_grad()
def encode(pipe: Any, texts: Sequence[str]) -> Words:
    """Some prompts as the pipeline's own text encoders give them to its denoiser."""
    found = pipe.encode_prompt(
        prompt=list(texts), device=pipe.device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    return Words(found[0], found[2] if len(found) > _PAIR else None)


_PAIR = 2


def embed(pipe: Any, texts: Sequence[str]) -> Tensor:
    """The text encoders' output for some prompts, [len(texts), L, D]."""
    return encode(pipe, texts).tokens


def denoiser_of(pipe: Any) -> Any:
    """The model that a pipeline denoises with."""
    return getattr(pipe, "unet", None) or pipe.transformer


def is_guided(pipe: Any, guidance_scale: float) -> bool:
    """Whether classifier-free guidance is run; a distilled denoiser takes the scale as an input instead."""
    config = denoiser_of(pipe).config
    return guidance_scale > 1 and config.get("time_cond_proj_dim") is None and not config.get("guidance_embeds")


def branches_of(task: Task) -> int | None:
    """Rows per image of the sampler's own call; None where the family is not known to have a fixed number."""
    return 1 + is_guided(task.pipe, task.guidance_scale) if hasattr(task.pipe, "unet") else None


def call(task: Task, seeds: Sequence[int], texts: Sequence[str], **more: Any) -> Any:
    """Call the pipeline, image i from ``torch.Generator().manual_seed(seeds[i])``, and give what it made."""
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
    """Make one batch, on a course of its own."""
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
    """Go through the sampler once.

    Returns:
        What the pipeline's ``output_type`` names, and the evaluations of the denoiser that each image took.
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
    """Put a course into the pipeline, and take it out again; what changes nothing is left out."""
    if type(course) is Course or not hasattr(task.pipe, "unet"):
        yield
        return
    way = _Way(task, images, course)
    unet, scheduler = task.pipe.unet, task.pipe.scheduler
    hooks = [
        unet.register_forward_pre_hook(way.before, with_kwargs=True),
        unet.register_forward_hook(way.after, with_kwargs=True),
    ]

    @wraps(way.step)  # a pipeline looks which arguments it takes
    def step(*args: Any, **kwargs: Any) -> Any:
        return way.stepped(*args, **kwargs)

    scheduler.step = step
    try:
        yield
    finally:
        del scheduler.step
        for hook in hooks:
            hook.remove()


class _Way:
    """What a course is told of a call while it goes on."""

    def __init__(self, task: Task, images: int, course: Course) -> None:
        self._task, self._images, self._course = task, images, course
        self._guided = is_guided(task.pipe, task.guidance_scale)
        self._index = 0
        self._aside = False
        self._evaluation: SamplerCall | None = None
        self._output: Any = None
        self.step = task.pipe.scheduler.step

    def before(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        """Give the denoiser the course's embeddings."""
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
        """Keep what the sampler's own call was and gave."""
        if not self._aside:
            self._evaluation, self._output = SamplerCall(module, args, kwargs, self._images), output[0]

    def stepped(self, output: Tensor, t: Tensor, x: Tensor, **kwargs: Any) -> Any:
        """Step with the course's output in place of the pipeline's."""
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
