"""Tell which evaluations of the model begin a step of the sampler, and which are sub-steps of the running step.

In every step, a sampler calls the model, then its callback, then, if it is of higher order, the model again. Nothing
marks where the next step begins, so it is inferred from the noise level and from the number of evaluations in earlier
steps. Only in the first step can a sub-step be mistaken for the next step, if its noise level is already that of the
next step, as in Heun's method. Pure.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_CLOSE = 1 + 1e-4


class Progress:
    """Follows the steps of one run of a sampler.

    Args:
        sigmas: the noise levels of the run, as the sampler got them; empty if the sampler chooses its own steps.
        ends: the highest and the lowest noise level of the run, if there are no ``sigmas``.
    """

    def __init__(self, sigmas: Sequence[float], ends: tuple[float, float] | None = None) -> None:
        self._sigmas = tuple(sigmas)
        self._ends = ends
        self._step: int | None = None
        self._since = 0
        self._a_step: int | None = None

    @property
    def total(self) -> int | None:
        """Return the number of steps of the run; None if the sampler chooses its own steps."""
        return len(self._sigmas) - 1 if self._sigmas else None

    @property
    def levels(self) -> tuple[float, ...]:
        """Return the fraction of noise at the start of each step; empty if the sampler chooses its own steps.

        If no sigma exceeds 1, the sigmas are those of flow matching, which are such fractions already.
        """
        flows = max(self._sigmas, default=0.0) <= 1
        return tuple(sigma if flows else sigma / (1 + sigma) for sigma in self._sigmas[:-1])

    def begins(self, sigma: float) -> bool:
        """Count an evaluation of the model; return whether it is the first of a step."""
        self._since += 1
        if self._a_step is not None:
            return self._since == self._a_step
        if self._step is None or not self._sigmas:
            return self._since == 1
        return sigma <= self._sigmas[min(self._step + 1, len(self._sigmas) - 1)] * _CLOSE

    def called_back(self, index: int, sigma: float) -> float:
        """Note a step's callback; from the second step on, the number of evaluations per step is known.

        Args:
            index: index of the step.
            sigma: noise level of the step.

        Returns:
            The fraction of the run that is done, 0…1.
        """
        if self._step is not None and index > self._step:
            self._a_step = self._since
        self._step, self._since = index, 0
        if self._ends is None:
            self._ends = (sigma, 0.0)
        return index / self.total if self.total else self._done(sigma)

    def _done(self, sigma: float) -> float:
        """Return how far sigma is from the highest to the lowest level, 0…1; on a log scale if the lowest is not 0."""
        high, low = self._ends or (sigma, 0.0)
        if sigma <= low or high <= low:
            return 1.0
        scale = math.log if low > 0 else float
        return min(max((scale(high) - scale(sigma)) / (scale(high) - scale(low)), 0.0), 1.0)
