"""The objects inside a record, and JSON Schemas for values whose Python type is not enough.

The JSON Schema and the reference are generated from these annotations at run time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Required, TypedDict

from dnp_guard.audit.record import LONGEST
from dnp_guard.types import Action, GuidanceMode, Outcome


@dataclass(frozen=True, eq=False, slots=True)
class Json:
    """The JSON Schema of a value whose Python type is not enough."""

    schema: Mapping[str, Any]


PREVIEW_NAME: Final = r"^[0-9a-f]{32}-[0-9]+-([0-9]+|final)\.(png|sealed)$"
"""Name of a stored picture: request, image, step; ``sealed`` means encrypted."""

TEXT: Final = {"type": "string", "maxLength": LONGEST}

Hash = Annotated[str, Json({"type": "string", "pattern": "^[0-9a-f]{64}$"})]
Seed = Annotated[int | str, Json({"anyOf": [{"type": "integer"}, TEXT]})]
DecisionName = Annotated[str, Json({"enum": ["none", *map(str, Action), *map(str, Outcome)]})]


class PolicyFields(TypedDict, total=False):
    """``policy{…}``."""

    name: str
    revision: str
    digest: str
    mode: Literal["enforce", "shadow"]


class TaxonomyFields(TypedDict):
    """One of ``loaded.taxonomy{…}``."""

    name: str
    id: str


class LoadedFields(TypedDict, total=False):
    """``loaded{…}``."""

    before: Hash
    source: str
    signer: str
    serial: int
    author: str
    approver: str
    reason: str
    loosened: bool
    taxonomy: Mapping[str, TaxonomyFields]


class HostFields(TypedDict, total=False):
    """``host{…}``."""

    name: str
    version: str
    target: str


class VlmFields(TypedDict, total=False):
    """``vlm{…}``."""

    name: str
    revision: str


class RunFields(TypedDict, total=False):
    """``run{…}``."""

    seed: Seed | Sequence[Seed]
    latents: str
    scheduler: str
    steps: int
    guidance_scale: float
    size: Sequence[int]


class PromptFields(TypedDict, total=False):
    """``prompt{…}``."""

    hmac: str | Sequence[str]
    redacted: str | Sequence[str]
    plain: str | Sequence[str]


class FindingFields(TypedDict, total=False):
    """One of ``findings[]``."""

    category: Required[str]
    term: str
    probability: float
    threshold: float


class WouldFields(TypedDict, total=False):
    """``would{…}``."""

    decision: DecisionName
    negative: str
    scale: float


class _Everywhere(TypedDict):
    phi: float
    tau: float
    alpha: float


class AttentionFields(_Everywhere, total=False):
    """``negative.attention{phi, tau, alpha, mask}``; a mask of 1 is left out."""

    mask: float


class NegativeFields(TypedDict, total=False):
    """``negative{…}``."""

    text: str
    scale: float
    attention: AttentionFields
    mode: Required[GuidanceMode | Literal["attention+separate"]]
    effective: bool


class PreviewFields(TypedDict):
    """``preview{…}``."""

    file: Annotated[str, Json({"type": "string", "pattern": PREVIEW_NAME})]
    sha256: Hash


class ExceptionFields(TypedDict, total=False):
    """``exception{…}``."""

    category: Required[str]
    set: Required[Annotated[Mapping[str, Any], Json({"type": "object"})]]
    until: Required[str]
    approved_by: Required[str]
    tenant: str


class CheckpointFields(TypedDict):
    """``checkpoint{…}``."""

    origin: str
    count: int
    root: Hash


class Common(TypedDict, total=False):
    """Fields that the records of a guard share."""

    tenant: Annotated[str, "Tenant that the record is about."] | None
    policy: Annotated[PolicyFields, "The policy in force."]
    vlm: Annotated[VlmFields, "The vision-language model."]
