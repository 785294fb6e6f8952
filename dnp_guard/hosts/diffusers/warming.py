"""Make a compiled denoiser compile for steered evaluations, before any request has to wait for it."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

import torch

from dnp_guard.hosts.diffusers.attach import guard_of
from dnp_guard.hosts.diffusers.guarded_call import guarded_call
from dnp_guard.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from dnp_guard.guard import Guard

_STEPS: Final = 3
"""One step with a query, and two steered ones; the second of these can reuse the first one's evaluation."""


class _Sees:
    """A VLM backend that answers every question with yes, about all pictures or only about the first one."""

    def __init__(self, *, everywhere: bool) -> None:
        self._everywhere = everywhere

    def ask(self, images: Sequence[Image], questions: Sequence[str]) -> list[list[float]]:
        """Answer yes for some pictures, and no for the others."""
        return [[float(self._everywhere or not row)] * len(questions) for row in range(len(images))]


def warm_up(guard: Guard, pipe: Any, *args: Any, **kwargs: Any) -> None:
    """Run a call twice with a few steps, steered in one image and then in all images, and discard the results.

    A denoiser with ``torch.compile`` compiles for every new batch size. The negative of one image makes one
    such batch, and the negatives of all images make another; after this, no guarded call has to compile for either.
    The VLM is not queried, nothing is recorded or counted, and the global random numbers stay as they are.

    Args:
        guard: guard whose policy defines how negatives enter the guidance.
        pipe: the pipeline, attached or not; its own guard stays attached.
        args: positional arguments of the call, with the number of prompts and the image size of later calls.
        kwargs: keyword arguments of the call; ``num_inference_steps`` is overridden.

    Raises:
        CannotSteer: no negative prompt can take effect in this call.
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
    """Return a policy with another policy's guidance that steers by made-up words from the first step on."""
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
