"""How a kind of pipeline is steered: data, one row a family. A row names only classes that the tests have run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import CannotSteer
from dnp_guard.hosts.diffusers import prediction

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of pipeline.

    Attributes:
        name: for people.
        pipelines: names of the classes it covers, exactly.
        denoisers: names of the components that are hooked.
        encode: pipeline and texts to the denoiser's arguments that make up a negative, each [len(texts), ...]. A dot in
            the name of an argument leads into a dictionary.
        components: what else the pipeline must have.
        refused: arguments of a call under which the branches cannot be told apart.
    """

    name: str
    pipelines: frozenset[str]
    denoisers: tuple[str, ...]
    encode: Callable[[Any, Sequence[str]], Mapping[str, Tensor]]
    components: tuple[str, ...] = ("vae", "text_encoder", "scheduler")
    refused: tuple[str, ...] = ()


def _clip(pipe: Any, texts: Sequence[str]) -> dict[str, Tensor]:
    embeddings, _ = pipe.encode_prompt(
        list(texts), _device(pipe), 1, do_classifier_free_guidance=False, clip_skip=pipe.clip_skip
    )
    return {"encoder_hidden_states": embeddings}


def _two_clips(pipe: Any, texts: Sequence[str]) -> dict[str, Tensor]:
    embeddings, _, pooled, _ = pipe.encode_prompt(
        list(texts), device=_device(pipe), do_classifier_free_guidance=False, clip_skip=pipe.clip_skip
    )
    return {"encoder_hidden_states": embeddings, "added_cond_kwargs.text_embeds": pooled}


def _three_encoders(pipe: Any, texts: Sequence[str]) -> dict[str, Tensor]:
    embeddings, _, pooled, _ = pipe.encode_prompt(
        list(texts), None, None, device=_device(pipe), do_classifier_free_guidance=False, clip_skip=pipe.clip_skip
    )
    return {"encoder_hidden_states": embeddings, "pooled_projections": pooled}


def _masked(pipe: Any, texts: Sequence[str]) -> dict[str, Tensor]:
    embeddings, mask, _, _ = pipe.encode_prompt(list(texts), do_classifier_free_guidance=False, device=_device(pipe))
    return {"encoder_hidden_states": embeddings, "encoder_attention_mask": mask}


def _device(pipe: Any) -> Any:
    return pipe._execution_device  # noqa: SLF001 (what every pipeline passes to its own encode_prompt)


FAMILIES = (
    Family(
        name="Stable Diffusion 1 and 2",
        pipelines=frozenset(
            {
                "StableDiffusionControlNetPipeline",
                "StableDiffusionImg2ImgPipeline",
                "StableDiffusionInpaintPipeline",
                "StableDiffusionPipeline",
            }
        ),
        denoisers=("unet",),
        encode=_clip,
    ),
    Family(
        name="Stable Diffusion XL",
        pipelines=frozenset(
            {"StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline", "StableDiffusionXLPipeline"}
        ),
        denoisers=("unet",),
        encode=_two_clips,
        components=("vae", "text_encoder", "text_encoder_2", "scheduler"),
        refused=("denoising_end",),
    ),
    Family(
        name="Stable Diffusion 3",
        pipelines=frozenset({"StableDiffusion3Pipeline"}),
        denoisers=("transformer",),
        encode=_three_encoders,
        components=("vae", "text_encoder", "text_encoder_2", "scheduler"),
        refused=("skip_guidance_layers",),
    ),
    Family(
        name="PixArt and Sana",
        pipelines=frozenset({"PixArtSigmaPipeline", "SanaPipeline"}),
        denoisers=("transformer",),
        encode=_masked,
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
    for component in (*family.denoisers, *family.components):
        if getattr(pipe, component, None) is None:
            raise CannotSteer(f"{name} has no {component}", hint=f"Load the pipeline with its {component}.")
    prediction.check(pipe.scheduler)
    return family
