"""Decide whether one call is steered in attention space, from its first evaluations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from dnp_guard.errors import CannotSteer
from dnp_guard.generation.reach import in_attention
from dnp_guard.hosts.diffusers.asking.recording import takes_time
from dnp_guard.hosts.diffusers.attending.injection import AttentionInjection, check_beside
from dnp_guard.hosts.diffusers.attending.reading import Reading, reach
from dnp_guard.hosts.diffusers.attending.watched import Plain, WatchedDenoiser
from dnp_guard.steering.effect import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dnp_guard.hosts.diffusers.asking.proof import Proof
    from dnp_guard.hosts.diffusers.attending.reading import Note
    from dnp_guard.hosts.diffusers.steered import SteeredCall
    from dnp_guard.policy import Policy


class Attending:
    """Finds out, during the first step of one call, whether the call can be steered in attention space.

    Args:
        policy: the policy in force.
        parts: parts of the pipeline (denoiser, encoders, …), by name.

    Attributes:
        wanted: whether the call is to be steered in attention space if possible.
    """

    def __init__(self, policy: Policy, parts: Mapping[str, Any]) -> None:
        denoisers = [part for part in parts.values() if isinstance(part, torch.nn.Module) and takes_time(part)]
        self.wanted = in_attention(policy, shown=all(map(shown, denoisers)))
        self._must = in_attention(policy, shown=False)
        self._watched: dict[str, WatchedDenoiser] = {}
        self._notes: dict[str, list[list[Note]]] = {}
        self._reason: CannotSteer | None = None

    def first(self, name: str, part: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Evaluate a part of the pipeline before the first step; if it is a denoiser, note how it reads the prompt.

        Args:
            name: name of the part.
            part: the part.
            args: positional arguments of the part.
            kwargs: keyword arguments of the part.
        """
        if not takes_time(part) or (watched := self._of(name, part)) is None:
            return part(*args, **kwargs)
        watched.stage = reading = Reading()
        try:
            return watched.module(*args, **kwargs)
        finally:
            watched.stage = Plain()
            self._notes.setdefault(name, []).append(reading.notes)

    def injection(self, proof: Proof, words: str, call: SteeredCall) -> AttentionInjection | None:
        """Return the object that steers the call in attention space; None to steer the denoiser's outputs instead.

        Args:
            proof: proven facts about the call, such as where its prompt goes.
            words: some text that the policy can inject.
            call: the running call.

        Raises:
            CannotSteer: the policy steers only in attention space, and the prompt cannot be reached there.
        """
        if not self.wanted:
            return None
        try:
            return self._injection(proof, words, call)
        except CannotSteer:
            if self._must:
                raise
            return None

    def _injection(self, proof: Proof, words: str, call: SteeredCall) -> AttentionInjection:
        prompts = proof.prompts(words)
        place, (evaluation, _) = next(iter(prompts.items()))
        name = evaluation.name
        if name not in self._notes and self._reason is None:  # in a call whose first step is over
            self.first(name, evaluation.part, (), dict(evaluation.given))
            place = 0
        if self._reason is not None:
            raise self._reason
        readers = reach(self._notes[name][place])
        if readers.joint:
            check_beside(proof.places, evaluation, proof.captured(words).evaluation)
        return AttentionInjection(readers, self._watched, proof.places, list(prompts.values()), call)

    def _of(self, name: str, part: Any) -> WatchedDenoiser | None:
        if name not in self._watched:
            try:
                self._watched[name] = WatchedDenoiser(part)
            except CannotSteer as error:
                self._reason = error
        return self._watched.get(name)
