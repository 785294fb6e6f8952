"""One row of the table: how a kind of pipeline is steered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import CannotSteer
from dnp_guard.hosts.diffusers.families.guidance import branches

if TYPE_CHECKING:
    from torch import Tensor

Encode = Callable[[Any, Sequence[str], Mapping[str, Any]], "Mapping[str, Tensor | None]"]
"""Pipeline, texts and the arguments of the call to the denoiser's arguments that make up a negative."""

Unpack = Callable[[Any, "Tensor", Mapping[str, Any]], "Tensor"]
"""Pipeline, latents and the arguments of the call to latents as the autoencoder takes them."""


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of pipeline.

    Attributes:
        name: for people.
        pipelines: names of the classes it covers, exactly.
        denoisers: names of the components that are hooked; those that a pipeline may be without end in ``?``.
        encode: gives the denoiser's arguments that make up a negative, each [len(texts), ...], or None for an argument
            that is to be None. A dot in the name of an argument leads into a dictionary.
        components: what else the pipeline must have.
        batched: whether one evaluation holds every branch; otherwise each branch is an evaluation of its own.
        order: the branches in the order of the batch, or of the evaluations of a step: u is unconditional, c the user's
            prompt, any other letter another one, such as p, c perturbed. Branches that a call is without are left out.
        branches: pipeline and order to the order of this call.
        scale: the argument of a call that is the scale of classifier-free guidance.
        off: the scale up to which there is no guidance.
        implied: whether a call without a negative prompt has the empty one.
        weight: pipeline and the arguments of the call to what the unconditional branch counts in the guided output,
            where the host normalises that by the conditional branch, otherwise None.
        sign: of what the scheduler is given against what the denoiser answers, where branches are evaluations.
        unpack: gives latents as the autoencoder takes them.
        pack: pipeline and latents as the autoencoder takes them to latents as the sampler holds them.
        autoencoder: the component that decodes latents.
        video: whether an item of the batch is a video, its latents [C, F, H, W].
        channels: which dimension of what the denoiser answers holds channels, where that is not a sequence.
        listed: arguments of the denoiser that are lists, an element an image.
        repeated: arguments of the denoiser that hold one row a frame rather than one an image.
        leading: arguments of the denoiser whose first part alone is the prompt's.
        fixed: whether every negative is as long as the prompt's embeddings, and can take their place in the input.
        needs_arguments: whether a call cannot be guarded without knowing its arguments.
        refused: arguments of a call under which it cannot be steered.
        output_types: what a call may be asked for.
    """

    name: str
    pipelines: frozenset[str]
    encode: Encode
    denoisers: tuple[str, ...] = ("transformer",)
    components: tuple[str, ...] = ("vae", "text_encoder", "scheduler")
    batched: bool = True
    order: str = "uc"
    branches: Callable[[Any, str], str] = branches
    scale: str = "guidance_scale"
    off: float = 1.0
    implied: bool = True
    weight: Callable[[Any, Mapping[str, Any]], float | None] = lambda _pipe, _wanted: None
    sign: int = 1
    unpack: Unpack = lambda _pipe, latents, _wanted: latents
    pack: Callable[[Any, Any], Any] = lambda _pipe, latents: latents
    autoencoder: str = "vae"
    video: bool = False
    channels: int = 1
    listed: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()
    leading: tuple[str, ...] = ()
    fixed: bool = True
    needs_arguments: bool = False
    refused: tuple[str, ...] = ()
    output_types: tuple[str, ...] = ("pil", "np", "pt", "latent")

    @property
    def joins(self) -> bool:
        """Whether the rows of negatives can be appended to the host's own evaluation."""
        return self.batched and self.fixed and "p" not in self.order and not (self.repeated or self.leading)

    @property
    def attached_only(self) -> bool:
        """Whether the call argument does not do: it is told no arguments, and of videos it would decode the latents."""
        return self.needs_arguments or self.video

    def denoisers_of(self, pipe: Any) -> list[Any]:
        """The components of a pipeline that are hooked."""
        found = [getattr(pipe, name.removesuffix("?"), None) for name in self.denoisers]
        return [each for each in found if each is not None]

    def parts(self) -> tuple[str, ...]:
        """Names of the components that a pipeline must have."""
        return (*(name for name in self.denoisers if not name.endswith("?")), *self.components)

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
        for name in ("negative_prompt_2", "negative_prompt_3", "negative_prompt_4"):
            if wanted.get(name):
                raise CannotSteer(
                    f"guidance mode 'replace' would drop {name}", hint=f"Use guidance mode 'separate', or no {name}."
                )
        if "u" not in self.order:
            raise CannotSteer(
                "guidance mode 'replace' has no unconditional slot in a pipeline whose guidance is distilled",
                hint="Use guidance mode 'separate'.",
            )
        scale = wanted[self.scale]
        if not scale > self.off or not (self.implied or wanted.get("negative_prompt") is not None):
            raise CannotSteer(
                f"guidance mode 'replace' has no unconditional slot at {self.scale} {scale}"
                + ("" if self.implied else " without a negative_prompt"),
                hint=f"Use guidance mode 'separate', or a {self.scale} over {self.off:g}"
                + ("." if self.implied else " with a negative_prompt, which may be empty."),
            )
