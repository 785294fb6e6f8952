"""How a kind of pipeline is steered: data, one row a family. A row names only classes that the tests have run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import CannotSteer
from dnp_guard.hosts.diffusers import prediction

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence

    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of pipeline.

    Attributes:
        name: for people.
        pipelines: names of the classes it covers, exactly.
        denoisers: names of the components that are hooked.
        encode: pipeline, texts and the arguments of the call to the denoiser's arguments that make up a negative, each
            [len(texts), ...]. A dot in the name of an argument leads into a dictionary.
        components: what else the pipeline must have.
        batched: whether one evaluation holds both branches, the unconditional half first; otherwise each branch is an
            evaluation of its own, the unconditional last.
        scale: the argument of a call that is the scale of classifier-free guidance.
        implied: whether a call without a negative prompt has the empty one.
        unpack: pipeline, latents and the arguments of the call to latents as the autoencoder takes them.
        needs_arguments: whether a call cannot be guarded without knowing its arguments.
        refused: arguments of a call under which the branches cannot be told apart.
        output_types: what a call may be asked for.
    """

    name: str
    pipelines: frozenset[str]
    denoisers: tuple[str, ...]
    encode: Callable[[Any, Sequence[str], Mapping[str, Any]], Mapping[str, Tensor]]
    components: tuple[str, ...] = ("vae", "text_encoder", "scheduler")
    batched: bool = True
    scale: str = "guidance_scale"
    implied: bool = True
    unpack: Callable[[Any, Tensor, Mapping[str, Any]], Tensor] = lambda _pipe, latents, _wanted: latents
    needs_arguments: bool = False
    refused: tuple[str, ...] = ()
    output_types: tuple[str, ...] = ("pil", "np", "pt", "latent")

    def check(self, pipe: Any, wanted: Mapping[str, Any]) -> None:
        """See that a call can be steered.

        Raises:
            CannotSteer: an argument stands in the way.
        """
        for name in self.refused:
            if wanted.get(name) is not None:
                raise CannotSteer(f"{type(pipe).__name__} cannot be steered with {name}", hint=f"Leave out {name}.")
        kind = wanted.get("output_type") or "pil"
        if kind not in self.output_types:
            raise CannotSteer(
                f"{type(pipe).__name__} cannot be guarded with output_type {kind!r}",
                hint=f"Use one of {', '.join(self.output_types)}.",
            )

    def check_unconditional(self, wanted: Mapping[str, Any]) -> None:
        """See that a call has an unconditional slot.

        Raises:
            CannotSteer: it has none.
        """
        for name in ("negative_prompt_2", "negative_prompt_3"):
            if wanted.get(name):
                raise CannotSteer(
                    f"guidance mode 'replace' would drop {name}", hint=f"Use guidance mode 'separate', or no {name}."
                )
        scale = wanted[self.scale]
        if not scale > 1 or not (self.implied or wanted.get("negative_prompt") is not None):
            raise CannotSteer(
                f"guidance mode 'replace' has no unconditional slot at {self.scale} {scale}"
                + ("" if self.implied else " without a negative_prompt"),
                hint=f"Use guidance mode 'separate', or a {self.scale} over 1"
                + ("." if self.implied else " with a negative_prompt, which may be empty."),
            )


def _clip(pipe: Any, texts: Sequence[str], _wanted: Mapping[str, Any]) -> dict[str, Tensor]:
    embeddings, _ = pipe.encode_prompt(
        list(texts), _device(pipe), 1, do_classifier_free_guidance=False, clip_skip=pipe.clip_skip
    )
    return {"encoder_hidden_states": embeddings}


def _two_clips(pipe: Any, texts: Sequence[str], _wanted: Mapping[str, Any]) -> dict[str, Tensor]:
    embeddings, _, pooled, _ = pipe.encode_prompt(
        list(texts), device=_device(pipe), do_classifier_free_guidance=False, clip_skip=pipe.clip_skip
    )
    return {"encoder_hidden_states": embeddings, "added_cond_kwargs.text_embeds": pooled}


def _three_encoders(pipe: Any, texts: Sequence[str], wanted: Mapping[str, Any]) -> dict[str, Tensor]:
    embeddings, _, pooled, _ = pipe.encode_prompt(
        list(texts),
        None,
        None,
        device=_device(pipe),
        do_classifier_free_guidance=False,
        clip_skip=pipe.clip_skip,
        **_length(wanted),
    )
    return {"encoder_hidden_states": embeddings, "pooled_projections": pooled}


