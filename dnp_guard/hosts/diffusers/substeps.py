"""How far a call is, in the scheduler's own sub-steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dnp_guard.hosts.diffusers import prediction

if TYPE_CHECKING:
    from dnp_guard.hosts.diffusers.asking.recording import Recording


class Substeps:
    """Counts the sub-steps of one call.

    Args:
        recording: of the call.
        done: sub-steps that ran before anything was counted.

    Attributes:
        scheduler: the name of the scheduler that steps; empty before the first step.
    """

    def __init__(self, recording: Recording, done: int) -> None:
        self.scheduler = ""
        self._recording = recording
        self._done = done

    def begin_again(self) -> None:
        """Count from the first step on, as the call is made again."""
        self._done = 0

    def count(self) -> None:
        """Count a sub-step that is over."""
        self._done += 1

    @property
    def none(self) -> bool:
        """Whether no sub-step ran."""
        return not self._done

    @property
    def step(self) -> tuple[int, int]:
        """The number of the step that runs, and of its sub-step."""
        return divmod(self._done, self._order)

    @property
    def begins_step(self) -> bool:
        """Whether what runs begins a step, and is no sub-step of one."""
        return self._done % self._order == 0

    @property
    def steps(self) -> int:
        """How many steps the call has."""
        return -(-self._timesteps // self._order)

    @property
    def levels(self) -> tuple[float, ...]:
        """The share of noise that each step begins with."""
        first = len(self.stepping.timesteps) - self._timesteps
        return prediction.levels(self.stepping, range(first, first + self._timesteps, self._order))

    @property
    def ran_through(self) -> bool:
        """Whether no step was left out, as those after an interruption are."""
        return self._done >= self._timesteps

    @property
    def complete(self) -> bool:
        """Whether nothing of the noise is left."""
        return self.ran_through and not self._ends_early

    @property
    def may_end_noisy(self) -> bool:
        """Whether the call may end with the latents as they are now, with noise left in them."""
        # Of a call that is interrupted no step says that it is the last.
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
        """Whether the call ends before its images are denoised, by the pipeline's own rule."""
        end = self._recording.given.get("denoising_end")
        return isinstance(end, float) and 0 < end < 1
