"""The guard as a technique of the harness ``eval-unlearn`` (entry points ``eval_unlearn.techniques``).

The harness measures what a technique delivers, so an image that the guard withholds comes out withheld. Measure
steering alone with a policy whose ``still_present`` is ``monitor``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch

from dnp_guard.errors import DnpGuardError, did_you_mean
from dnp_guard.guard import Guard
from dnp_guard.hosts.diffusers.loading import load_model
from dnp_guard.policy import Policy, load_policy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class UnlearnConfig:
    """The technique's ``config`` in the harness.

    Attributes:
        model_id: a folder, or a hub id that is cached.
        vlm: spec of the backend that answers.
        policy: a policy file, or the name of a shipped one.
        erase_concept: what the harness is told is erased; the policy alone decides what is.
        audit: where records go; empty for nowhere.
        num_inference_steps: of the sampler.
        guidance_scale: of classifier-free guidance.
    """

    model_id: str = "CompVis/stable-diffusion-v1-4"
    vlm: str = "transformers:Qwen/Qwen2.5-VL-3B-Instruct"
    policy: str = "paper-nudity"
    erase_concept: str = "nudity"
    audit: str = ""
    num_inference_steps: int = 50
    guidance_scale: float = 7.5


class GuardTechnique:
    """Images drawn under the guard, as the harness asks for them.

    Args:
        config: the keys of :class:`UnlearnConfig`.

    Raises:
        DnpGuardError: a key is unknown, or the model, the backend or the policy cannot be used.
    """

    mode: str | None = None
    """How negatives enter, in place of the policy's own; None leaves that."""

    def __init__(self, **config: Any) -> None:
        known = [field.name for field in fields(UnlearnConfig)]
        if unknown := [key for key in config if key not in known]:
            raise DnpGuardError(f"the technique has no key {unknown[0]!r}", hint=did_you_mean(unknown[0], known))
        self.config = UnlearnConfig(**config)
        self._pipe = load_model(self.config.model_id)
        if getattr(self._pipe, "safety_checker", None) is not None:
            self._pipe.safety_checker = None  # what is measured is the guard
        self._guard = Guard(self._policy(), vlm=self.config.vlm, audit=self.config.audit or None)
        self._pipe.callback_on_step_end = self._guard

    def generate(self, prompts: Sequence[str], seed: int | None = None, **kwargs: Any) -> list[Image]:
        """Draw one image per prompt, prompt i from ``seed`` + i, as the harness's unguarded technique does.

        Args:
            prompts: what to draw.
            seed: of the first prompt; None draws at random.
            kwargs: of the pipeline's call; ``num_inference_steps`` and ``guidance_scale`` go before the configured.
        """
        settings = {
            "num_inference_steps": self.config.num_inference_steps,
            "guidance_scale": self.config.guidance_scale,
            **kwargs,
        }
        images = []
        for index, prompt in enumerate(prompts):
            generator = None if seed is None else torch.Generator().manual_seed(seed + index)
            images.append(self._pipe(prompt=prompt, generator=generator, **settings).images[0])
        return images

    def _policy(self) -> Policy:
        policy = load_policy(self.config.policy)
        if self.mode is None:
            return policy
        guidance = policy.guidance.model_dump(exclude_unset=True, exclude={"scale", "mode"}) | {"mode": self.mode}
        document = policy.model_dump(mode="json", exclude_unset=True) | {"guidance": guidance}
        return Policy.model_validate(document)


class AttentionTechnique(GuardTechnique):
    """The same, steering in the attention over the prompt."""

    mode = "attention"
