"""Make a compiled denoiser compile for steered evaluations, before any request has to wait for it."""

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
"""One step with a look and two steered ones, of which the second may reuse the first's evaluation."""


class _Sees:
    """Backend that answers yes to every question, about the first picture or about all pictures."""

    def __init__(self, *, everywhere: bool) -> None:
        self._everywhere = everywhere

    def ask(self, images: Sequence[Image], questions: Sequence[str]) -> list[list[float]]:
        """Answer yes for some pictures, and no for the others."""
        return [[float(self._everywhere or not row)] * len(questions) for row in range(len(images))]


def warm_up(guard: Guard, pipe: Any, *args: Any, **kwargs: Any) -> None:
    """Run a call twice in a few steps, steered in one image and in all, and discard the results.

    A denoiser with ``torch.compile`` compiles for every batch size that is new to it. The negative of one image makes
    such a batch, and those of several images another; after this, no guarded call has to compile for either. Nothing is
    queried, recorded or counted, and the global random numbers stay as they are.

    Args:
        guard: guard whose policy defines how negatives enter the guidance.
        pipe: the pipeline, attached or not; its own guard stays attached.
        args: arguments of the call, as requests make it: the same number of prompts and the same size.
        kwargs: keyword arguments of the call; ``num_inference_steps`` is set.

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
    """Return a policy that steers like another one from the first step on, whatever is seen."""
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
