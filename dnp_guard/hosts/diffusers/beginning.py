"""Prove before a call's first step where a negative prompt goes in it, and how its predictions become pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import CannotSteer, DnpGuardError
from dnp_guard.hosts.diffusers.asking import arguments
from dnp_guard.hosts.diffusers.asking.capture import capture_evaluated
from dnp_guard.hosts.diffusers.asking.proof import Proof
from dnp_guard.hosts.diffusers.asking.recording import takes_time
from dnp_guard.hosts.diffusers.checks import check_caches
from dnp_guard.hosts.diffusers.showing.predicted_pictures import Shows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from dnp_guard.guard import Guard
    from dnp_guard.hosts.diffusers.asking.arguments import Evaluation
    from dnp_guard.hosts.diffusers.asking.capture import FirstStep
    from dnp_guard.hosts.diffusers.asking.recording import Recording
    from dnp_guard.policy import Policy

_ATTACH = "Attach the guard instead: pipe.callback_on_step_end = guard."
_READ_TWICE = "Pass arguments that can be read twice, or use another pipeline of the same model."


@dataclass(frozen=True, slots=True)
class Begun:
    """Facts about one call that are known before its first step.

    Attributes:
        denoisers: names of the pipeline's parts that denoise.
        shows: turns the call's predictions into pictures.
        proof: proof of where a negative prompt goes; None in shadow mode, which steers nothing.
        channels: dimension of the denoiser's output that holds channels.
        words: some text that the policy can inject.
    """

    denoisers: frozenset[str]
    shows: Shows
    proof: Proof | None
    channels: int
    words: str = ""


def begin(guard: Guard, policy: Policy, recording: Recording, first: FirstStep, images: int) -> Begun:
    """Prove where a negative prompt goes in a call, and how its predictions become pictures.

    Args:
        guard: the guard.
        policy: the policy in force.
        recording: recording of the call.
        first: first step of the call, with the evaluations of every part that takes a timestep.
        images: number of images in the batch.

    Raises:
        CannotSteer: no negative prompt can take effect, or the predictions do not become pictures.
    """
    sample = first.sample
    own = _of_denoiser(first.evaluations, sample)
    if sample.shape[0] != images:
        raise CannotSteer(
            f"it denoises {sample.shape[0]} latents for {images} images, which cannot be told apart",
            hint="Generate one image per call, or use another pipeline of the same model.",
        )
    kind = type(own[0].part)
    same = [name for name, part in recording.parts.items() if type(part) is kind and takes_time(part)]
    denoisers = frozenset({own[0].name, *same})
    shows = Shows(
        recording, dict.fromkeys(denoisers, own), first.scheduler, images, policy.preview.method, guard.preview_vae
    )
    if policy.mode == "shadow":
        _check_shows(shows, sample)
        return Begun(denoisers, shows, None, 1)
    check_caches(own[0].part)
    words = next(iter(recording.encoded), "") or _any_words(policy)
    proof = _proven(recording, replace(first, evaluations=own), words)
    if policy.guidance.mode == "replace" and not proof.places.negative:
        raise CannotSteer(
            "guidance mode 'replace' has no unconditional slot in this call: a negative prompt changes nothing in "
            "what its denoiser is given",
            hint="Use guidance mode 'separate', or call the pipeline with guidance and a negative_prompt.",
        )
    _check_shows(shows, sample)
    return Begun(denoisers, shows, proof, shows.channels(first.output), words)


def evaluated_again(recording: Recording) -> FirstStep:
    """Return the first step of a call that is already past it, by evaluating it again on a copy.

    Raises:
        CannotSteer: the call cannot be repeated on a copy.
    """
    try:
        return capture_evaluated(recording)
    except Exception as error:
        raise _not_again(error, _ATTACH) from error


def _check_shows(shows: Shows, sample: Tensor) -> None:
    try:
        shows.check(sample)
    except DnpGuardError:
        raise
    except Exception as error:
        raise CannotSteer(
            f"its end cannot be run on a copy, which shows its predictions: {error}", hint=_READ_TWICE
        ) from error


def _proven(recording: Recording, own: FirstStep, words: str) -> Proof:
    try:
        return Proof(recording, own, words)
    except DnpGuardError:
        raise
    except Exception as error:
        raise _not_again(error, _READ_TWICE) from error


def _not_again(error: Exception, hint: str) -> CannotSteer:
    return CannotSteer(
        f"its call cannot be made again on a copy, which shows where its prompt goes: {error}", hint=hint
    )


def _of_denoiser(evaluations: Sequence[Evaluation], sample: Tensor) -> list[Evaluation]:
    """Return the evaluations of the denoiser: the part that was evaluated last before a step, and others of its class.

    Raises:
        CannotSteer: no denoiser can be evaluated again, or it keeps a cache of the whole batch for later evaluations.
    """
    last = next((evaluation for evaluation in reversed(evaluations) if takes_time(evaluation.part)), None)
    if last is None:
        raise CannotSteer(
            f"no part of it that can be evaluated again denoises its latents ({'x'.join(map(str, sample.shape))})",
            hint="Use a pipeline whose denoiser is a torch module.",
        )
    if cached := arguments.keeps(last):
        raise CannotSteer(
            f"its {last.name} keeps a {cached} of the whole batch for later evaluations, where no negative is",
            hint="Switch it off, or use the pipeline of the same model that computes each step anew.",
        )
    return [evaluation for evaluation in evaluations if type(evaluation.part) is type(last.part)]


def _any_words(policy: Any) -> str:
    """Return some text that the policy can inject."""
    negatives = [text for category in policy.categories for text in (category.negative or ())]
    return next((text for text in negatives if "$" not in text), "a word")
