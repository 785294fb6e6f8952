"""Guard k-diffusion, and every sampler that is called like it: ``sampler(model, x, sigmas, extra_args=…, callback=…)``.

- ``target`` has ``KDiffusion``, the object that users attach a guard to.
- ``generation`` guards one run of a sampler, and ``progress`` tells the run's steps from their sub-steps.
- ``guided`` steers the model's output; ``attending`` finds the model's attention, which ``layers`` steers.
- ``batch`` selects images from conditionings of any form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dnp_guard.hosts.kdiffusion.target import KDiffusion

__all__ = ["KDiffusion"]


def __getattr__(name: str) -> Any:
    if name != "KDiffusion":  # import it only on request, because every guard loads this package's plugin
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dnp_guard.hosts.kdiffusion.target import KDiffusion  # noqa: PLC0415

    return KDiffusion
