"""An object that stands in for a part of a pipeline during one call, and otherwise behaves like that part."""

from __future__ import annotations

import copy
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Answer = Callable[..., Any]
    """Takes the part's own function, followed by the arguments of the call."""

CALL = "__call__"
STEP = ("model_output", "timestep", "sample")
"""First arguments of every scheduler's step."""


class StandIn:
    """An object in place of a pipeline's part (such as the denoiser), some of whose functions the guard answers.

    Only one pipeline holds it, so other users of the part are not affected. It has all attributes of the part, and
    ``isinstance`` takes it for the part.

    Args:
        part: the part.
        answers: functions that answer, by the name of the part's function, such as ``__call__``.
    """

    __slots__ = ("_dnp_answers", "_dnp_part")

    def __init__(self, part: Any, answers: Mapping[str, Answer]) -> None:
        object.__setattr__(self, "_dnp_part", part)
        object.__setattr__(self, "_dnp_answers", answers)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """The class of the part."""
        return type(object.__getattribute__(self, "_dnp_part"))

    def __getattr__(self, name: str) -> Any:
        part, answers = object.__getattribute__(self, "_dnp_part"), object.__getattribute__(self, "_dnp_answers")
        answer = answers.get(CALL if name == "forward" else name)
        if answer is None:
            return getattr(part, name)
        if not hasattr(part, name):
            return partial(answer, None)
        plain = getattr(part, name)

        @wraps(plain)
        def answered(*args: Any, **kwargs: Any) -> Any:
            return answer(plain, *args, **kwargs)

        return answered

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(object.__getattribute__(self, "_dnp_part"), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(object.__getattribute__(self, "_dnp_part"), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Handle a call in place of the part that this object replaces."""
        part, answers = object.__getattribute__(self, "_dnp_part"), object.__getattribute__(self, "_dnp_answers")
        answer = answers.get(CALL)
        return part(*args, **kwargs) if answer is None else answer(part, *args, **kwargs)

    def __copy__(self) -> Any:
        return copy.copy(object.__getattribute__(self, "_dnp_part"))

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(object.__getattribute__(self, "_dnp_part"), memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return object.__getattribute__(self, "_dnp_part").__reduce_ex__(protocol)

    def __eq__(self, other: object) -> bool:
        return bool(object.__getattribute__(self, "_dnp_part") == other)

    def __hash__(self) -> int:
        return hash(object.__getattribute__(self, "_dnp_part"))

    def __repr__(self) -> str:
        return repr(object.__getattribute__(self, "_dnp_part"))


def of_scheduler(scheduler: Any, answers: Mapping[str, Answer]) -> StandIn:
    """Return a stand-in for a scheduler; add ``scale_model_input``, which some pipelines call, if it is missing."""
    if hasattr(scheduler, "scale_model_input"):
        return StandIn(scheduler, answers)
    return StandIn(scheduler, {"scale_model_input": lambda _, sample, *__, **___: sample, **answers})


def stands_in(part: object) -> bool:
    """Return whether a part of a pipeline is a stand-in."""
    return type(part) is StandIn
