"""Have a compiled denoiser compiled for what steering evaluates, before any request waits for it."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

import torch

from dnp_guard.hosts.diffusers.attach import guard_of
from dnp_guard.hosts.diffusers.guarded import guarded_call
from dnp_guard.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from dnp_guard.guard import Guard

_STEPS: Final = 3
"""One that is looked at, and two that are steered: the second of them may use what the first evaluated."""


class _Sees:
    """Sees everything in the first picture, or in all."""

    def __init__(self, *, everywhere: bool) -> None:
        self._everywhere = everywhere

    def ask(self, images: Sequence[Image], questions: Sequence[str]) -> list[list[float]]:
        """Answer yes of some pictures, and no of the others."""
        return [[float(self._everywhere or not row)] * len(questions) for row in range(len(images))]


def warm_up(guard: Guard, pipe: Any, *args: Any, **kwargs: Any) -> None:
    """Make a call twice in a few steps, steered in one image and in all, and throw away what it returns.

    A denoiser under ``torch.compile`` compiles for each batch that is new to it. The negatives of one image are such a
    batch, and those of several another; after this call no guarded one pays for either. Nothing is asked, recorded or
    counted, and the global random numbers stay as they are.

    Args:
        guard: whose policy says how negatives enter the guidance.
        pipe: the pipeline, attached or not; its own guard stays.
        args: of the call, as requests make it: as many prompts, of the same size.
        kwargs: likewise; ``num_inference_steps`` is set.

    Raises:
        CannotSteer: no negative could take effect in this call.
    """
    kind: Any = type(pipe).__mro__[1] if guard_of(pipe) is not None else type(pipe)
    few = (
        {"num_inference_steps": _STEPS} if "num_inference_steps" in inspect.signature(kind.__call__).parameters else {}
    )
    of = _warming(guard.policy)
    for everywhere in (False, True):
        sees = _Sees(everywhere=everywhere)
        with type(guard)(of, vlm=sees, preview_vae=guard.preview_vae) as own, torch.random.fork_rng():
            guarded_call(own, pipe, kind.__call__, args, {**kwargs, **few})


def _warming(policy: Policy) -> Policy:
    """A policy that steers as another does, at the first step, whatever is seen."""
    return Policy.model_validate(
        {
            "format": 1,
            "name": "warm-up",
            "queries": {"steps": [0], "of": _STEPS},
            "guidance": policy.guidance.model_dump(mode="json", exclude_none=True),
            "preview": policy.preview.model_dump(mode="json"),
            "categories": [{"id": "anything", "negative": ["a word"], "still_present": "monitor"}],
            "audit": {"prompt": "none"},
        }
    )
