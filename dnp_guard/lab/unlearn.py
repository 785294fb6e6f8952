"""Offer the guard as a technique of the harness ``eval-unlearn`` (entry points ``eval_unlearn.techniques``).

The harness measures the images that a technique delivers, so for a withheld image it measures the placeholder. To
measure steering alone, use a policy whose ``still_present`` is ``monitor``.
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
    """Keys of the technique's ``config`` in the harness.

    Attributes:
        model_id: folder of a pipeline, or the hub id of one in the local cache.
        vlm: spec of the backend that answers the queries.
        policy: path of a policy file, or the name of a shipped policy.
        erase_concept: name of the concept for the harness; it does not change which categories the policy guards.
        audit: target of the audit log; empty for none.
        num_inference_steps: number of steps of the sampler.
        guidance_scale: scale of classifier-free guidance.
    """

    model_id: str = "CompVis/stable-diffusion-v1-4"
    vlm: str = "transformers:Qwen/Qwen2.5-VL-3B-Instruct"
    policy: str = "paper-nudity"
    erase_concept: str = "nudity"
    audit: str = ""
    num_inference_steps: int = 50
    guidance_scale: float = 7.5


class GuardTechnique:
    """Technique that generates images under the guard.

    Args:
        config: values for the keys of :class:`UnlearnConfig`.

    Raises:
        DnpGuardError: if a key is unknown, or if the model, the backend or the policy cannot be used.
    """

    mode: str | None = None
    """Value that replaces the policy's ``guidance.mode``; None keeps the policy's own."""

    def __init__(self, **config: Any) -> None:
        known = [field.name for field in fields(UnlearnConfig)]
        if unknown := [key for key in config if key not in known]:
            raise DnpGuardError(f"the technique has no key {unknown[0]!r}", hint=did_you_mean(unknown[0], known))
        self.config = UnlearnConfig(**config)
        self._pipe = load_model(self.config.model_id)
        if getattr(self._pipe, "safety_checker", None) is not None:
            self._pipe.safety_checker = None  # the guard is measured, not the checker
        self._guard = Guard(self._policy(), vlm=self.config.vlm, audit=self.config.audit or None)
        self._pipe.callback_on_step_end = self._guard

    def generate(self, prompts: Sequence[str], seed: int | None = None, **kwargs: Any) -> list[Image]:
        """Generate one image per prompt; prompt i has seed ``seed + i``, as in the harness's unguarded technique.

        Args:
            prompts: one prompt per image.
            seed: seed of the first prompt; None for random seeds.
            kwargs: arguments of the pipeline's call; they replace the configured ``num_inference_steps`` and
                ``guidance_scale``.
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
    """Technique that generates images under a guard that steers in attention space (``guidance.mode: attention``)."""

    mode = "attention"
