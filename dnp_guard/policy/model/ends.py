"""What happens at the end of a generation: the final look, a second chance, and what stands for a withheld image."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field, PlainSerializer, PlainValidator, TypeAdapter, WithJsonSchema
from pydantic_core import PydanticCustomError

from dnp_guard.policy.model.scalars import Count, Flag, PolicyModel, Strengthening, Text
from dnp_guard.types import Action

View = Literal["flip", "crops", "double"]

PICTURES: Final[Mapping[View, int]] = {"flip": 1, "crops": 2, "double": 1}
"""How many pictures each view of an image adds to a query."""

MAX_LOCALES = 100
LOCALE = r"^[a-z]{2,3}(-[A-Z]{2})?$"


class FinalLook(PolicyModel):
    """How the finished image is looked at."""

    views: tuple[View, ...] = Field(
        min_length=1,
        max_length=len(PICTURES),
        description="Pictures of the image that are asked about beside it, in the same query; the highest answer "
        "weighs. `flip`: mirrored. `crops`: two that overlap, of three quarters each way. `double`: at twice the size.",
        examples=[["flip", "crops"]],
    )

    @property
    def pictures(self) -> int:
        """How many pictures of each image are asked about."""
        return 1 + sum(PICTURES[view] for view in dict.fromkeys(self.views))


class Retries(PolicyModel):
    """A second chance: an image whose final look says `retry` is made again, with what was seen steered away from."""

    most: Annotated[Count, Field(le=10)] = Field(
        default=1, description="How often an image is made again, at most.", examples=[1]
    )
    otherwise: Literal[Action.MONITOR, Action.BLUR, Action.BLOCK] = Field(
        default=Action.BLOCK,
        description="What happens when the last attempt still shows it, fails, or the host cannot draw again.",
        examples=["block"],
    )
    scale: Strengthening = Field(
        default=1.5,
        description="A retry steers at this many times the strength, from its first step on.",
        examples=[1.5],
    )
    within_ms: Count | None = Field(
        default=None,
        description="How long the whole request may take, in milliseconds: no retry begins that would not be over by "
        "then, and one that is not over ends. Omitted: as long as it takes.",
        examples=[60000],
    )


_ONE: TypeAdapter[str] = TypeAdapter(Text)
_BY_LOCALE: TypeAdapter[dict[str, str]] = TypeAdapter(
    Annotated[dict[str, Text], Field(min_length=1, max_length=MAX_LOCALES)]
)


def _words(value: Any) -> str | dict[str, str]:
    if not isinstance(value, Mapping):
        return _ONE.validate_python(value)
    if not all(isinstance(key, str) and re.fullmatch(LOCALE, key) for key in value):
        raise PydanticCustomError("locale", "Input should be texts by language, such as `de` or `de-CH`")
    return _BY_LOCALE.validate_python(value)


_TEXT = {"type": "string", "minLength": 1, "maxLength": 2_000}
Words = Annotated[
    str | Mapping[str, str],
    PlainValidator(_words),
    PlainSerializer(lambda value: dict(value) if isinstance(value, Mapping) else value),
    WithJsonSchema(
        {
            "anyOf": [
                _TEXT,
                {
                    "type": "object",
                    "minProperties": 1,
                    "maxProperties": MAX_LOCALES,
                    "propertyNames": {"pattern": LOCALE},
                    "additionalProperties": _TEXT,
                },
            ]
        }
    ),
]
"""A text, or one for each language."""


class Withheld(PolicyModel):
    """What a person sees in place of an image that is withheld."""

    text: Words | None = Field(
        default=None,
        description="The words in the picture: a text, or one for each language, of which the first is used where a "
        "person's is missing. Omitted: the guard's own.",
        examples=[{"en": "This image was withheld.", "de": "Dieses Bild wird nicht gezeigt."}],
    )
    style: Literal["blank", "blur"] = Field(
        default="blank",
        description="Under the words: nothing, or the image blurred beyond recognition; nothing in any case where it "
        "shows something sensitive, or could not be looked at.",
        examples=["blank"],
    )

    def words(self, locale: str) -> str:
        """The text for a person.

        Args:
            locale: such as ``de-CH`` or ``de``.

        Returns:
            An empty text where the policy says none.
        """
        if self.text is None or isinstance(self.text, str):
            return self.text or ""
        language = locale.partition("-")[0]
        return self.text.get(locale) or self.text.get(language) or next(iter(self.text.values()))


_FLAG: TypeAdapter[bool] = TypeAdapter(Flag)


def _final(value: Any) -> bool | FinalLook:
    return FinalLook.model_validate(value) if isinstance(value, Mapping | FinalLook) else _FLAG.validate_python(value)


_OF_LOOK = FinalLook.model_json_schema()["properties"]["views"]
OfFinal = Annotated[
    bool | FinalLook,
    PlainValidator(_final),
    PlainSerializer(lambda value: {"views": list(value.views)} if isinstance(value, FinalLook) else value),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "boolean"},
                {
                    "type": "object",
                    "properties": {"views": {key: part for key, part in _OF_LOOK.items() if key != "title"}},
                    "required": ["views"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
"""Whether the finished image is looked at, or how."""
