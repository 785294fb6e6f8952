"""The parts of a policy that say for whom it is, what may not be loosened, and what is excepted until when."""

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
    """For whom a policy of a store is; all that is given must match."""

    tenants: tuple[Text, ...] = Field(
        default=(), max_length=10_000, description="Tenants it is for. Omitted: all.", examples=[["acme"]]
    )
    regions: tuple[Text, ...] = Field(
        default=(), max_length=1_000, description="Regions it is for. Omitted: all.", examples=[["eu"]]
    )
    surfaces: tuple[Text, ...] = Field(
        default=(),
        max_length=1_000,
        description="Surfaces it is for, such as a product. Omitted: all.",
        examples=[["ads"]],
    )

    def matches(self, tenant: str | None, region: str | None, surface: str | None) -> bool:
        """Whether the policy is for this tenant, region and surface; what is not known matches no list."""
        given = ((self.tenants, tenant), (self.regions, region), (self.surfaces, surface))
        return all(not wanted or value in wanted for wanted, value in given)


class Floor(PolicyModel):
    """What makes a policy the floor of a store, or a base that binds what extends it."""

    locked: tuple[Identifier, ...] = Field(
        default=(),
        max_length=1_000,
        description="Categories that no policy may loosen by `extends`, and of which nothing is excepted.",
        examples=[["self_harm"]],
    )


class Excepted(PolicyModel):
    """What an exception sets."""

    threshold: Probability | None = Field(
        default=None, description="In place of the category's `threshold`.", examples=[0.8]
    )
    final_threshold: Probability | None = Field(
        default=None, description="In place of the category's `final_threshold`.", examples=[0.8]
    )
    action: AnyAction | None = Field(
        default=None, description="In place of the category's `action`.", examples=["monitor"]
    )
    still_present: FinalAction | None = Field(
        default=None, description="In place of the category's `still_present`.", examples=["monitor"]
    )
    mode: Literal["enforce", "shadow"] | None = Field(
        default=None, description="In place of the category's `mode`.", examples=["shadow"]
    )


class PolicyException(PolicyModel):
    """Something set otherwise for a while; it reverts by itself."""

    category: Identifier = Field(description="Id of the category.", examples=["nudity"])
    tenant: Text | None = Field(default=None, description="For this tenant alone. Omitted: for all.", examples=["acme"])
    set: Excepted = Field(description="What is set.", examples=[{"threshold": 0.8}])
    until: Time = Field(description="When it ends, in UTC.", examples=["2027-01-31T00:00:00Z"])
    reason: Text = Field(description="Why it is there.", examples=["An exhibition of classical paintings."])
    approved_by: Text = Field(description="Who approved it.", examples=["Head of policy"])

    def applies(self, tenant: str | None, at: datetime) -> bool:
        """Whether the exception is in force for a tenant at a time."""
        return at < self.until and self.tenant in {None, tenant}
