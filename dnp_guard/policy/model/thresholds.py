"""A threshold: one for the whole denoising run, or one per range of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, PlainSerializer, PlainValidator, TypeAdapter, WithJsonSchema
from pydantic_core import PydanticCustomError

from dnp_guard.policy.model.scalars import PolicyModel, Probability

if TYPE_CHECKING:
    from collections.abc import Sequence


class StepRange(PolicyModel):
    """The threshold in one range of the denoising run.

    Attributes:
        begin: fraction of the run where the range begins.
        end: fraction where it ends; the end belongs to the next range.
        value: threshold in the range.
    """

    begin: Probability = Field(alias="from", description="Fraction of the run where the range begins.", examples=[0.0])
    end: Probability = Field(
        alias="to", description="Fraction where it ends; the end belongs to the next range.", examples=[0.4]
    )
    value: Probability = Field(description="Threshold in the range.", examples=[0.6])


def joined(ranges: Sequence[StepRange]) -> bool:
    """Return whether ranges cover the whole run without gaps or overlaps."""
    ends = [0.0, *(part.end for part in ranges)]
    return (
        bool(ranges)
        and ends[-1] == 1
        and all(part.begin == before < part.end for part, before in zip(ranges, ends, strict=False))
    )


def _plain(threshold: float | tuple[StepRange, ...]) -> Any:
    return [part.model_dump(by_alias=True) for part in threshold] if isinstance(threshold, tuple) else threshold


def _threshold(value: Any) -> float | tuple[StepRange, ...]:
    if not isinstance(value, list | tuple):
        return _NUMBER.validate_python(value)
    ranges = _RANGES.validate_python(value)
    if not joined(ranges):
        raise PydanticCustomError(
            "step_ranges", "Input should be ranges from 0 to 1, each beginning where the one before it ends"
        )
    return ranges


_NUMBER: TypeAdapter[float] = TypeAdapter(Probability)
_RANGES: TypeAdapter[tuple[StepRange, ...]] = TypeAdapter(Annotated[tuple[StepRange, ...], Field(max_length=100)])

_UNIT = {"type": "number", "minimum": 0, "maximum": 1}
_OF_RANGE = {
    field.alias or name: {**_UNIT, "description": field.description, "examples": field.examples}
    for name, field in StepRange.model_fields.items()
}
Threshold = Annotated[
    float | tuple[StepRange, ...],
    PlainValidator(_threshold),
    PlainSerializer(_plain),
    WithJsonSchema(
        {
            "anyOf": [
                _UNIT,
                {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 100,
                    "items": {
                        "type": "object",
                        "properties": _OF_RANGE,
                        "required": list(_OF_RANGE),
                        "additionalProperties": False,
                    },
                },
            ]
        }
    ),
]


def at(threshold: float | tuple[StepRange, ...], progress: float | None) -> float:
    """Return the threshold at a point of the run.

    Args:
        threshold: threshold of a category.
        progress: fraction of the run; None if unknown, which gives the lowest threshold.
    """
    if not isinstance(threshold, tuple):
        return threshold
    if progress is None:
        return min(part.value for part in threshold)
    return next((part.value for part in threshold if progress < part.end), threshold[-1].value)


def starts(*thresholds: float | tuple[StepRange, ...]) -> tuple[float, ...]:
    """Return the fractions of the run at which any of the thresholds changes, and 0."""
    return tuple(
        sorted({0.0, *(part.begin for threshold in thresholds if isinstance(threshold, tuple) for part in threshold)})
    )


def lowest(one: float | tuple[StepRange, ...], other: float | tuple[StepRange, ...]) -> float | list[dict[str, float]]:
    """Return the lower of two thresholds at every point of the run, in the form of a policy file."""
    if not isinstance(one, tuple) and not isinstance(other, tuple):
        return min(one, other)
    begins = starts(one, other)
    return [
        {"from": begin, "to": end, "value": min(at(one, begin), at(other, begin))}
        for begin, end in zip(begins, (*begins[1:], 1.0), strict=True)
    ]


def falls(was: float | tuple[StepRange, ...], now: float | tuple[StepRange, ...]) -> bool:
    """Return whether a threshold becomes lower anywhere in the run."""
    return any(at(now, point) < at(was, point) for point in starts(was, now))


def in_words(threshold: float | tuple[StepRange, ...]) -> str:
    """Return a threshold as text, such as ``0.5``, or ``0.7 from 0 to 0.3, 0.5 from 0.3 to 1``.

    >>> in_words(0.5)
    '0.5'
    """
    if not isinstance(threshold, tuple):
        return f"{threshold:g}"
    return ", ".join(f"{part.value:g} from {part.begin:g} to {part.end:g}" for part in threshold)
