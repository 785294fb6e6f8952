"""Generate images to train a probe on, with a guard that queries at every step; some batches are steered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from dnp_guard.generation.pacing import due_by_category
from dnp_guard.guard import Guard
from dnp_guard.lab.distill.examples import Example, Watcher, refuse_sensitive
from dnp_guard.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dnp_guard.vlm.base import Backend

_STEERED = 4
"""Every fourth batch is steered. A probe mostly sees images that are not steered, so most batches are not."""


def watch(
    pipe: Any,
    vlm: Backend,
    policy: Policy,
    prompts: Sequence[str],
    *,
    steps: int,
    seed: int = 0,
    batch: int = 8,
    advance: Callable[[int], None] = lambda _: None,
    **arguments: Any,
) -> list[Example]:
    """Generate one image per prompt, and query every image at every step.

    Args:
        pipe: pipeline that the guard can steer.
        vlm: backend that answers the queries.
        policy: policy with the questions and thresholds; it also says how to steer.
        prompts: prompts, some of which should lead to images of a category of the policy.
        steps: number of steps of the sampler.
        seed: seed of the first image; image i has ``seed + i``.
        batch: number of images per call of the pipeline.
        advance: function that is called after every batch, with its number of images.
        arguments: further arguments of the pipeline's call.

    Returns:
        One example per image and step, in the order of the queries.

    Raises:
        DnpGuardError: if the policy has a sensitive category, or if a probe cannot read the model's latents.
    """
    refuse_sensitive(policy)
    watcher = Watcher()
    for number, at in enumerate(range(0, len(prompts), batch)):
        part = list(prompts[at : at + batch])
        everywhere = _everywhere(policy, steps, len(part), steered=number % _STEERED == 0)
        with Guard(everywhere, vlm=vlm, plugins=[watcher]) as guard, guard.attached(pipe):
            pipe(
                part,
                num_inference_steps=steps,
                generator=[torch.Generator().manual_seed(seed + at + index) for index in range(len(part))],
                **arguments,
            )
        advance(len(part))
    return watcher.looks


def _everywhere(policy: Policy, steps: int, images: int, *, steered: bool) -> Policy:
    """Return the policy with queries at every step from its own first query on; if not steered, it only observes."""
    data = {name: getattr(policy, name) for name in Policy.model_fields}
    first = min((due[0] for due in due_by_category(policy, steps).values() if due), default=0)
    queries = {"steps": list(range(first, steps)), "of": steps, "final": True, "max_questions": 1_000_000 * images}
    categories = [category.model_copy(update={"queries": None}) for category in policy.categories]
    changes = {"queries": queries, "categories": categories, "mode": policy.mode if steered else "shadow"}
    return Policy.model_validate({**data, **changes})
