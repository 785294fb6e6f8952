"""The nested objects of an audit record, and JSON Schemas for values that a Python type does not fully describe.

The JSON Schema of records and the reference are generated from these annotations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Required, TypedDict

from dnp_guard.audit.record import LONGEST
from dnp_guard.types import Action, GuidanceMode, Outcome


@dataclass(frozen=True, eq=False, slots=True)
class Json:
    """The JSON Schema of a value that its Python type does not fully describe, for use in ``Annotated``."""

    schema: Mapping[str, Any]


PREVIEW_NAME: Final = r"^[0-9a-f]{32}-[0-9]+-([0-9]+|final)\.(png|sealed)$"
"""Pattern of a stored picture's file name: request, image and step; ``sealed`` means encrypted."""

TEXT: Final = {"type": "string", "maxLength": LONGEST}

Hash = Annotated[str, Json({"type": "string", "pattern": "^[0-9a-f]{64}$"})]
Seed = Annotated[int | str, Json({"anyOf": [{"type": "integer"}, TEXT]})]
DecisionName = Annotated[str, Json({"enum": ["none", *map(str, Action), *map(str, Outcome)]})]


class PolicyFields(TypedDict, total=False):
    """The policy in force: ``policy{…}`` of a record."""

    name: str
    revision: str
    digest: str
    mode: Literal["enforce", "shadow"]


class TaxonomyFields(TypedDict):
    """The entry of a published list of hazards to which a category belongs: one value of ``loaded.taxonomy{…}``."""

    name: str
    id: str


class LoadedFields(TypedDict, total=False):
    """How a policy came into force, from which file and by whom: ``loaded{…}`` of a record."""

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
    """The program that generates images, and its pipeline that is guarded: ``host{…}`` of a record."""

    name: str
    version: str
    target: str


class VlmFields(TypedDict, total=False):
    """The vision-language model that answers the queries: ``vlm{…}`` of a record."""

    name: str
    revision: str


class RunFields(TypedDict, total=False):
    """The settings of a generation, such as its seed and its steps: ``run{…}`` of a record."""

    seed: Seed | Sequence[Seed]
    latents: str
    scheduler: str
    steps: int
    guidance_scale: float
    size: Sequence[int]


class PromptFields(TypedDict, total=False):
    """The prompts of a request as hashes, as lengths of words, or in plain text: ``prompt{…}`` of a record."""

    hmac: str | Sequence[str]
    redacted: str | Sequence[str]
    plain: str | Sequence[str]


class FindingFields(TypedDict, total=False):
    """A term that was found in an image, with its probability: one item of ``findings[]`` in a record."""

    category: Required[str]
    term: str
    probability: float
    threshold: float


class WouldFields(TypedDict, total=False):
    """Decision and negative prompt if the policy enforced what it only records in shadow: ``would{…}`` of a record."""

    decision: DecisionName
    negative: str
    scale: float


class _Everywhere(TypedDict):
    phi: float
    tau: float
    alpha: float


class AttentionFields(_Everywhere, total=False):
    """Strength of a negative prompt applied in attention: ``negative.attention{…}`` of a record. No mask means 1."""

    mask: float


class NegativeFields(TypedDict, total=False):
    """The guard's negative prompt of an image, its words and its strength: ``negative{…}`` of a record."""

    text: str
    scale: float
    attention: AttentionFields
    mode: Required[GuidanceMode | Literal["attention+separate"]]
    effective: bool


class PreviewFields(TypedDict):
    """The stored picture in which a query found something: ``preview{…}`` of a record."""

    file: Annotated[str, Json({"type": "string", "pattern": PREVIEW_NAME})]
    sha256: Hash


class ExceptionFields(TypedDict, total=False):
    """An exception of the policy, its end, and the person who approved it: ``exception{…}`` of a record."""

    category: Required[str]
    set: Required[Annotated[Mapping[str, Any], Json({"type": "object"})]]
    until: Required[str]
    approved_by: Required[str]
    tenant: str


class CheckpointFields(TypedDict):
    """The number of records and the last hash that a checkpoint confirms: ``checkpoint{…}`` of a record."""

    origin: str
    count: int
    root: Hash


class Common(TypedDict, total=False):
    """Fields that all records of one guard have in common."""

    tenant: Annotated[str, "Tenant that the record is about."] | None
    policy: Annotated[PolicyFields, "The policy in force."]
    vlm: Annotated[VlmFields, "The vision-language model."]
