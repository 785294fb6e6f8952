"""Prove before a call's first step where its prompt goes, and how the pipeline combines its branches.

A copy runs the call with the user's own prompt, and has to give the denoiser the same arguments, bit for bit. Another
run has other words, and only arguments that depend on a prompt may differ. Then the pipeline's own arithmetic is run on
made-up outputs of the denoiser. It shows whether a tensor that is added to every branch arrives in the guided
prediction, with which sign, and in which tokens and channels; if not, it shows the weight of the unconditional branch.
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
    """Proven facts about one call: where its prompt goes, and how the pipeline combines its guidance branches.

    Args:
        recording: recording of the call.
        own: first step of the call.
        words: some text that the policy can inject.

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
        """Return the denoiser's arguments with words in place of the negative prompt, or else of the prompt.

        Raises:
            CannotSteer: the words do not reach the denoiser.
        """
        place = self.places.place if self.places.negative else self.places.prompt
        return Captured(self._first_step(words, negative=self.places.negative).evaluations[place], self.places)

    def prompts(self, words: str) -> dict[int, tuple[Evaluation, Sequence[int]]]:
        """Find the prompt in the evaluations of the first step.

        Args:
            words: some text that differs from the prompt; the batch rows that change with it hold the prompt.

        Returns:
            The evaluations that hold the prompt, by their number in the step, with the indices of the batch rows that
            hold it.

        Raises:
            CannotSteer: no evaluation holds the prompt.
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
        """Run the first step again on a copy, and check that the denoiser gets bit-identical arguments."""
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
        """Check that the denoiser's arguments in a repeated first step equal those of the call itself, bit for bit.

        Raises:
            CannotSteer: an argument, or the number or order of the evaluations, differs.
        """
        own = self._own
        if len(own.evaluations) != len(again.evaluations):
            raise _unsteady("its denoiser is evaluated in another way when the same call is made again")
        for place, evaluation in enumerate(again.evaluations[: len(own.evaluations) - own.rehearsed]):
            self.check(place, evaluation)

    def check(self, place: int, evaluation: Evaluation) -> None:
        """Check that an evaluation of the first step gets the same arguments as before, bit for bit.

        Raises:
            CannotSteer: an argument differs, or another part is evaluated.
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
