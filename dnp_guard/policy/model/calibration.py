"""The model that a category's thresholds were measured on."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from dnp_guard.policy.model.scalars import PolicyModel, Text


class Calibrated(PolicyModel):
    """The model that a category's thresholds were measured on.

    Attributes:
        file: name of the calibration file, as the policy writes it.
        vlm: name of the backend.
        vlm_revision: revision of the backend; the thresholds do not fit the answers of another revision.
    """

    file: Text
    vlm: Text
    vlm_revision: Text

    def __str__(self) -> str:
        return f"{self.vlm} {self.vlm_revision} ({self.file})"


def _read_before(value: Any) -> Any:
    if isinstance(value, str):
        raise PydanticCustomError("calibration", "Input should be the content of a calibration file beside the policy")
    return value


Calibration = Annotated[
    Calibrated | None, BeforeValidator(_read_before), WithJsonSchema({"type": "string", "minLength": 1})
]
"""A file name in the text of a policy; the content of that file in a loaded policy."""
