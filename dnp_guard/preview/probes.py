"""Select the latent probe of a guard, and read its file when a policy first needs it; only then import torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dnp_guard.errors import DnpGuardError

if TYPE_CHECKING:
    from dnp_guard.policy import Policy
    from dnp_guard.preview.probe import Probe
    from dnp_guard.vlm.base import Backend, BackendInfo


class Probes:
    """Loads the latent probe of one guard.

    A latent probe is a small network that predicts from the latents which queries can be skipped.

    Args:
        given: file of a probe; None to use the one shipped with the embedded model, if that model answers the queries.
    """

    def __init__(self, given: str | Path | None) -> None:
        self._given = Path(given) if given is not None else None
        self._loaded: Probe | None = None

    def of(self, policy: Policy, backend: Backend) -> Probe | None:
        """Return the probe for a policy; None if the policy uses none.

        Args:
            policy: the policy in force.
            backend: the backend that answers the queries.

        Raises:
            DnpGuardError: there is no probe, it cannot be read, it was trained for other questions or another model, or
                the backend asks several models.
        """
        if policy.queries.skip_probe is None:
            return None
        if len(backend.members) > 1:
            raise DnpGuardError(
                "a probe predicts the answers of one model, but several are asked",
                hint="Leave queries.skip_probe out, or ask one model alone.",
            )
        vlm = backend.info
        if self._loaded is None:
            self._loaded = self._read(policy, vlm)
        self._loaded.check_policy(policy, (vlm.name, vlm.revision))
        return self._loaded

    def _read(self, policy: Policy, vlm: BackendInfo) -> Probe:
        from dnp_guard.glyphs import PROBE  # noqa: PLC0415 (kept beside its use)
        from dnp_guard.preview.probe import load  # noqa: PLC0415 (imports torch)

        file = self._given or (PROBE if vlm.name == "glyphs" else None)
        if file is None:
            raise DnpGuardError(
                f"policy {policy.name!r} has queries.skip_probe, but the guard has no probe",
                hint="Train one with `dnp-guard distill`, and pass Guard(probe=FILE).",
            )
        return load(file)
