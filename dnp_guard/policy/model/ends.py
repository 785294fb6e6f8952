"""The end of a generation: the query of the finished image, retries, and the picture for a withheld image."""

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
"""Number of pictures that a view of an image adds to a query."""

MAX_LOCALES = 100
LOCALE = r"^[a-z]{2,3}(-[A-Z]{2})?$"


class FinalLook(PolicyModel):
    """How to query the finished image."""

    views: tuple[View, ...] = Field(
        min_length=1,
        max_length=len(PICTURES),
        description="More pictures of the image to put into the same query; the highest answer applies. `flip`: the "
        "mirror image. `crops`: two overlapping crops, three quarters of the width and height. `double`: the image at "
        "twice the size.",
        examples=[["flip", "crops"]],
    )

    @property
    def pictures(self) -> int:
        """Number of pictures per image in the final query."""
        return 1 + sum(PICTURES[view] for view in dict.fromkeys(self.views))


class Retries(PolicyModel):
    """How to generate an image again, steered harder, if it still shows a category with `still_present: retry`."""

    most: Annotated[Count, Field(le=10)] = Field(default=1, description="Most retries per image.", examples=[1])
    otherwise: Literal[Action.MONITOR, Action.BLUR, Action.BLOCK] = Field(
        default=Action.BLOCK,
        description="Response if the last attempt still shows it or fails, or the host cannot generate again.",
        examples=["block"],
    )
    scale: Strengthening = Field(
        default=1.5,
        description="Factor on the strength of a retry, which steers from its first step on. It applies once more in "
        "every further retry, up to a factor of 10.",
        examples=[1.5],
    )
    within_ms: Count | None = Field(
        default=None,
        description="Time limit of the whole request, in milliseconds: no retry begins that would exceed it, and a "
        "retry that exceeds it ends. Omitted: no limit.",
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
"""A text, or texts by language."""


class Withheld(PolicyModel):
    """The picture that replaces a withheld image."""

    text: Words | None = Field(
        default=None,
        description="Words in the picture: a text, or texts by language. A person whose language is missing gets the "
        "first. Omitted: the guard's own words.",
        examples=[{"en": "This image was withheld.", "de": "Dieses Bild wird nicht gezeigt."}],
    )
    style: Literal["blank", "blur"] = Field(
        default="blank",
        description="Background of the words: nothing, or the image blurred beyond recognition. Always nothing for an "
        "image that shows something sensitive or could not be queried.",
        examples=["blank"],
    )

    def words(self, locale: str) -> str:
        """Return the text in a person's language, or else in the first language of the policy.

        Args:
            locale: language of the person, such as ``de-CH`` or ``de``.

        Returns:
            The text, empty if the policy has none.
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
"""Whether to query the finished image, or how."""
