"""The scalar types of policy fields, and the base class of every policy model."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    Strict,
    StringConstraints,
    TypeAdapter,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

IDENTIFIER = r"^[a-z][a-z0-9_-]{0,63}$"
ADDRESS = r"^(local|https?://\S+)$"
IN_WORDS = {
    IDENTIFIER: "lower-case letters, digits, `_` and `-`, a letter first, at most 64",
    ADDRESS: "`local`, or an address that begins with http:// or https://",
}
"""The meaning of the patterns, in words."""

MAX_INTEGER = 2**53 - 1
"""The largest integer that JSON represents exactly."""


class PolicyModel(BaseModel):
    """Base class of every part of a policy: an instance is frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _number(value: Any) -> float | int:
    """Check a query step, a fraction of the run or a whole step number, without converting one to the other."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_INTEGER:
        raise PydanticCustomError("step_type", "Input should be a fraction 0 to 1, or a whole step with `of`")
    return value


Flag = Annotated[bool, Strict()]
Line = Annotated[str, StringConstraints(strip_whitespace=True, max_length=2_000)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2_000)]
Identifier = Annotated[str, StringConstraints(pattern=IDENTIFIER)]
Address = Annotated[str, StringConstraints(pattern=ADDRESS, max_length=2_000)]
Probability = Annotated[float, Strict(), Field(ge=0, le=1, allow_inf_nan=False)]
Miss = Annotated[float, Strict(), Field(gt=0, lt=1, allow_inf_nan=False)]
Share = Annotated[float, Strict(), Field(gt=0, le=1, allow_inf_nan=False)]
Factor = Annotated[float, Strict(), Field(gt=1, le=1_000, allow_inf_nan=False)]
MOST_STRENGTHENING = 10
Strengthening = Annotated[float, Strict(), Field(ge=1, le=MOST_STRENGTHENING, allow_inf_nan=False)]
Extrapolation = Annotated[float, Strict(), Field(ge=1, le=100, allow_inf_nan=False)]
Scale = Annotated[float, Strict(), Field(ge=0, le=1_000, allow_inf_nan=False)]
Count = Annotated[int, Strict(), Field(ge=1, le=MAX_INTEGER)]
Hold = Annotated[int, Strict(), Field(ge=0, le=1_000)]
StepNumber = Annotated[
    float | int, PlainValidator(_number), WithJsonSchema({"type": "number", "minimum": 0, "maximum": MAX_INTEGER})
]

_ONE: TypeAdapter[str] = TypeAdapter(Text)
_SEVERAL: TypeAdapter[tuple[str, ...]] = TypeAdapter(Annotated[tuple[Text, ...], Field(min_length=1, max_length=100)])
_NAME = {"type": "string", "minLength": 1}


def _bases(value: Any) -> str | tuple[str, ...]:
    return _SEVERAL.validate_python(value) if isinstance(value, list | tuple) else _ONE.validate_python(value)


Bases = Annotated[
    str | tuple[str, ...],
    PlainValidator(_bases),
    WithJsonSchema({"anyOf": [_NAME, {"type": "array", "minItems": 1, "maxItems": 100, "items": _NAME}]}),
]