def _masked(pipe: Any, texts: Sequence[str], wanted: Mapping[str, Any]) -> dict[str, Tensor]:
    embeddings, mask, _, _ = pipe.encode_prompt(
        list(texts), do_classifier_free_guidance=False, device=_device(pipe), **_length(wanted)
    )
    return {"encoder_hidden_states": embeddings, "encoder_attention_mask": mask}


def _pooled(pipe: Any, texts: Sequence[str], wanted: Mapping[str, Any]) -> dict[str, Tensor]:
    embeddings, pooled, _ = pipe.encode_prompt(list(texts), device=_device(pipe), **_length(wanted))
    return {"encoder_hidden_states": embeddings, "pooled_projections": pooled}


def _length(wanted: Mapping[str, Any]) -> dict[str, int]:
    """The call's own length of embeddings: a negative in its unconditional slot has to be as long."""
    return {key: wanted[key] for key in ("max_sequence_length",) if key in wanted}


def _from_patches(pipe: Any, latents: Tensor, wanted: Mapping[str, Any]) -> Tensor:
    default = pipe.default_sample_size * pipe.vae_scale_factor
    height, width = wanted.get("height") or default, wanted.get("width") or default
    unpacked: Tensor = pipe._unpack_latents(latents, height, width, pipe.vae_scale_factor)  # noqa: SLF001 (as it does)
    return unpacked


def _device(pipe: Any) -> Any:
    return pipe._execution_device  # noqa: SLF001 (what every pipeline passes to its own encode_prompt)


FAMILIES = (
    Family(
        name="Stable Diffusion 1 and 2",
        pipelines=frozenset(
            {
                "StableDiffusionControlNetImg2ImgPipeline",
                "StableDiffusionControlNetInpaintPipeline",
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
            {
                "StableDiffusionXLControlNetPipeline",
                "StableDiffusionXLImg2ImgPipeline",
                "StableDiffusionXLInpaintPipeline",
                "StableDiffusionXLPipeline",
            }
        ),
        denoisers=("unet",),
        encode=_two_clips,
        components=("vae", "text_encoder", "text_encoder_2", "scheduler"),
        refused=("denoising_end",),
    ),
    Family(
        name="Stable Diffusion 3",
        pipelines=frozenset({"StableDiffusion3Img2ImgPipeline", "StableDiffusion3Pipeline"}),
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
    Family(
        name="Flux",
        pipelines=frozenset({"FluxImg2ImgPipeline", "FluxPipeline"}),
        denoisers=("transformer",),
        encode=_pooled,
        components=("vae", "text_encoder", "text_encoder_2", "scheduler"),
        batched=False,
        scale="true_cfg_scale",
        implied=False,
        unpack=_from_patches,
        needs_arguments=True,
        output_types=("pil", "np", "pt"),
    ),
)


def family_of(pipe: Any) -> Family:
    """The family of a pipeline.

    Raises:
        CannotSteer: no row covers its class, a component is missing, or its scheduler's prediction is not known.
    """
    name = type(pipe).__name__
    parts = {part for part in _parts(row_of(name)) if getattr(pipe, part, None) is not None}
    return complete(name, parts, getattr(pipe, "scheduler", None))


def row_of(name: str) -> Family:
    """The row that covers a class.

    Raises:
        CannotSteer: none does.
    """
    family = next((each for each in FAMILIES if name in each.pipelines), None)
    if family is None:
        known = ", ".join(sorted(each for row in FAMILIES for each in row.pipelines))
        raise CannotSteer(f"{name} is not a pipeline this version can steer", hint=f"It steers {known}.")
    return family


def complete(name: str, parts: Container[str], scheduler: Any) -> Family:
    """The row that covers a class which has these parts and this scheduler.

    Raises:
        CannotSteer: no row covers the class, a part is missing, or its scheduler's prediction is not known.
    """
    family = row_of(name)
    for part in _parts(family):
        if part not in parts:
            raise CannotSteer(f"{name} has no {part}", hint=f"Load the pipeline with its {part}.")
    prediction.check(scheduler)
    return family


def _parts(family: Family) -> tuple[str, ...]:
    return (*family.denoisers, *family.components)
