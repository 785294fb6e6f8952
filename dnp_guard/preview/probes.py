"""Select the latent probe of a guard, and read it when a policy first needs it. Imports no torch until then."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dnp_guard.errors import DnpGuardError

if TYPE_CHECKING:
    from dnp_guard.policy import Policy
    from dnp_guard.preview.probe import Probe
    from dnp_guard.vlm.base import Backend, BackendInfo


class Probes:
    """The probe of one guard.

    Args:
        given: file of a probe; None for the embedded model's own, if that model answers.
    """

    def __init__(self, given: str | Path | None) -> None:
        self._given = Path(given) if given is not None else None
        self._loaded: Probe | None = None

    def of(self, policy: Policy, backend: Backend) -> Probe | None:
        """Return the probe for a policy; None if the policy uses none.

        Args:
            policy: the policy.
            backend: the backend that answers.

        Raises:
            DnpGuardError: there is no probe, it cannot be read, or it was trained for something else.
        """
        if policy.queries.skip_probe is None:
            return None
        if len(backend.members) > 1:
            raise DnpGuardError(
                "a probe guesses the answers of one model, and several are asked",
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
                f"policy {policy.name!r} has queries.skip_probe, and the guard has no probe",
                hint="Train one with `dnp-guard distill`, and pass Guard(probe=FILE).",
            )
        return load(file)
