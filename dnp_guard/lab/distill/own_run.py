"""A run of its own to learn from: a guard that looks at every step, as the policy steers and unsteered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from dnp_guard.generation.pacing import due_by_category
from dnp_guard.guard import Guard
from dnp_guard.lab.distill.looks import Example, Watcher, refuse_sensitive
from dnp_guard.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dnp_guard.vlm.base import Backend

_STEERED = 4
"""Every fourth batch is steered: a probe is asked about images that nothing is held against, mostly."""


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
    """Generate an image a prompt and look at each at every step.

    Args:
        pipe: a pipeline that can be steered.
        vlm: answers.
        policy: gives questions and thresholds, and says how the steered images are steered.
        prompts: some of which should draw what the policy looks for.
        steps: of the sampler.
        seed: image i is made from ``seed + i``.
        batch: images of one call.
        advance: hears of images that are done.
        arguments: of the pipeline's call.

    Raises:
        DnpGuardError: the policy has a sensitive category, or the latents cannot be read.
    """
    refuse_sensitive(policy)
    watcher = Watcher()
    for number, at in enumerate(range(0, len(prompts), batch)):
        part = list(prompts[at : at + batch])
        of = _everywhere(policy, steps, len(part), steered=number % _STEERED == 0)
        with Guard(of, vlm=vlm, plugins=[watcher]) as guard, guard.attached(pipe):
            pipe(
                part,
                num_inference_steps=steps,
                generator=[torch.Generator().manual_seed(seed + at + index) for index in range(len(part))],
                **arguments,
            )
        advance(len(part))
    return watcher.looks


def _everywhere(policy: Policy, steps: int, images: int, *, steered: bool) -> Policy:
    """The policy, looking at every step from its first on: what is never asked is not worth learning."""
    data = {name: getattr(policy, name) for name in Policy.model_fields}
    first = min((due[0] for due in due_by_category(policy, steps).values() if due), default=0)
    each = {"steps": list(range(first, steps)), "of": steps, "final": True, "max_questions": 1_000_000 * images}
    categories = [category.model_copy(update={"queries": None}) for category in policy.categories]
    changes = {"queries": each, "categories": categories, "mode": policy.mode if steered else "shadow"}
    return Policy.model_validate({**data, **changes})
