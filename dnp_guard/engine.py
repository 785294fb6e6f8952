"""Functions that serving engines load as plugins in their processes, by the entry points of this package.

An engine logs a plugin whose import fails and continues without it, so this module imports nothing that can fail. Every
function first installs hooks that refuse to generate; the guard itself is created when a model is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dnp_guard.guard import Guard
    from dnp_guard.hosts.engines.settings import EngineSettings


def vllm_omni() -> None:
    """Guard the models that vLLM-Omni loads in this process; the entry-point group is ``vllm_omni.general_plugins``."""
    from dnp_guard.hosts.engines import vllm_omni as adapter  # noqa: PLC0415 (an error here ends the worker)

    adapter.register(guard_of)


def sglang() -> None:
    """Guard the models that SGLang-Diffusion loads; the entry-point group is ``sglang.multimodal_gen.plugins``."""
    from dnp_guard.hosts.engines import sglang as adapter  # noqa: PLC0415 (an error here ends the worker)

    adapter.register(guard_of)


def guard_of(settings: EngineSettings) -> Guard:
    """Create the guard of an engine's worker process.

    Raises:
        DnpGuardError: the guard cannot be created.
    """
    from dnp_guard.guard import Guard  # noqa: PLC0415 (as above)

    guard = Guard(
        settings.policy,
        vlm=settings.vlm,
        audit=settings.sinks or None,
        tenant=settings.tenant,
        require_signature=settings.require_signature,
    )
    if settings.watch:
        guard.watch()
    return guard
