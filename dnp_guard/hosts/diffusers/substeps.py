"""Track the progress of a call in sub-steps (calls of its scheduler's ``step``; Heun's method has two per step)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dnp_guard.hosts.diffusers import prediction

if TYPE_CHECKING:
    from dnp_guard.hosts.diffusers.asking.recording import Recording


class Substeps:
    """Counts the sub-steps of one call: each is one call of the scheduler's ``step``.

    Args:
        recording: recording of the call.
        done: number of sub-steps that ran before counting began.

    Attributes:
        scheduler: name of the scheduler that steps; empty before the first step.
    """

    def __init__(self, recording: Recording, done: int) -> None:
        self.scheduler = ""
        self._recording = recording
        self._done = done

    def begin_again(self) -> None:
        """Count from the first step again, because the call is repeated."""
        self._done = 0

    def count(self) -> None:
        """Count a finished sub-step."""
        self._done += 1

    @property
    def none(self) -> bool:
        """Whether no sub-step has run yet."""
        return not self._done

    @property
    def step(self) -> tuple[int, int]:
        """The numbers, from 0, of the running step and of the sub-step in it."""
        return divmod(self._done, self._order)

    @property
    def begins_step(self) -> bool:
        """Whether the running sub-step begins a step."""
        return self._done % self._order == 0

    @property
    def steps(self) -> int:
        """The number of steps of the call."""
        return -(-self._timesteps // self._order)

    @property
    def levels(self) -> tuple[float, ...]:
        """The fraction of noise at the start of each step, 1 for pure noise."""
        first = len(self.stepping.timesteps) - self._timesteps
        return prediction.levels(self.stepping, range(first, first + self._timesteps, self._order))

    @property
    def ran_through(self) -> bool:
        """Whether all steps ran, without an interruption."""
        return self._done >= self._timesteps

    @property
    def complete(self) -> bool:
        """Whether all steps ran, and removed the noise completely."""
        return self.ran_through and not self._ends_early

    @property
    def may_end_noisy(self) -> bool:
        """Whether the call might return the current latents although they still contain noise."""
        # An interrupted call ends after a step that did not look like its last one.
        latent = self._recording.given.get("output_type") == "latent"
        return latent or (self.ran_through and not self.complete)

    @property
    def stepping(self) -> Any:
        """The scheduler that steps."""
        return self._recording.schedulers.get(self.scheduler)

    @property
    def _order(self) -> int:
        return int(getattr(self.stepping, "order", 1))

    @property
    def _timesteps(self) -> int:
        known: int | None = getattr(self._recording.pipe, "num_timesteps", None)
        return len(getattr(self.stepping, "timesteps", ())) if known is None else known

    @property
    def _ends_early(self) -> bool:
        """Whether the call's own argument ``denoising_end`` ends it before the images are fully denoised."""
        end = self._recording.given.get("denoising_end")
        return isinstance(end, float) and 0 < end < 1
