"""Have the pipeline itself say what its denoiser is given: its own call, on a copy, up to a scheduler step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dnp_guard.hosts.diffusers.asking import arguments
from dnp_guard.hosts.diffusers.asking.recording import Reached, takes_time
from dnp_guard.hosts.diffusers.asking.standin import CALL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from dnp_guard.hosts.diffusers.asking.arguments import Evaluation
    from dnp_guard.hosts.diffusers.asking.recording import Recording


@dataclass(frozen=True, slots=True)
class FirstStep:
    """The first step of a call.

    Attributes:
        evaluations: of its denoiser, in their order.
        output: what the scheduler was given.
        sample: x_t, as the scheduler was given it.
    """

    evaluations: Sequence[Evaluation]
    output: Tensor
    sample: Tensor


def capture(
    recording: Recording,
    known: FirstStep,
    scheduler: str,
    change: Mapping[str, Any] | None = None,
    outputs: Callable[[int, Any], Any] | None = None,
) -> FirstStep:
    """Run a copy to its first step; its denoiser answers what it is told to, and is not evaluated.

    Args:
        recording: of the call.
        known: the first step of the call itself.
        scheduler: the name of the scheduler that steps.
        change: other arguments of the call.
        outputs: the number of an evaluation and what the call's own denoiser answered it to what the copy's answers.
    """
    evaluations: list[Evaluation] = []
    reached: dict[str, Any] = {}

    def evaluated(name: str) -> Callable[..., Any]:
        def answer(_part: Any, *args: Any, **kwargs: Any) -> Any:
            place = len(evaluations)
            own = known.evaluations[min(place, len(known.evaluations) - 1)].output
            output = outputs(place, own) if outputs else own
            # The part itself, and not a function of it: what is captured is evaluated again.
            evaluations.append(arguments.evaluation(name, recording.parts[name], args, kwargs, output))
            return output

        return answer

    def stepped(_step: Any, *args: Any, **kwargs: Any) -> Any:
        reached.update(zip(("model_output", "timestep", "sample"), args, strict=False))
        reached.update(kwargs)
        raise Reached

    denoisers = {each.name for each in known.evaluations}
    answers: dict[str, dict[str, Any]] = {name: {CALL: evaluated(name)} for name in denoisers}
    recording.run(change or {}, {**answers, scheduler: {"step": stepped}})
    if not reached:
        raise RuntimeError("the copy of the call ended before its first step")
    return FirstStep(evaluations, reached["model_output"], reached["sample"])


def capture_evaluated(recording: Recording, scheduler: str) -> FirstStep:
    """Run a copy to its first step with its denoiser evaluated, for a call whose own first step is over."""
    evaluations: list[Evaluation] = []
    reached: dict[str, Any] = {}

    def evaluated(name: str) -> Callable[..., Any]:
        def answer(part: Any, *args: Any, **kwargs: Any) -> Any:
            before = arguments.evaluation(name, recording.parts[name], args, kwargs)
            output = part(*args, **kwargs)
            recording.keep(name, CALL, args, kwargs, output)
            evaluations.append(replace(before, output=output))
            return output

        return answer

    def stepped(_step: Any, *args: Any, **kwargs: Any) -> Any:
        reached.update(zip(("model_output", "timestep", "sample"), args, strict=False))
        reached.update(kwargs)
        raise Reached

    answers: dict[str, dict[str, Any]] = {
        name: {CALL: evaluated(name)} for name, part in recording.parts.items() if takes_time(part)
    }
    recording.run({}, {**answers, scheduler: {"step": stepped}})
    if not reached:
        raise RuntimeError("the copy of the call ended before its first step")
    return FirstStep(evaluations, reached["model_output"], reached["sample"])
