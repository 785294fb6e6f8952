"""How a kind of pipeline is steered: data, one row a family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import CannotSteer
from dnp_guard.hosts.diffusers import prediction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of pipeline.

    Attributes:
        name: for people.
        pipelines: names of the classes it covers, exactly.
        denoisers: names of the components that are hooked.
        embeddings: the denoiser's argument that holds the prompt embeddings, [2B, T, D], unconditional half first.
        encode: pipeline and texts to embeddings [len(texts), T, D].
    """

    name: str
    pipelines: frozenset[str]
    denoisers: tuple[str, ...]
    embeddings: str
    encode: Callable[[Any, Sequence[str]], Tensor]


def _encode_clip(pipe: Any, texts: Sequence[str]) -> Tensor:
    device = pipe._execution_device  # noqa: SLF001 (what every pipeline passes to its own encode_prompt)
    embeddings, _ = pipe.encode_prompt(
        list(texts), device, 1, do_classifier_free_guidance=False, clip_skip=pipe.clip_skip
    )
    return embeddings.to(pipe.unet.dtype)


FAMILIES = (
    Family(
        name="Stable Diffusion 1 and 2",
        pipelines=frozenset({"StableDiffusionPipeline"}),
        denoisers=("unet",),
        embeddings="encoder_hidden_states",
        encode=_encode_clip,
    ),
)


def family_of(pipe: Any) -> Family:
    """The family of a pipeline.

    Raises:
        CannotSteer: no row covers its class, a component is missing, or its scheduler's prediction is not known.
    """
    name = type(pipe).__name__
    family = next((each for each in FAMILIES if name in each.pipelines), None)
    if family is None:
        known = ", ".join(sorted(each for row in FAMILIES for each in row.pipelines))
        raise CannotSteer(f"{name} is not a pipeline this version can steer", hint=f"It steers {known}.")
    for component in (*family.denoisers, "vae", "text_encoder", "scheduler"):
        if getattr(pipe, component, None) is None:
            raise CannotSteer(f"{name} has no {component}", hint=f"Load the pipeline with its {component}.")
    prediction.check(pipe.scheduler)
    return family
