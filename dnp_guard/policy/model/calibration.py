"""Which model a category's thresholds were measured on."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from dnp_guard.policy.model.scalars import PolicyModel, Text


class Calibrated(PolicyModel):
    """Which model a category's thresholds were measured on.

    Attributes:
        file: as the policy names it.
        vlm: the name of the backend.
        vlm_revision: its revision; another one's answers are not worth the same.
    """

    file: Text
    vlm: Text
    vlm_revision: Text

    def __str__(self) -> str:
        return f"{self.vlm} {self.vlm_revision} ({self.file})"


def _read_before(value: Any) -> Any:
    if isinstance(value, str):
        raise PydanticCustomError("calibration", "Input should be what a calibration file beside the policy says")
    return value


Calibration = Annotated[
    Calibrated | None, BeforeValidator(_read_before), WithJsonSchema({"type": "string", "minLength": 1})
]
"""What a policy file writes as the name of a file, and a policy holds as what that file says."""
