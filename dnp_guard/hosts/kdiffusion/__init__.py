"""k-diffusion and every sampler of its shape: ``sampler(model, x, sigmas, extra_args=…, callback=…)``.

- ``target`` is the object that users attach a guard to.
- ``generation`` takes part in one run of a sampler, and ``progress`` separates its steps from their sub-steps.
- ``guided`` steers the model; ``attending`` finds its attention, which ``layers`` steers.
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
