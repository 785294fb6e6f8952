"""Tell which evaluations of the model begin a step of the sampler, and which belong to the running step.

In every step, a sampler evaluates the model, calls its callback, and, if it is of higher order, evaluates the model
again. Nothing marks the beginning of the next step, so it is inferred from the noise level and from the number of
evaluations in earlier steps. A mistake is possible in the first step only: a second evaluation at or below the next
step's noise level, as in Heun's method, is taken for the next step.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_CLOSE = 1 + 1e-4


class Progress:
    """The progress of one run of a sampler.

    Args:
        sigmas: the noise levels of the run, as passed to the sampler; empty if the sampler chooses its own steps.
        ends: the highest and the lowest noise level of the run, needed without ``sigmas``.
    """

    def __init__(self, sigmas: Sequence[float], ends: tuple[float, float] | None = None) -> None:
        self._sigmas = tuple(sigmas)
        self._ends = ends
        self._step: int | None = None
        self._since = 0
        self._a_step: int | None = None

    @property
    def total(self) -> int | None:
        """The number of steps of the run; None if the sampler chooses its own."""
        return len(self._sigmas) - 1 if self._sigmas else None

    def begins(self, sigma: float) -> bool:
        """Count an evaluation of the model at a noise level, and return whether it is the first of a step."""
        self._since += 1
        if self._a_step is not None:
            return self._since == self._a_step
        if self._step is None or not self._sigmas:
            return self._since == 1
        return sigma <= self._sigmas[min(self._step + 1, len(self._sigmas) - 1)] * _CLOSE

    def called_back(self, index: int, sigma: float) -> float:
        """Note the callback of a step, and learn from it how many evaluations a step takes.

        Returns:
            The executed share of the run, 0…1.
        """
        if self._step is not None and index > self._step:
            self._a_step = self._since
        self._step, self._since = index, 0
        if self._ends is None:
            self._ends = (sigma, 0.0)
        return index / self.total if self.total else self._done(sigma)

    def _done(self, sigma: float) -> float:
        """Return the share of the noise that is removed, 0…1; on a logarithmic scale if the run ends above zero."""
        high, low = self._ends or (sigma, 0.0)
        if sigma <= low or high <= low:
            return 1.0
        scale = math.log if low > 0 else float
        return min(max((scale(high) - scale(sigma)) / (scale(high) - scale(low)), 0.0), 1.0)
