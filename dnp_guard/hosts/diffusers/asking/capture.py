"""Capture the arguments that a pipeline gives its denoiser, by running its own call on a copy up to its first step."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import CannotSteer
from dnp_guard.hosts.diffusers.asking import arguments
from dnp_guard.hosts.diffusers.asking.recording import Reached
from dnp_guard.hosts.diffusers.asking.standin import CALL, STEP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import Tensor

    from dnp_guard.hosts.diffusers.asking.arguments import Evaluation
    from dnp_guard.hosts.diffusers.asking.recording import Recording
    from dnp_guard.hosts.diffusers.asking.standin import Answer


@dataclass(frozen=True, slots=True)
class FirstStep:
    """The first step of a call: the evaluations before the scheduler's step, and the arguments of that step.

    Attributes:
        evaluations: evaluations of all parts that take a timestep, or of the denoiser alone, in order.
        output: model output that the scheduler got.
        sample: x_t, as the scheduler got it.
        scheduler: name of the scheduler that steps.
        rehearsed: number of evaluations, the last ones, that only a copy of the call has made so far.
    """

    evaluations: Sequence[Evaluation]
    output: Tensor
    sample: Tensor
    scheduler: str
    rehearsed: int = 0


def capture(
    recording: Recording,
    known: FirstStep,
    change: Mapping[str, Any] | None = None,
    outputs: Callable[[int, Any], Any] | None = None,
) -> FirstStep:
    """Run a recorded call on a copy of its pipeline up to the first step, with prepared outputs of the denoiser.

    Args:
        recording: recording of the call.
        known: the first step of the call itself.
        change: arguments in place of the recorded ones.
        outputs: maps the number of an evaluation and its output in the call itself to the output in the copy; None to
            return the same outputs.

    Raises:
        RuntimeError: the copy takes no step.
    """

    def answer(_: Evaluation, place: int, __: Callable[[], Any]) -> Any:
        own = known.evaluations[min(place, len(known.evaluations) - 1)].output
        return outputs(place, own) if outputs else own

    return _reached(_run(recording, {evaluation.name for evaluation in known.evaluations}, answer, change))


def capture_evaluated(recording: Recording) -> FirstStep:
    """Evaluate the first step of a recorded call again on a copy of its pipeline, if the call is past that step.

    Raises:
        RuntimeError: the copy takes no step.
    """

    def answer(evaluation: Evaluation, _: int, evaluate: Callable[[], Any]) -> Any:
        output = evaluate()
        recording.keep(evaluation.name, CALL, evaluation.given, {}, output)
        return output

    return _reached(_run(recording, recording.timed, answer))


def rehearse(recording: Recording, own: Sequence[Evaluation]) -> FirstStep | None:
    """Run a recorded call on a copy of its pipeline up to the first step, with the evaluations made so far.

    Args:
        recording: recording of the call.
        own: evaluations that the call has made so far, before its first step.

    Returns:
        The first step; None if it needs an evaluation that the call has not made yet, or if the copy fails.

    Raises:
        CannotSteer: the copy ends, and no scheduler of the pipeline got the denoiser's output.
    """
    asked: Counter[str] = Counter()
    missing: list[str] = []

    def answer(evaluation: Evaluation, _: int, __: Callable[[], Any]) -> Any:
        known = [earlier.output for earlier in own if earlier.name == evaluation.name]
        asked[evaluation.name] += 1
        # The part that was evaluated last may be the denoiser; its further branches get the same output.
        if asked[evaluation.name] > len(known) and evaluation.name != own[-1].name:
            missing.append(evaluation.name)
            raise Reached
        return known[min(asked[evaluation.name], len(known)) - 1]

    try:
        first = _run(recording, recording.timed, answer)
    except Exception:  # noqa: BLE001 (the guard then begins at the step itself, where errors are clearer)
        return None
    if first is None and not missing:
        raise CannotSteer(
            f"its {own[-1].name}'s output reaches none of its schedulers, whose steps the guard looks at",
            hint="Use another pipeline of the same model.",
        )
    rest = first.evaluations[len(own) :] if first else []
    return first and replace(first, evaluations=[*own, *rest], rehearsed=len(rest))


def _run(
    recording: Recording,
    parts: Iterable[str],
    answer: Callable[[Evaluation, int, Callable[[], Any]], Any],
    change: Mapping[str, Any] | None = None,
) -> FirstStep | None:
    """Run a recorded call on a copy of its pipeline up to the first step; return None if it ends before that.

    Args:
        recording: recording of the call.
        parts: names of the parts whose evaluations are captured.
        answer: takes an evaluation, its number and a function that evaluates it; returns the part's output.
        change: arguments in place of the recorded ones.
    """
    evaluations: list[Evaluation] = []
    reached: list[FirstStep] = []

    def evaluated(name: str) -> Answer:
        def answered(part: Any, *args: Any, **kwargs: Any) -> Any:
            # Keep the part itself rather than its function: a captured evaluation is evaluated again.
            before = arguments.evaluation(name, recording.parts[name], args, kwargs)
            output = answer(before, len(evaluations), lambda: part(*args, **kwargs))
            evaluations.append(replace(before, output=output))
            return output

        return answered

    def stepped(name: str) -> Answer:
        def answered(_step: Any, *args: Any, **kwargs: Any) -> Any:
            given = {**dict(zip(STEP, args, strict=False)), **kwargs}
            reached.append(FirstStep(evaluations, given["model_output"], given["sample"], name))
            raise Reached

        return answered

    answers = {name: {CALL: evaluated(name)} for name in parts}
    answers |= {name: {"step": stepped(name)} for name in recording.schedulers}
    recording.run(change or {}, answers)
    return reached[0] if reached else None


def _reached(first: FirstStep | None) -> FirstStep:
    if first is None:
        raise RuntimeError("the copy of the call ended before its first step")
    return first
