"""Prove before a call's first step where its prompt goes, and how the pipeline combines its branches.

The user's own prompt is captured again, and must result in the pipeline's own arguments, bit for bit. Other words are
captured, and only arguments that depend on a prompt may differ. Then the pipeline's own arithmetic is run on made-up
outputs: it shows whether a tensor added to every branch is added to the guided prediction, with which sign and in which
of the denoiser's tokens and channels, or else the weight of the unconditional branch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import CannotSteer
from dnp_guard.hosts.diffusers.asking import arguments
from dnp_guard.hosts.diffusers.asking.arithmetic import ask, weighed
from dnp_guard.hosts.diffusers.asking.capture import FirstStep, capture
from dnp_guard.hosts.diffusers.asking.places import Captured, Places, alike, compared, named, prompts
from dnp_guard.hosts.diffusers.asking.prompts import changes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from dnp_guard.hosts.diffusers.asking.arguments import Evaluation
    from dnp_guard.hosts.diffusers.asking.recording import Recording


class Proof:
    """Proven facts about one call.

    Args:
        recording: recording of the call.
        own: its first step.
        words: any words that may be injected.

    Raises:
        CannotSteer: it cannot be shown where the prompt goes, or how the branches are combined.
    """

    def __init__(self, recording: Recording, own: FirstStep, words: str) -> None:
        self._recording, self._own = recording, own
        self._captured: dict[str, FirstStep] = {}
        self._beside = False
        self._again = self._made_again()
        self.places = self._places(words)
        arithmetic = ask(own, self._guided)
        guides = arithmetic.weight is not None
        self.arithmetic = weighed(arithmetic, self.places, own, self._guided) if guides else arithmetic

    def captured(self, words: str) -> Captured:
        """Capture what the denoiser gets for words in place of the negative, or else of the prompt.

        Raises:
            CannotSteer: it cannot be captured.
        """
        place = self.places.place if self.places.negative else self.places.prompt
        return Captured(self._first_step(words, negative=self.places.negative).evaluations[place], self.places)

    def prompts(self, words: str) -> dict[int, tuple[Evaluation, Sequence[int]]]:
        """Find the prompt in the first step.

        Args:
            words: any words that differ from the prompt; the rows that change with them hold the prompt.

        Returns:
            The evaluations that hold the prompt, by their number in the step, with the indices of their rows that hold
            it.

        Raises:
            CannotSteer: if no evaluation holds the prompt.
        """
        held = prompts(self._again, self._first_step(words, negative=False))
        if not held:
            raise _hidden()
        return {place: (self._again.evaluations[place], rows) for place, rows in held.items()}

    def _first_step(self, words: str, *, negative: bool) -> FirstStep:
        key = f"{negative} {words}"
        if key not in self._captured:
            for change in changes(self._recording, words):
                if change.negative == negative and (change.beside is not None) == self._beside:
                    self._captured[key] = capture(self._recording, self._own, change.given)
                    break
            else:
                raise _hidden()
        return self._captured[key]

    def _made_again(self) -> FirstStep:
        """Capture the first step again with the user's own prompt, and check that its arguments are bit-identical."""
        again = capture(self._recording, self._own)
        try:
            self._check_same(again)
        except CannotSteer:
            if self._recording.rewinds or not self._recording.draws_again:
                raise
            self._recording.rewinds = True  # something is drawn without the caller's generators
            return self._made_again()
        made = len(self._own.evaluations) - self._own.rehearsed
        self._own = replace(self._own, evaluations=[*self._own.evaluations[:made], *again.evaluations[made:]])
        return again

    def _guided(self, outputs: Any) -> Tensor:
        return capture(self._recording, self._own, outputs=outputs).output

    def _check_same(self, again: FirstStep) -> None:
        """Check that the user's own prompt results in the pipeline's own arguments again, bit for bit.

        Raises:
            CannotSteer: the arguments, or the order of the evaluations, are others.
        """
        own = self._own
        if len(own.evaluations) != len(again.evaluations):
            raise _unsteady("its denoiser is evaluated in another way when the same call is made again")
        for place, evaluation in enumerate(again.evaluations[: len(own.evaluations) - own.rehearsed]):
            self.check(place, evaluation)

    def check(self, place: int, evaluation: Evaluation) -> None:
        """Check that an evaluation of the first step gets the same arguments as before, bit for bit.

        Raises:
            CannotSteer: an argument is another.
        """
        own = self._own.evaluations[min(place, len(self._own.evaluations) - 1)]
        if own.name != evaluation.name or place >= len(self._own.evaluations):
            raise _unsteady("its denoiser is evaluated in another way when the same call is made again")
        paths = arguments.differing(own.given, evaluation.given)
        if not self._recording.draws_again:  # then its latents differ
            paths = [path for path in paths if path[0] != next(iter(own.given))]
        if paths:
            raise _unsteady(f"the same call gives its {own.name} another {named(paths[0])} when it is made again")

    def _places(self, words: str) -> Places:
        reason: Exception | None = None
        for change in changes(self._recording, words):
            try:
                other = capture(self._recording, self._own, change.given)
                own = self._again
                if change.beside is not None:
                    own = capture(self._recording, self._own, change.beside)
            except CannotSteer:
                raise
            except Exception as error:  # noqa: BLE001 (a pipeline may refuse one of the ways)
                reason = error
                continue
            places = compared(own, other, negative=change.negative) if alike(self._again, own) else None
            if places is not None:
                self._beside = change.beside is not None
                self._captured[f"{change.negative} {words}"] = other
                return places
        raise _hidden() from reason


def _hidden() -> CannotSteer:
    return CannotSteer(
        "no words of this call reach its denoiser: other words leave everything that it is given as it was",
        hint="Guard the pipeline that turns the prompt into what this one is given, or pass a prompt to this one.",
    )


def _unsteady(reason: str) -> CannotSteer:
    return CannotSteer(
        f"it cannot be shown where the prompt goes: {reason}",
        hint="Pass generators in place of global random numbers, and arguments that can be read twice.",
    )
