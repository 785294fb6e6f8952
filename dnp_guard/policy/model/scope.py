"""The scope of a policy: whom it is for, what nobody may loosen, and temporary exceptions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from dnp_guard.policy.model.category import AnyAction, FinalAction  # noqa: TC001 (pydantic reads them when it runs)
from dnp_guard.policy.model.scalars import Identifier, PolicyModel, Probability, Text


def _utc(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    try:
        if not isinstance(value, str) or not value.endswith("Z"):
            raise ValueError  # noqa: TRY301 (one way to say what is wrong)
        return datetime.fromisoformat(value)
    except ValueError:
        raise PydanticCustomError("time", "Input should be a time in UTC, such as 2027-01-31T00:00:00Z") from None


Time = Annotated[
    datetime, BeforeValidator(_utc), WithJsonSchema({"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"})
]


class Select(PolicyModel):
    """The callers that a policy is for; a caller must match every list that is given."""

    tenants: tuple[Text, ...] = Field(
        default=(), max_length=10_000, description="Tenants that the policy is for. Omitted: all.", examples=[["acme"]]
    )
    regions: tuple[Text, ...] = Field(
        default=(), max_length=1_000, description="Regions that the policy is for. Omitted: all.", examples=[["eu"]]
    )
    surfaces: tuple[Text, ...] = Field(
        default=(),
        max_length=1_000,
        description="Surfaces that the policy is for, such as a product. Omitted: all.",
        examples=[["ads"]],
    )

    def matches(self, tenant: str | None, region: str | None, surface: str | None) -> bool:
        """Return whether the policy is for a caller; a tenant, region or surface of None (unknown) matches no list."""
        given = ((self.tenants, tenant), (self.regions, region), (self.surfaces, surface))
        return all(not accepted or value in accepted for accepted, value in given)


class Floor(PolicyModel):
    """The categories that a base policy, such as the floor of a store, locks for the policies built on it."""

    locked: tuple[Identifier, ...] = Field(
        default=(),
        max_length=1_000,
        description="Categories that no policy may loosen by `extends`, and that permit no exception.",
        examples=[["self_harm"]],
    )


class Excepted(PolicyModel):
    """The settings of a category that an exception replaces."""

    threshold: Probability | None = Field(
        default=None, description="Replaces the category's `threshold`.", examples=[0.8]
    )
    final_threshold: Probability | None = Field(
        default=None, description="Replaces the category's `final_threshold`.", examples=[0.8]
    )
    action: AnyAction | None = Field(
        default=None, description="Replaces the category's `action`.", examples=["monitor"]
    )
    still_present: FinalAction | None = Field(
        default=None, description="Replaces the category's `still_present`.", examples=["monitor"]
    )
    mode: Literal["enforce", "shadow"] | None = Field(
        default=None, description="Replaces the category's `mode`.", examples=["shadow"]
    )


class PolicyException(PolicyModel):
    """Settings of a category that differ until a set time, and then revert by themselves."""

    category: Identifier = Field(description="Id of the category.", examples=["nudity"])
    tenant: Text | None = Field(
        default=None, description="Applies to this tenant only. Omitted: to all.", examples=["acme"]
    )
    set: Excepted = Field(description="The settings.", examples=[{"threshold": 0.8}])
    until: Time = Field(description="When the exception ends, in UTC.", examples=["2027-01-31T00:00:00Z"])
    reason: Text = Field(description="Why the exception exists.", examples=["An exhibition of classical paintings."])
    approved_by: Text = Field(description="Who approved the exception.", examples=["Head of policy"])

    def applies(self, tenant: str | None, at: datetime) -> bool:
        """Return whether the exception is in force for a tenant at a time."""
        return at < self.until and self.tenant in {None, tenant}
